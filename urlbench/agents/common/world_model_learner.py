"""Agents that learn a world model, and those that also learn one policy in its imagination."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from torch import Tensor

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Critic
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.skills import SkillSpace
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig, WorldModelLoss
from urlbench.core.interfaces import Actor, AgentContext, Schedule

PIXEL_REPLAY_STEPS = 1_000_000


class WorldModelAgentConfig(Protocol):
    """What every agent with a world model is configured with."""

    @property
    def schedule(self) -> Schedule:
        """When it learns."""

    @property
    def world_model(self) -> WorldModelConfig:
        """Sizes and loss settings of the world model."""

    @property
    def actor_critic(self) -> ActorCriticConfig:
        """Sizes and settings of policies and critics."""

    @property
    def optimiser(self) -> OptimiserConfig:
        """Settings shared by all optimisers."""


def schedule_for(schedule: Schedule, context: AgentContext) -> Schedule:
    """`schedule`, but from pixels the replay holds at most 1M steps, as published."""
    if context.observation_kind == "states":
        return schedule
    capacity = min(schedule.replay_capacity_steps, PIXEL_REPLAY_STEPS)
    return schedule.model_copy(update={"replay_capacity_steps": capacity})


class WorldModelLearner(Learner):
    """An agent that learns a world model, whatever else it does.

    Args:
        context: where it lives.
        config: settings.
        also_decay: what takes the weight decay of the world model's updates, too.
    """

    def __init__(
        self, context: AgentContext, config: WorldModelAgentConfig, *, also_decay: Iterable[Tensor] = ()
    ) -> None:
        super().__init__(context)
        self.schedule = schedule_for(config.schedule, context)
        self.world_model = self.component("world_model", lambda: WorldModel(context, config.world_model))
        self._model_optimiser = Optimiser(
            self.world_model.parameters(), config.world_model.lr, config.optimiser, also_decay=also_decay
        )
        self.components["world_model_optimiser"] = self._model_optimiser

    def learn_world_model(self, batch: Mapping[str, Tensor]) -> tuple[WorldModelLoss, dict[str, Any]]:
        """One update; returns what the others learn from, as it was before the update, and metrics."""
        model = self.world_model.loss(batch, self._draws)
        norm = self._model_optimiser.step(model.loss)
        return model, model.metrics | {"world_model_grad_norm": norm}

    def inherit_world_model(self, source: WorldModel) -> None:
        """Take over all but the reward head, which starts afresh, as released."""
        parts = {name: part for name, part in source.named_children() if name != "reward_head"}
        for name, part in parts.items():
            getattr(self.world_model, name).load_state_dict(part.state_dict())


class BehaviourLearner(WorldModelLearner):
    """An agent that also learns a policy and its critic, perhaps with skills.

    Args:
        context: where it lives.
        config: settings.
        skills: which there are; None if there are none.
        critic: builds another critic than the usual one, from the size of what it sees.
        reward_momentum: of the reward normaliser; 1 switches it off.
        entropy: weight of the policy's entropy.
        entropy_in_critic: see `with_entropy`.
    """

    def __init__(
        self,
        context: AgentContext,
        config: WorldModelAgentConfig,
        *,
        skills: SkillSpace | None = None,
        critic: Callable[[int], Critic] | None = None,
        reward_momentum: float = 1.0,
        entropy: float = 0.0,
        entropy_in_critic: bool = False,
    ) -> None:
        super().__init__(context, config)
        self.skills = skills
        inputs = self.world_model.rssm.feat_dim + (0 if skills is None else skills.dim)

        def build() -> ActorCritic:
            return ActorCritic(
                inputs,
                context.action_dim,
                config.actor_critic,
                reward_momentum=reward_momentum,
                entropy_scale=entropy,
                entropy_in_critic=entropy_in_critic,
                critic=None if critic is None else critic(inputs),
            )

        self.behaviour = self.component("behaviour", build)
        self._optimisers = self.behaviour.make_optimisers(config.optimiser)
        self.components |= {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Skills change at episode starts and every `skill_steps`."""
        return PolicyActor(
            self,
            self.behaviour.actor,
            self.actor_draws(seed),
            sample=sample,
            skills=self.skills,
            skill_steps=skill_steps,
            redraws="before_step",
        )
