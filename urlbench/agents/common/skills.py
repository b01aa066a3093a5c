"""What skills there are, how one is drawn at random, and when."""

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.draws import Draws

S = TypeVar("S")


def draw_onehot(draws: Draws, like: Tensor) -> Tensor:
    """One of K, all equally likely: one-hot vectors of the shape of `like` [..., K]."""
    dim = like.shape[-1]
    return F.one_hot(draws.skill(torch.full_like(like, 1 / dim)), dim).to(like)


def draw_direction(draws: Draws, like: Tensor) -> Tensor:
    """Unit vectors of the shape of `like` [..., K], all directions equally likely."""
    return F.normalize(draws.normal(like), dim=-1)


def draw_point(draws: Draws, like: Tensor) -> Tensor:
    """Points of the unit cube, of the shape of `like` [..., K], all equally likely."""
    return draws.uniform(like)


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
        every: agent steps that one is followed for, unless the episode ends; None for whole episodes.
    """

    dim: int
    draw: Callable[[Draws, Tensor], Tensor]
    every: int | None


class SkillSchedule(Generic[S]):
    """Holds the current skill: a new one at each episode start and whenever the step counter divides `every`.

    Published loops differ in when they look: pretraining loops before acting, with the counter as it is;
    the Dreamer-style fine-tuning loops after the step, with the increased counter, unless the episode ended.
    Callers call `at_step` accordingly.

    Args:
        draw: returns a new skill.
        every: period in agent steps of the run (of the evaluation, when evaluating); None for none.
    """

    def __init__(self, draw: Callable[[], S], every: int | None) -> None:
        self._draw = draw
        self._every = every
        self.skill: S | None = None

    def at_episode_start(self) -> None:
        """Draw a skill."""
        self.skill = self._draw()

    def at_step(self, step: int) -> None:
        """Draw a skill if `step` is a multiple of the period."""
        if self._every is not None and step % self._every == 0:
            self.skill = self._draw()
