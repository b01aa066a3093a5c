"""Choreographer: discovers skills in a world model's states, learns them in imagination, and directs them.

Source: Mazzaglia, Verbelen, Dhoedt, Lacoste & Rajeswar 2023, "Choreographer: Learning and Adapting Skills in
Imagination" (ICLR), alg. 1-2 and app. A-B. Defaults are the settings that produced the published numbers; where
paper and released code differ, the configuration or a comment names the other choice.
"""

from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.choreographer.meta_controller import MetaController
from urlbench.agents.choreographer.skill_actor import SkillActor
from urlbench.agents.choreographer.skill_objectives import (
    EntropyObjective,
    EntropySkillsConfig,
    SkillDiscoveryConfig,
    SkillObjective,
)
from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder
from urlbench.agents.common import acting
from urlbench.agents.common.actor_critic import ActorCritic, Trajectory
from urlbench.agents.common.distributions import onehot_mode
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.learner import LatentActor, Learner, schedule_for
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.world_model import WorldModel, to_tensors
from urlbench.core.interfaces import Actor, AgentContext, AgentSpec, Array
from urlbench.core.precision import many_rows
from urlbench.core.seeding import derive_seed


class ChoreographerConfig(EntropySkillsConfig):
    """What the meta-controller adds.

    Attributes:
        meta_entropy: of the meta-controller's choice of skill.
    """

    meta_entropy: float = 1e-4


class SkillDiscovery(Learner):
    """The pretraining agent (alg. 1): needs no rewards, from its own exploration or from a fixed data set.

    Args:
        context: where it lives; with `collects` False (offline data) it has no exploration policy.
        config: settings.
        objective: of the skills.
    """

    def __init__(self, context: AgentContext, config: SkillDiscoveryConfig, objective: SkillObjective) -> None:
        self.context, self.config, self._objective = context, config, objective
        self.schedule = schedule_for(config.schedule, context)
        self._draws = Draws(derive_seed(context.seed, "updates"), context.device)
        action_dim, units = context.action_dim, config.actor_critic.units

        def init(name: str, build: Any) -> Any:
            return initialised(build, derive_seed(context.seed, "init", name)).to(context.device)

        self.world_model: WorldModel = init("world_model", lambda: WorldModel(context, config.world_model))
        feat_dim = self.world_model.rssm.feat_dim
        self.skills: SkillAutoEncoder = init("skills", objective.autoencoder)
        self.skill_policy: ActorCritic = init(
            "skill_policy", lambda: ActorCritic(feat_dim + config.skills.codes, action_dim, config.actor_critic)
        )
        self._skill_optimisers = self.skill_policy.make_optimisers(config.optimiser)
        decayed = self.skills.networks() if config.skill_decay_bug else []
        self._model_optimiser = Optimiser(
            self.world_model.parameters(), config.world_model.lr, config.optimiser, also_decay=decayed
        )
        self._skills_optimiser = Optimiser(self.skills.networks(), config.skills.lr, config.optimiser)
        self.components = {
            "draws": self._draws,
            "world_model": self.world_model,
            "skills": self.skills,
            "skill_policy": self.skill_policy,
            "world_model_optimiser": self._model_optimiser,
            "skills_optimiser": self._skills_optimiser,
            "skill_actor_optimiser": self._skill_optimisers["actor"],
            "skill_critic_optimiser": self._skill_optimisers["critic"],
        }
        if context.collects:
            self.lbs: LatentBayesianSurprise = init("lbs", lambda: LatentBayesianSurprise(feat_dim, units))
            self.explorer: ActorCritic = init(
                "explorer",
                lambda: ActorCritic(
                    feat_dim, action_dim, config.actor_critic, reward_momentum=config.exploration_momentum
                ),
            )
            self._lbs_optimiser = Optimiser(self.lbs.parameters(), config.lbs_lr, config.optimiser)
            self._explorer_optimisers = self.explorer.make_optimisers(config.optimiser)
            self.components |= {
                "lbs": self.lbs,
                "explorer": self.explorer,
                "lbs_optimiser": self._lbs_optimiser,
                "explorer_actor_optimiser": self._explorer_optimisers["actor"],
                "explorer_critic_optimiser": self._explorer_optimisers["critic"],
            }

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The exploration policy's actor: skill policies never act during pretraining."""
        if not self.context.collects:
            raise ValueError("this Choreographer learns from a fixed data set and has no exploration policy")
        draws = Draws(derive_seed(seed, "actor"), self.context.device)
        return ExplorationActor(self, draws, evaluation=evaluation)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Random skills, executed by the skill policy: what pretraining has learned to reach (sec. 4.2)."""
        draws = Draws(derive_seed(seed, "actor"), self.context.device)
        return RandomSkillActor(self, draws, skill_steps=skill_steps, sample=sample)

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model, exploration, skill discovery, skill policies: alg. 1, in the released code's order."""
        # World model.
        tensors = to_tensors(batch, self.context.device)
        model = self.world_model.loss(tensors, self._draws)
        metrics: dict[str, Any] = dict(model.metrics)
        metrics["world_model_grad_norm"] = self._model_optimiser.step(model.loss)
        start = model.post.flatten_batch()

        # Exploration: seek states whose observation will surprise the model.
        if self.context.collects:
            lbs_loss = self.lbs.loss(model.post.feat, model.kl)
            self._lbs_optimiser.step(lbs_loss)
            explored = self.explorer.learn(
                self.world_model.rssm,
                start,
                lambda trajectory: self.lbs.reward(trajectory.feat),
                self._draws,
                self._explorer_optimisers,
            )
            metrics |= {"lbs_loss": lbs_loss.detach()} | {f"exploration_{k}": v for k, v in explored.items()}

        # Skill discovery: which states are worth a skill.
        examples = self._objective.examples(tensors, model.post)
        metrics |= self.skills.learn(examples, self._skills_optimiser, self._draws)

        # Skill policies: how to get there, and to visit much on the way.
        codes = self.config.skills.codes
        uniform = start.deter.new_full((1, codes), 1 / codes)
        skill = self._draws.skill(uniform.expand(len(start.deter), -1))

        def reward(trajectory: Trajectory) -> Tensor:
            rewards = self._objective.rewards(self.skills, skill, trajectory, self.world_model)
            metrics.update({name: value.detach().mean() for name, value in rewards.items()})
            return torch.stack([*rewards.values()]).sum(0)

        learned = self.skill_policy.learn(
            self.world_model.rssm,
            start,
            reward,
            self._draws,
            self._skill_optimisers,
            skill=F.one_hot(skill, codes).to(start.deter.dtype),
        )
        return metrics | {f"skill_{k}": v for k, v in learned.items()}


class Choreographer(SkillDiscovery):
    """The pretraining agent, with the entropy reward; its fine-tuning has a meta-controller.

    Args:
        context: where it lives.
        config: settings.
        frozen_skills: fine-tuning leaves the skill policies as they are, which is the paper's zero-shot ablation.
    """

    config: ChoreographerConfig

    def __init__(self, context: AgentContext, config: ChoreographerConfig, *, frozen_skills: bool = False) -> None:
        super().__init__(context, config, EntropyObjective(context, config))
        self._frozen_skills = frozen_skills

    def for_finetuning(self, context: AgentContext) -> "ChoreographerFinetuning":
        """The agent of alg. 2, with this one's encoder, dynamics, decoder and skill policies.

        Everything else starts afresh, as released: reward head, meta-controller, critics and optimisers. The
        skill auto-encoder is neither trained nor used in fine-tuning and stays behind.
        """
        agent = ChoreographerFinetuning(context, self.config, frozen_skills=self._frozen_skills)
        for part in ("encoder", "rssm", "decoder"):
            getattr(agent.world_model, part).load_state_dict(getattr(self.world_model, part).state_dict())
        agent.controller.executor.load_state_dict(self.skill_policy.actor.state_dict())
        return agent


class ExplorationActor(LatentActor):
    """Follows the exploration policy."""

    def __init__(self, agent: SkillDiscovery, draws: Draws, *, evaluation: bool) -> None:
        super().__init__(agent.world_model, agent.context, draws)
        self._actor, self._evaluation = acting.normal_policy(agent.explorer.actor), evaluation

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """Sampled; the mean in evaluation."""
        action = self._actor(feat)
        return action.mean if self._evaluation else action.sample(self._draws.action_noise(action.mean))


class RandomSkillActor(SkillActor):
    """Follows random skills, executed by the skill policy."""

    def __init__(self, agent: SkillDiscovery, draws: Draws, *, skill_steps: int, sample: bool) -> None:
        codes = agent.config.skills.codes
        super().__init__(agent.world_model, agent.context, draws, codes=codes, skill_steps=skill_steps)
        self._executor, self._sample = acting.normal_policy(agent.skill_policy.actor), sample

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """The mean, or sampled."""
        action = self._executor(torch.cat([feat, self.random_skill()], -1))
        return action.sample(self._draws.action_noise(action.mean)) if self._sample else action.mean


def acting_policy(
    step: int, action_repeat: int, seed_frames: int, *, smoothing: bool
) -> Literal["random_skill", "meta_controller"]:
    """Who picks the skill during fine-tuning.

    Args:
        step: agent steps of the fine-tuning so far.
        action_repeat: frames a step.
        seed_frames: frames before the first update.
        smoothing: no rewarded replay batch was seen yet.
    """
    return "random_skill" if step < seed_frames // action_repeat or smoothing else "meta_controller"


class ChoreographerFinetuning(Learner):
    """The fine-tuning agent (alg. 2): a meta-controller over the pretrained skill policies.

    Args:
        context: where it lives.
        config: settings.
        frozen_skills: the skill policies do not learn.

    Attributes:
        smoothing: True until a replay batch holds a reward above the threshold; until then only the world
            model learns, and random skills act.
        steps: agent steps so far, as the training actor was last told.
    """

    def __init__(self, context: AgentContext, config: ChoreographerConfig, *, frozen_skills: bool = False) -> None:
        self.context, self.config = context, config
        self.schedule = schedule_for(config.schedule, context)
        self.smoothing, self.steps = True, 0
        self._draws = Draws(derive_seed(context.seed, "updates"), context.device)
        self.world_model = initialised(
            lambda: WorldModel(context, config.world_model), derive_seed(context.seed, "init", "world_model")
        ).to(context.device)
        self.controller = initialised(
            lambda: MetaController(
                self.world_model.rssm.feat_dim,
                config.skills.codes,
                context.action_dim,
                config.actor_critic,
                config.meta_entropy,
            ),
            derive_seed(context.seed, "init", "controller"),
        ).to(context.device)
        self._model_optimiser = Optimiser(self.world_model.parameters(), config.world_model.lr, config.optimiser)
        self._optimisers = self.controller.make_optimisers(config.optimiser, frozen_executor=frozen_skills)
        self.components = {
            "draws": self._draws,
            "world_model": self.world_model,
            "controller": self.controller,
            "world_model_optimiser": self._model_optimiser,
            **{f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()},
        }

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """Random skills at first, then the meta-controller's."""
        draws = Draws(derive_seed(seed, "actor"), self.context.device)
        return SkilledActor(self, draws, evaluation=evaluation)

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model with reward head; the behaviour as soon as there is a reward to learn from."""
        model = self.world_model.loss(to_tensors(batch, self.context.device), self._draws)
        metrics: dict[str, Any] = dict(model.metrics)
        metrics["world_model_grad_norm"] = self._model_optimiser.step(model.loss)
        if bool((batch["reward"] > self.config.reward_threshold).any()):
            self.smoothing = False
        if not self.smoothing:
            start = model.post.flatten_batch()
            metrics |= self.controller.learn(self.world_model, start, self._draws, self._optimisers)
        return metrics

    def for_finetuning(self, context: AgentContext) -> "ChoreographerFinetuning":
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("a ChoreographerFinetuning is fine-tuned already; call for_finetuning on a Choreographer")

    def state_dict(self) -> dict[str, Any]:
        """The components', the smoothing flag and the step counter."""
        return super().state_dict() | {"smoothing": self.smoothing, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.smoothing, self.steps = state["smoothing"], state["steps"]


class SkilledActor(SkillActor):
    """Follows a random skill, or the meta-controller's, executed by the skill policy."""

    def __init__(self, agent: ChoreographerFinetuning, draws: Draws, *, evaluation: bool) -> None:
        codes, skill_steps = agent.config.skills.codes, agent.config.random_skill_steps
        super().__init__(agent.world_model, agent.context, draws, codes=codes, skill_steps=skill_steps)
        self._agent, self._evaluation = agent, evaluation
        self._chooser = acting.mlp(agent.controller.actor)
        self._executor = acting.normal_policy(agent.controller.executor)

    def policy(self, feat: Tensor, step: int) -> Tensor:
        """Sampled skill and action in training; their mode and mean in evaluation."""
        agent = self._agent
        if not self._evaluation:
            agent.steps = step  # an evaluation's own counter says nothing about the training's progress
        who = acting_policy(
            agent.steps, agent.context.action_repeat, agent.schedule.seed_frames, smoothing=agent.smoothing
        )
        if who == "random_skill":
            skill = self.random_skill()
        else:
            logits = self._chooser(feat)
            drawn = F.one_hot(self._draws.skill(logits.softmax(-1)), agent.config.skills.codes).to(feat.dtype)
            skill = onehot_mode(logits) if self._evaluation else drawn
        action = self._executor(torch.cat([feat, skill], -1))
        return action.mean if self._evaluation else action.sample(self._draws.action_noise(action.mean))


_TINY = {
    "world_model": {"deter": 32, "hidden": 32, "variables": 4, "classes": 4, "mlp_units": (32, 32), "conv_depth": 8}
}

# What the pretraining of skills never reads.
FINETUNING_SETTINGS = ("reward_threshold", "random_skill_steps")

SPEC = AgentSpec(
    name="choreographer",
    description="world model, codebook of skills learned in imagination, meta-controller",
    paper="Mazzaglia et al. 2023, Choreographer: Learning and Adapting Skills in Imagination (ICLR)",
    observations=("states", "pixels"),
    pretrains=True,
    config=ChoreographerConfig,
    build=Choreographer,
    finetuning_settings=("meta_entropy", *FINETUNING_SETTINGS),
    presets={
        # Runs everything in seconds; learns nothing.
        "smoke": _TINY
        | {
            "schedule": {"update_every_frames": 50, "seed_frames": 1000, "batch_size": 8, "batch_length": 16},
            "skills": {"codes": 16, "units": (32, 32), "resample_every": 10},
            "actor_critic": {"units": (32, 32), "horizon": 8},
        },
        # Learns on one CPU core. Found by trying, on walker from states: the published rates are made for 100 times
        # as many updates; without symlog a model this small does not see the torso's height beside velocities of
        # +-20; sequences of 16 steps give a model whose predictions are useless after ten. A shorter horizon, a
        # smaller discount and a fresher slow critic let values settle within some hundred updates.
        "small": {
            "schedule": {"seed_frames": 2000, "batch_size": 8, "batch_length": 32},
            "world_model": {
                "deter": 128,
                "hidden": 128,
                "variables": 8,
                "classes": 16,
                "mlp_units": (128, 128),
                "conv_depth": 16,
                "symlog_states": True,
                "lr": 3e-3,
            },
            "skills": {"codes": 32, "units": (128, 128), "lr": 3e-4, "resample_every": 100},
            "actor_critic": {
                "units": (128, 128),
                "horizon": 10,
                "discount": 0.97,
                "actor_lr": 1e-3,
                "critic_lr": 1e-3,
                "slow_every": 50,
            },
            "lbs_lr": 1e-3,
        },
    },
)
