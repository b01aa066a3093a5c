"""Where the skills of DDPG agents come from."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.skill_space import draw_direction, draw_onehot
from urlbench.agents.ddpg.backbone import Transitions


class Skills(nn.Module):
    """A distribution over skill vectors [K]; a module, because some learn what to draw.

    Args:
        dim: K.
        every: agent steps after which a training actor draws another one, besides at each episode start; None for
            at episode starts only.
    """

    like: Tensor

    def __init__(self, dim: int, every: int | None) -> None:
        super().__init__()
        self.dim, self.every = dim, every
        self.register_buffer("like", torch.zeros(dim), persistent=False)

    @abstractmethod
    def draw(self, draws: Draws) -> Tensor:
        """A skill [K]."""

    def observe(self, batch: Transitions, frame: int) -> None:
        """Called with each batch of a fine-tuning, observations encoded, and the frames played so far."""


class OneHotSkills(Skills):
    """One of K, all equally likely."""

    def draw(self, draws: Draws) -> Tensor:
        """A one-hot vector [K]."""
        return draw_onehot(draws, self.like)


class SphereSkills(Skills):
    """A direction."""

    def draw(self, draws: Draws) -> Tensor:
        """A unit vector [K]."""
        return draw_direction(draws, self.like)


class CubeSkills(Skills):
    """A point of the unit cube."""

    def draw(self, draws: Draws) -> Tensor:
        """Numbers [K] in [0, 1)."""
        return draws.uniform(self.like)


class ConstantSkill(Skills):
    """Always the same.

    Args:
        value: of each of its K numbers.
    """

    def __init__(self, dim: int, value: float) -> None:
        super().__init__(dim, None)
        self.value = value

    def draw(self, draws: Draws) -> Tensor:
        """Constant numbers [K]."""
        return torch.full_like(self.like, self.value)
