"""Actors of agents with a world model: they filter what they see, and ask a policy at the model state."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from urlbench.agents.common import acting
from urlbench.agents.common.distributions import NormalPolicy
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import SkillSchedule, SkillSpace
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.interfaces import Actor, AgentContext, Array


class HasWorldModel(Protocol):
    """An agent, as its actors see it."""

    context: AgentContext
    world_model: WorldModel
    recorded: Mapping[str, tuple[int, ...]]


class LatentActor(Actor):
    """Filters observations with a world model and hands the model state to a policy.

    Args:
        agent: with whose current weights it filters.
        draws: the actor's own.
    """

    def __init__(self, agent: HasWorldModel, draws: Draws) -> None:
        model, context = agent.world_model, agent.context
        self._world_model, self._draws = model, draws
        self._encoder, self._filter = acting.encoder(model.encoder), acting.filter_step(model.rssm)
        self._state: LatentState | None = None
        self._action = torch.zeros(1, context.action_dim, device=context.device)

    @abstractmethod
    def policy(self, feat: Tensor, step: int) -> Tensor:
        """The action [1, A] at the model state `feat` [1, F]."""

    def begin_episode(self) -> None:
        """Start from the zero state and the zero action."""
        self._state = None
        self._action = torch.zeros_like(self._action)

    @torch.inference_mode()
    def act(self, observation: Array, step: int) -> Array:
        """The action, float32 [A]; the posterior latent is drawn in evaluation too, as published."""
        model = self._world_model
        state = model.rssm.initial(1) if self._state is None else self._state
        seen = torch.as_tensor(observation, device=self._action.device).unsqueeze(0)
        embed = self._encoder(model.seen(seen))
        self._state = self._filter(state, self._action, embed, self._draws)
        self._action = self.policy(self._state.feat, step)
        return self._action[0].cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Model state, last action and draws."""
        state = None if self._state is None else list(self._state)
        return {"state": state, "action": self._action, "draws": self._draws.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        device = self._action.device
        self._state = None if state["state"] is None else LatentState(*(x.to(device) for x in state["state"]))
        self._action = state["action"].to(device)
        self._draws.load_state_dict(state["draws"])


class PolicyActor(LatentActor):
    """Follows a policy, with a random skill that is drawn anew on a schedule, if there are skills.

    Args:
        agent: with whose current weights it filters, and which says whether skills are recorded.
        policy: that sees model state and skill.
        draws: the actor's own.
        sample: draw actions from the policy; else their mean is taken.
        skills: which there are; None if there are none.
        skill_steps: agent steps after which another skill is drawn, besides at each episode start; None for none.
        redraws: when it looks whether it is time. Published pretraining looks before acting, also right after a reset
            and while actions are random; published fine-tuning after the step, with the increased counter.
    """

    def __init__(
        self,
        agent: HasWorldModel,
        policy: NormalPolicy,
        draws: Draws,
        *,
        sample: bool,
        skills: SkillSpace | None = None,
        skill_steps: int | None = None,
        redraws: Literal["before_step", "after_step"] = "before_step",
    ) -> None:
        super().__init__(agent, draws)
        self._policy, self._sample, self._records = acting.normal_policy(policy), sample, "skill" in agent.recorded
        self._skills, self._redraws = skills, redraws
        self._random_skill: SkillSchedule[Tensor | None] = SkillSchedule(self._draw, skill_steps)

    def _draw(self) -> Tensor | None:
        skills = self._skills
        return None if skills is None else skills.draw(self._draws, self._action.new_zeros(1, skills.dim))

    @property
    def skill(self) -> Tensor | None:
        """The skill [1, K] that is followed now; None for agents without."""
        return self._random_skill.skill

    def begin_episode(self) -> None:
        """Forget the model state; draw a skill, whether it will be followed or not."""
        super().begin_episode()
        self._random_skill.at_episode_start()

    def before_step(self, step: int) -> None:
        """Look whether it is time for another skill."""
        if self._redraws == "before_step":
            self._random_skill.at_step(step)

    def after_step(self, step: int) -> None:
        """Look whether it is time for another skill."""
        if self._redraws == "after_step":
            self._random_skill.at_step(step)

    def action(self, feat: Tensor, skill: Tensor | None) -> Tensor:
        """The policy's action [1, A] at `feat` [1, F] for `skill` [1, K], sampled or its mean."""
        action = self._policy(feat if skill is None else torch.cat([feat, skill], -1))
        return action.sample(self._draws.action_noise(action.mean)) if self._sample else action.mean

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """For the present skill."""
        return self.action(feat, self.skill)

    def recorded(self) -> Mapping[str, Array]:
        """The skill, where the agent asks for it."""
        if not self._records:
            return {}
        assert self.skill is not None, "begin_episode comes before all else"
        return {"skill": self.skill[0].cpu().numpy()}

    def state_dict(self) -> dict[str, Any]:
        """The filter's and the random skill."""
        return super().state_dict() | {"skill": self._random_skill.skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._random_skill.skill = None if state["skill"] is None else state["skill"].to(self._action.device)
