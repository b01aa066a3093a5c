"""The fine-tuning of a Dreamer agent, which may plan its actions (Dyna-MPC).

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", sec. 3-4, and
its released code.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from urlbench.agents.common.actor_critic import Critic
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.finetuning import Finetuning, FinetuningActor, SkillChoice
from urlbench.agents.common.skills import SkillSpace
from urlbench.agents.dreamer.config import DreamerConfig
from urlbench.agents.dreamer.planner import Planner
from urlbench.core.interfaces import Actor, AgentContext


class DreamerFinetuning(Finetuning):
    """Learns from a task's reward in imagination; acts by its policy, or plans with it.

    Args:
        context: where it lives.
        config: settings.
        skills: which there are; None if there are none.
        choice: of the one, if there are skills.
        critic: see `BehaviourLearner`.
    """

    def __init__(
        self,
        context: AgentContext,
        config: DreamerConfig,
        *,
        skills: SkillSpace | None = None,
        choice: SkillChoice | None = None,
        critic: Callable[[int], Critic] | None = None,
    ) -> None:
        super().__init__(
            context,
            config.of_finetuning(),
            entropy=config.finetune_entropy,
            entropy_in_critic=config.entropy_in_critic,
            skills=skills,
            choice=choice,
            critic=critic,
        )
        self.config = config
        self.planner = Planner(self.world_model, self.behaviour, config.planner) if config.planning else None

    @property
    def plans(self) -> bool:
        """Whether actions are planned at this point of the training: with skills not before one is chosen."""
        if self.planner is None or (self.skills is not None and self.chosen_skill is None):
            return False
        frames = self.schedule.seed_frames + self.planner.config.start_frames
        return self.steps * self.context.action_repeat >= frames

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The pretrained policy from the first step on; its mean in evaluation."""
        return PlanningActor(self, self.actor_draws(seed), evaluation=evaluation)


class PlanningActor(FinetuningActor):
    """Follows the policy, or plans.

    Args:
        agent: with whose current weights it acts.
        draws: its own.
        evaluation: deterministic, and no part of the training.
    """

    def __init__(self, agent: DreamerFinetuning, draws: Draws, *, evaluation: bool) -> None:
        super().__init__(agent, draws, evaluation=evaluation)
        self._planning = agent
        self._planned: Tensor | None = None

    def begin_episode(self) -> None:
        """Forget the plan, too."""
        super().begin_episode()
        self._planned = None

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """The policy's or a planned action; in training with noise of the plan's own deviation."""
        planner, state = self._planning.planner, self._state
        if planner is None or state is None or not self._planning.plans:
            return super().policy(feat, step)
        plan = planner.plan(state, self._planned, self.skill, self._draws)
        self._planned = plan.mean
        noise = 0.0 if self._evaluation else plan.std * self._draws.action_noise(plan.action)
        return (plan.action + noise).clamp(-1, 1)

    def state_dict(self) -> dict[str, Any]:
        """The filter's, the random skill and the plan."""
        return super().state_dict() | {"planned": self._planned}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._planned = None if state["planned"] is None else state["planned"].to(self._action.device)
