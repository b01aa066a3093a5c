"""The fine-tuning of a Dreamer agent: the same backbone, rewarded by a task.

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", sec. 3, and its
released code.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, SupportsFloat

from torch import Tensor, nn

from urlbench.agents.common.actor_critic import ActorCritic, Critic
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skill_space import SkillSpace
from urlbench.agents.common.world_model import to_tensors
from urlbench.agents.dreamer.backbone import BackboneConfig, BehaviourLearner, DreamerActor, DreamerConfig
from urlbench.agents.dreamer.planner import Planner, PlannerConfig
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array
from urlbench.core.precision import many_rows


class Finetuning(BehaviourLearner):
    """Learns from a task's reward, as the reward head of the world model sees it.

    Args:
        context: where it lives.
        config: settings, those of the world model as fine-tuning has them.
        entropy: weight of the policy's entropy.
        entropy_in_critic: see `with_entropy`.
        skills: which there are; None if there are none.
        critic: see `BehaviourLearner`.
        planner: how actions are planned; None if they are the policy's.

    Attributes:
        steps: agent steps so far, as the training actor was last told.
    """

    def __init__(
        self,
        context: AgentContext,
        config: BackboneConfig,
        *,
        entropy: float,
        entropy_in_critic: bool,
        skills: SkillSpace | None = None,
        critic: Callable[[int], Critic] | None = None,
        planner: PlannerConfig | None = None,
    ) -> None:
        super().__init__(
            context, config, skills=skills, critic=critic, entropy=entropy, entropy_in_critic=entropy_in_critic
        )
        self.steps = 0
        self.planner = None if planner is None else Planner(self.world_model, self.behaviour, planner)

    @property
    def plans(self) -> bool:
        """Whether actions are planned at this point of the training."""
        if self.planner is None or (self.skills is not None and self.chosen_skill is None):
            return False
        frames = self.schedule.seed_frames + self.planner.config.start_frames
        return self.steps * self.context.action_repeat >= frames

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The pretrained policy from the first step on; its mean in evaluation."""
        return FinetuningActor(self, self.actor_draws(seed), evaluation=evaluation)

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model with reward head; then the policy, on the reward head's judgement."""
        model, metrics = self.learn_world_model(to_tensors(batch, self.context.device))
        return metrics | self.learn_behaviour(model.post.flatten_batch())

    def learn_behaviour(self, start: LatentState) -> dict[str, Any]:
        """One update of policy and critic from N start states; metrics."""
        skill = None if self.chosen_skill is None else self.chosen_skill.expand(len(start.deter), -1)
        learned = self.behaviour.learn(
            self.world_model.rssm,
            start,
            lambda trajectory: self.world_model.reward(trajectory.feat),
            self._draws,
            self._optimisers,
            skill=skill,
        )
        return {f"behaviour_{name}": value for name, value in learned.items()}

    def for_finetuning(self, context: AgentContext) -> Agent:
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("this agent is fine-tuned already; call for_finetuning on a pretrained one")

    def state_dict(self) -> dict[str, Any]:
        """The components' and the step counter."""
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.steps = state["steps"]


class PlainFinetuning(Finetuning):
    """Without skills.

    Args:
        context: where it lives.
        config: settings.
    """

    def __init__(self, context: AgentContext, config: DreamerConfig) -> None:
        self.config = config
        super().__init__(
            context,
            config.of_finetuning(),
            entropy=config.finetune_entropy,
            entropy_in_critic=config.entropy_in_critic,
            planner=config.planner if config.planning else None,
        )


class SkillChoice(nn.Module):
    """Looks at replay batches of a fine-tuning until it knows which skill suits the task."""

    @abstractmethod
    def observe(self, batch: Mapping[str, Tensor], post: LatentState, behaviour: ActorCritic) -> Tensor | None:
        """The skill [K]; None for as long as it is not known.

        Args:
            batch: as the replay gives it.
            post: its model states [B, T, ...].
            behaviour: the policy that follows skills.
        """


class SkilledFinetuning(Finetuning):
    """Follows random skills, then settles for one of them; until then only the world model learns.

    Args:
        context: where it lives.
        config: settings, those of the world model as fine-tuning has them.
        skills: which there are.
        choice: of the one.
        choice_step: agent step from which on replay batches are looked at for it.
        entropy: weight of the policy's entropy.
        entropy_in_critic: see `with_entropy`.
        critic: see `BehaviourLearner`.
        planner: how actions are planned, once the skill is chosen; None if they are the policy's.
    """

    def __init__(
        self,
        context: AgentContext,
        config: BackboneConfig,
        *,
        skills: SkillSpace,
        choice: SkillChoice,
        choice_step: int,
        entropy: float,
        entropy_in_critic: bool,
        critic: Callable[[int], Critic] | None = None,
        planner: PlannerConfig | None = None,
    ) -> None:
        super().__init__(
            context,
            config,
            entropy=entropy,
            entropy_in_critic=entropy_in_critic,
            skills=skills,
            critic=critic,
            planner=planner,
        )
        self._choice, self._choice_step = choice.to(context.device), choice_step
        self.components["choice"] = self._choice

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The world model; the choice of a skill, when its time has come; and the policy of that skill."""
        tensors = to_tensors(batch, self.context.device)
        model, metrics = self.learn_world_model(tensors)
        if self.chosen_skill is None and self.steps >= self._choice_step:
            self.chosen_skill = self._choice.observe(tensors, model.post, self.behaviour)
        if self.chosen_skill is not None:
            metrics |= self.learn_behaviour(model.post.flatten_batch())
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """The components', the step counter and the choice."""
        return super().state_dict() | {"chosen_skill": self.chosen_skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        chosen = state["chosen_skill"]
        self.chosen_skill = None if chosen is None else chosen.to(self.context.device)


class FinetuningActor(DreamerActor):
    """Follows the policy, or plans; random skills change as published fine-tuning has it.

    Args:
        agent: whose current weights it acts with.
        draws: its own.
        evaluation: deterministic, and no part of the training.
    """

    def __init__(self, agent: Finetuning, draws: Draws, *, evaluation: bool) -> None:
        every = None if agent.skills is None else agent.skills.every
        super().__init__(agent, draws, sample=not evaluation, skill_steps=every)
        self._tuned, self._evaluation = agent, evaluation
        self._planned: Tensor | None = None

    def begin_episode(self) -> None:
        """Forget the plan, too."""
        super().begin_episode()
        self._planned = None

    def before_step(self, step: int) -> None:
        """Tell the agent how far its training is."""
        if not self._evaluation:
            self._tuned.steps = step

    def after_step(self, step: int) -> None:
        """Published fine-tuning re-draws after the step, with the increased counter."""
        self._random_skill.at_step(step)

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """The policy's or a planned action; in training with noise of the plan's own deviation."""
        planner, state = self._tuned.planner, self._state
        if planner is None or state is None or not self._tuned.plans:
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
