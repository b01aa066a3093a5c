"""Dreamer: a world model, and a policy and its critic that learn in its imagination.

Source: Hafner et al. 2021 (DreamerV2), with the settings of the pixel baselines that Choreographer is compared with,
Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels". Its released code
computes in half precision where it can; here everything is float32, or what `AgentConfig.precision` says.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol, Self

from torch import Tensor

from urlbench.agents.common import acting
from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Critic
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.learner import LatentActor, Learner, schedule_for
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.skill_schedule import SkillSchedule
from urlbench.agents.common.skill_space import SkillSpace
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig, WorldModelLoss
from urlbench.agents.dreamer.planner import PlannerConfig
from urlbench.core.interfaces import Actor, AgentConfig, AgentContext, Array, Schedule
from urlbench.core.seeding import derive_seed


class DreamerWorldModelConfig(WorldModelConfig):
    """Defaults: the released code.

    Attributes:
        reward_shapes_model: of pretraining.
        reward_shapes_finetuned_model: the same for fine-tuning.
        image_mean: what the decoder does to its last layer: as released ELU, by oversight, or nothing.
    """

    reward_shapes_finetuned_model: bool = True
    image_mean: Literal["elu", "identity"] = "elu"

    @property
    def elu_images(self) -> bool:
        """See `ConvDecoder.elu_output`."""
        return self.image_mean == "elu"


class BackboneConfig(Protocol):
    """What every agent of this family is configured with."""

    @property
    def schedule(self) -> Schedule:
        """When it learns."""

    @property
    def world_model(self) -> WorldModelConfig:
        """Sizes and loss settings of the world model."""

    @property
    def actor_critic(self) -> ActorCriticConfig:
        """Sizes and settings of policy and critic."""

    @property
    def optimiser(self) -> OptimiserConfig:
        """Settings shared by all optimisers."""


class WorldModelLearner(Learner):
    """An agent that learns a world model, whatever else it does.

    Args:
        context: where it lives.
        config: settings.
    """

    def __init__(self, context: AgentContext, config: BackboneConfig) -> None:
        self.context, self.schedule = context, schedule_for(config.schedule, context)
        self._draws = Draws(derive_seed(context.seed, "updates"), context.device)
        self.world_model = initialised(
            lambda: WorldModel(context, config.world_model), derive_seed(context.seed, "init", "world_model")
        ).to(context.device)
        self._model_optimiser = Optimiser(self.world_model.parameters(), config.world_model.lr, config.optimiser)
        self.components = {
            "draws": self._draws,
            "world_model": self.world_model,
            "world_model_optimiser": self._model_optimiser,
        }

    def learn_world_model(self, batch: Mapping[str, Tensor]) -> tuple[WorldModelLoss, dict[str, Any]]:
        """One update; returns what the others learn from, as it was before the update, and metrics."""
        model = self.world_model.loss(batch, self._draws)
        norm = self._model_optimiser.step(model.loss)
        return model, model.metrics | {"world_model_grad_norm": norm}

    def inherit_world_model(self, source: WorldModel) -> None:
        """Take over encoder, dynamics and decoder; the reward head starts afresh, as released."""
        for part in ("encoder", "rssm", "decoder"):
            getattr(self.world_model, part).load_state_dict(getattr(source, part).state_dict())


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

    Attributes:
        chosen_skill: the skill [K] that the agent has settled for; None as long as it follows random ones.
    """

    def __init__(
        self,
        context: AgentContext,
        config: BackboneConfig,
        *,
        skills: SkillSpace | None = None,
        critic: Callable[[int], Critic] | None = None,
        reward_momentum: float = 1.0,
        entropy: float = 0.0,
        entropy_in_critic: bool = False,
    ) -> None:
        super().__init__(context, config)
        self.skills = skills
        self.chosen_skill: Tensor | None = None
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

        self.behaviour = initialised(build, derive_seed(context.seed, "init", "behaviour")).to(context.device)
        self._optimisers = self.behaviour.make_optimisers(config.optimiser)
        self.components |= {"behaviour": self.behaviour}
        self.components |= {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}

    def actor_draws(self, seed: int) -> Draws:
        """What an actor with that seed draws from."""
        return Draws(derive_seed(seed, "actor"), self.context.device)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Skills change at episode starts and every `skill_steps`."""
        return DreamerActor(self, self.actor_draws(seed), sample=sample, skill_steps=skill_steps)


class DreamerActor(LatentActor):
    """Follows the policy, with a skill if there are any.

    Args:
        agent: whose current weights it acts with.
        draws: its own.
        sample: draw actions from the policy; else their mean is taken.
        skill_steps: agent steps after which another skill is drawn, besides at each episode start; None for none.
    """

    def __init__(self, agent: BehaviourLearner, draws: Draws, *, sample: bool, skill_steps: int | None) -> None:
        super().__init__(agent.world_model, agent.context, draws)
        self._agent, self._sample = agent, sample
        self._actor = acting.normal_policy(agent.behaviour.actor)
        self._random_skill: SkillSchedule[Tensor | None] = SkillSchedule(self._draw, skill_steps)

    def _draw(self) -> Tensor | None:
        skills = self._agent.skills
        return None if skills is None else skills.draw(self._draws, self._action.new_zeros(1, skills.dim))

    @property
    def skill(self) -> Tensor | None:
        """The skill [1, K] that is followed now; None for agents without."""
        chosen = self._agent.chosen_skill
        return self._random_skill.skill if chosen is None else chosen.unsqueeze(0)

    def begin_episode(self) -> None:
        """Forget the model state; draw a skill."""
        super().begin_episode()
        self._random_skill.at_episode_start()

    def before_step(self, step: int) -> None:
        """Published pretraining looks before acting, also right after a reset and while actions are random."""
        self._random_skill.at_step(step)

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """Sampled, or its mean."""
        action = self._actor(self._agent.behaviour.sees(feat, self.skill))
        return action.sample(self._draws.action_noise(action.mean)) if self._sample else action.mean

    def recorded(self) -> Mapping[str, Array]:
        """The skill, where the agent asks for it."""
        if "skill" not in self._agent.recorded:
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


class DreamerConfig(AgentConfig):
    """Defaults: the released code.

    Attributes:
        schedule: one update every 10 frames, on 50 sequences of 50 steps. From pixels the replay holds at most
            1M steps, as published.
        finetune_entropy: weight of the policy's entropy in fine-tuning.
        critic_targets: as released, the bonus for the policy's entropy leaks into what the critic learns
            (`with_entropy`), or it does not (`lambda_return`).
        planning: in fine-tuning, plan each action in the world model (Dyna-MPC); published: False.
        planner: how.
    """

    schedule: Schedule = Schedule()
    world_model: DreamerWorldModelConfig = DreamerWorldModelConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    finetune_entropy: float = 1e-4
    critic_targets: Literal["with_entropy", "lambda_return"] = "with_entropy"
    planning: bool = False
    planner: PlannerConfig = PlannerConfig()

    @property
    def entropy_in_critic(self) -> bool:
        """See `with_entropy`."""
        return self.critic_targets == "with_entropy"

    def of_finetuning(self) -> Self:
        """The settings, those of the world model as fine-tuning has them."""
        model = self.world_model
        shapes = {"reward_shapes_model": model.reward_shapes_finetuned_model}
        return self.model_copy(update={"world_model": model.model_copy(update=shapes)})
