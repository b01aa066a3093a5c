"""What skills there are, and how one is drawn at random."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.draws import Draws


def draw_onehot(draws: Draws, like: Tensor) -> Tensor:
    """One of K, all equally likely: one-hot vectors of the shape of `like` [..., K]."""
    dim = like.shape[-1]
    return F.one_hot(draws.skill(torch.full_like(like, 1 / dim)), dim).to(like)


def draw_direction(draws: Draws, like: Tensor) -> Tensor:
    """Unit vectors of the shape of `like` [..., K], all directions equally likely."""
    return F.normalize(draws.normal(like), dim=-1)


def distinctness(logits: Tensor, skill: Tensor) -> Tensor:
    """Log q(z | s) - log p(z): how much surer a discriminator is of the skill than a guess is.

    Source: Eysenbach et al. 2019 (DIAYN), eq. 3.

    Args:
        logits: the discriminator's, [..., K].
        skill: one-hot skills [..., K], all equally likely.

    Returns:
        [...]; 0 if nothing tells skills apart, at most log K.
    """
    return (F.log_softmax(logits, -1) * skill).sum(-1) + math.log(skill.shape[-1])


class SkillSpace(NamedTuple):
    """The skills of an agent.

    Attributes:
        dim: size of a skill vector (K).
        draw: random skills of the shape of its second argument.
        every: agent steps that one is followed for, unless the episode ends.
    """

    dim: int
    draw: Callable[[Draws, Tensor], Tensor]
    every: int
