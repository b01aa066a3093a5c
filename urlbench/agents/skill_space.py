"""What skills there are, and how one is drawn at random."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.draws import Draws


def draw_onehot(draws: Draws, like: Tensor) -> Tensor:
    """One of K, all equally likely: one-hot vectors of the shape of `like` [..., K]."""
    dim = like.shape[-1]
    return F.one_hot(draws.skill(torch.full_like(like, 1 / dim)), dim).to(like)


def draw_direction(draws: Draws, like: Tensor) -> Tensor:
    """Unit vectors of the shape of `like` [..., K], all directions equally likely."""
    return F.normalize(draws.normal(like), dim=-1)


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
