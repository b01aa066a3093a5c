"""Where the skills of DDPG agents come from."""

import torch
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.skills import SkillSpace
from urlbench.agents.ddpg.backbone import Transitions


class Skills(nn.Module):
    """Skill vectors [K] for actors; a module, because some learn what to draw.

    Args:
        space: what there is, and for how long a training actor follows one.
    """

    like: Tensor

    def __init__(self, space: SkillSpace) -> None:
        super().__init__()
        self.space = space
        self.register_buffer("like", torch.zeros(space.dim), persistent=False)

    def draw(self, draws: Draws) -> Tensor:
        """A random skill [K]."""
        return self.space.draw(draws, self.like)

    def observe(self, batch: Transitions, frame: int) -> None:
        """Called with each batch of a fine-tuning, observations encoded, and the frames played so far."""
