"""An actor that follows a skill: what agents with a world model and random skills share."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.learner import LatentActor
from urlbench.agents.common.skill_schedule import SkillSchedule
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.interfaces import AgentContext


class SkillActor(LatentActor):
    """Holds a random skill: a new one at each episode start and whenever `skill_steps` divides the step counter.

    Args:
        world_model: whose current weights it filters with.
        context: action size and device.
        draws: the actor's own.
        codes: number of skills (K), drawn uniformly.
        skill_steps: agent steps.
    """

    def __init__(
        self, world_model: WorldModel, context: AgentContext, draws: Draws, *, codes: int, skill_steps: int
    ) -> None:
        super().__init__(world_model, context, draws)
        self._codes = codes
        uniform = torch.full((1, codes), 1 / codes, device=self._action.device)
        self._random_skill = SkillSchedule(lambda: draws.skill(uniform), skill_steps)

    def begin_episode(self) -> None:
        """A fresh random skill, whether it will be followed or not."""
        super().begin_episode()
        self._random_skill.at_episode_start()

    def after_step(self, step: int) -> None:
        """Published fine-tuning re-draws after the step, with the increased counter."""
        self._random_skill.at_step(step)

    def random_skill(self) -> Tensor:
        """The present random skill, one-hot [1, K]."""
        assert self._random_skill.skill is not None, "begin_episode comes before act"
        return F.one_hot(self._random_skill.skill, self._codes).to(self._action.dtype)

    def state_dict(self) -> dict[str, Any]:
        """The filter's and the random skill."""
        return super().state_dict() | {"skill": self._random_skill.skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._random_skill.skill = None if state["skill"] is None else state["skill"].to(self._action.device)
