"""Skill discovery in imagination: Choreographer's pretraining, and that of its ablations.

Source: Mazzaglia et al. 2023, "Choreographer: Learning and Adapting Skills in Imagination" (ICLR), alg. 1, sec. 3.2-3.3
and app. A-B. Defaults are the settings that produced the published numbers; where paper and released code differ, the
configuration or a comment names the other choice.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self, SupportsFloat

import torch
from pydantic import Field
from torch import Tensor

from urlbench.agents.choreographer.skill_measures import EVERY, skill_measures
from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder, SkillConfig
from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Trajectory
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import knn_entropy
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import SkillSpace, draw_onehot
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig, start_states, to_tensors
from urlbench.agents.common.world_model_learner import WorldModelLearner
from urlbench.core.interfaces import Actor, AgentConfig, AgentContext, Array, Schedule
from urlbench.core.precision import many_rows
from urlbench.core.seeding import derive_seed
from urlbench.core.types import AddedLater


class SkillDiscoveryConfig(AgentConfig):
    """What Choreographer shares with its ablations. Defaults: the released code.

    Attributes:
        schedule: one update every 10 frames, on 50 sequences of 50 steps. From pixels the replay holds at most
            1M steps, as published.
        exploration_momentum: of the exploration reward's normaliser.
        lbs_lr: of the surprise predictor.
        code_reward_squared: the paper's main text squares the distance of the code reward; its appendix and the
            released code do not.
        skill_decay_bug: every world-model update also takes its weight decay of the skill auto-encoder, which
            the released code registers inside the world model; False leaves the auto-encoder alone.
        reward_threshold: the behaviour learns nothing before a replay batch holds a reward above it. The paper
            holds predictions at zero until the environment gives a reward of at least 1e-4; with them, too, the
            behaviour would have nothing to learn from.
        skill_discount: of the skill policies' pretraining, in place of the shared one; published: None. Their reward
            has a large constant part, which a value sums up to constant / (1 - discount): until the critic has learned
            that, its gradient is alike for all skills and drives their actions to the limits.
        skill_policies_start: updates before the first of the skill policies, which begin to learn when codes have begun
            to stand for something; published: 0.
        random_skill_steps: agent steps that a random skill is followed for during fine-tuning. The paper says a
            whole episode, which 125 is for Jaco from pixels alone.
    """

    schedule: Schedule = Schedule()
    world_model: WorldModelConfig = WorldModelConfig()
    skills: SkillConfig = SkillConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    exploration_momentum: float = 0.95
    lbs_lr: float = 3e-4
    code_reward_squared: bool = False
    skill_decay_bug: bool = True
    reward_threshold: float = 1e-4
    skill_discount: Annotated[float | None, AddedLater] = None
    skill_policies_start: Annotated[int, AddedLater] = Field(default=0, ge=0)
    random_skill_steps: int = 125

    def of_skill_policies(self) -> ActorCriticConfig:
        """The settings of actor and critic as the skill policies' pretraining has them."""
        if self.skill_discount is None:
            return self.actor_critic
        return self.actor_critic.model_copy(update={"discount": self.skill_discount})

    def of_finetuning(self) -> Self:
        """The settings, those of actor and critic as fine-tuning has them."""
        return self.model_copy(update={"actor_critic": self.actor_critic.of_finetuning()})


class EntropySkillsConfig(SkillDiscoveryConfig):
    """What the entropy reward adds.

    Attributes:
        entropy_neighbours: of the skills' entropy reward, the state itself included (k).
        entropy_clip: subtracted from each neighbour's distance.
    """

    entropy_neighbours: int = 30
    entropy_clip: float = 1e-4


def skill_reward(
    skills: SkillAutoEncoder, skill: Tensor, deter: Tensor, *, neighbours: int, clip: float, squared: bool
) -> tuple[Tensor, Tensor]:
    """r_code and r_ent of imagined states.

    Source: Choreographer, sec. 3.3, in the form of app. B.1. The neighbours of a state are searched among all
    imagined states of the batch, all skills mixed; r_ent has no gradient, so it reaches the actor through the
    critic alone.

    Args:
        skills: decoder and codes.
        skill: skill indices [N].
        deter: [H + 1, N, D].
        neighbours: k.
        clip: of the entropy's distances.
        squared: of the code reward.

    Returns:
        Both [H + 1, N].
    """
    entropy = knn_entropy(deter.flatten(0, 1), neighbours, clip=clip).unflatten(0, deter.shape[:2])
    return skills.code_reward(skill, deter, squared=squared), entropy


class SkillObjective:
    """What skills are discovered among, and what their policies are rewarded for: here, deterministic states.

    Args:
        context: where the agent lives.
        config: its settings.
    """

    def __init__(self, context: AgentContext, config: SkillDiscoveryConfig) -> None:
        self.context, self.config = context, config

    def autoencoder(self) -> SkillAutoEncoder:
        """The skills."""
        return SkillAutoEncoder(self.config.world_model.deter, self.config.skills)

    def examples(self, batch: Mapping[str, Tensor], post: LatentState, world_model: WorldModel) -> Tensor:
        """What skills are to stand for, detached, [N, D].

        Args:
            batch: as the replay gives it.
            post: its model states [B, T, ...], detached.
            world_model: that made them.
        """
        return unmasked(post.deter, batch.get("mask"))

    def reached(self, trajectory: Trajectory, world_model: WorldModel) -> Tensor:
        """What of imagined states is compared with what skills stand for, [H + 1, N, D]."""
        return trajectory.deter

    def code_reward(
        self, skills: SkillAutoEncoder, skill: Tensor, trajectory: Trajectory, world_model: WorldModel
    ) -> Tensor:
        """How close imagined states are to what their skills stand for, [H + 1, N]; arguments as in `rewards`."""
        reached = self.reached(trajectory, world_model)
        return skills.code_reward(skill, reached, squared=self.config.code_reward_squared)

    def rewards(
        self, skills: SkillAutoEncoder, skill: Tensor, trajectory: Trajectory, world_model: WorldModel
    ) -> dict[str, Tensor]:
        """The rewards [H + 1, N] of imagined states, by name; their sum counts.

        Args:
            skills: decoder and codes.
            skill: skill indices [N].
            trajectory: H steps from N start states.
            world_model: that imagined them.
        """
        return {"code_reward": self.code_reward(skills, skill, trajectory, world_model)}


class EntropyObjective(SkillObjective):
    """With the entropy of imagined states, so that each skill visits many."""

    config: EntropySkillsConfig

    def __init__(self, context: AgentContext, config: EntropySkillsConfig) -> None:
        super().__init__(context, config)

    def rewards(
        self, skills: SkillAutoEncoder, skill: Tensor, trajectory: Trajectory, world_model: WorldModel
    ) -> dict[str, Tensor]:
        """`skill_reward`."""
        code, entropy = skill_reward(
            skills,
            skill,
            trajectory.deter,
            neighbours=self.config.entropy_neighbours,
            clip=self.config.entropy_clip,
            squared=self.config.code_reward_squared,
        )
        return {"code_reward": code, "entropy_reward": entropy}


class SkillDiscovery(WorldModelLearner):
    """The pretraining agent (alg. 1): needs no rewards, from its own exploration or from a fixed data set.

    Args:
        context: where it lives; with `collects` False (offline data) it has no exploration policy.
        config: settings.
        objective: of the skills.
    """

    def __init__(self, context: AgentContext, config: SkillDiscoveryConfig, objective: SkillObjective) -> None:
        skills = initialised(objective.autoencoder, derive_seed(context.seed, "init", "skills")).to(context.device)
        super().__init__(context, config, also_decay=skills.networks() if config.skill_decay_bug else ())
        self.config, self.skills, self._objective = config, skills, objective
        self.space = SkillSpace(config.skills.codes, draw_onehot, None)
        feat_dim, action_dim, sizes = self.world_model.rssm.feat_dim, context.action_dim, config.actor_critic
        self.skill_policy = self.component(
            "skill_policy", lambda: ActorCritic(feat_dim + config.skills.codes, action_dim, config.of_skill_policies())
        )
        self._skills_optimiser = Optimiser(skills.networks(), config.skills.lr, config.optimiser)
        self._skill_optimisers = self.skill_policy.make_optimisers(config.optimiser)
        self.components |= {"skills": skills, "skills_optimiser": self._skills_optimiser}
        self.components |= {f"skill_{name}_optimiser": each for name, each in self._skill_optimisers.items()}
        if context.collects:
            self.lbs = self.component("lbs", lambda: LatentBayesianSurprise(feat_dim, sizes.units))
            self.explorer = self.component(
                "explorer",
                lambda: ActorCritic(feat_dim, action_dim, sizes, reward_momentum=config.exploration_momentum),
            )
            self._lbs_optimiser = Optimiser(self.lbs.parameters(), config.lbs_lr, config.optimiser)
            self._explorer_optimisers = self.explorer.make_optimisers(config.optimiser)
            self.components["lbs_optimiser"] = self._lbs_optimiser
            self.components |= {f"explorer_{name}_optimiser": each for name, each in self._explorer_optimisers.items()}

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model, exploration, skill discovery, skill policies: alg. 1, in the released code's order."""
        tensors = to_tensors(batch, self.context.device)
        model, metrics = self.learn_world_model(tensors)
        start, mask = start_states(model.post, tensors), tensors.get("mask")

        # Exploration: seek states whose observation will surprise the model.
        if self.context.collects:
            lbs_loss = self.lbs.loss(unmasked(model.post.feat, mask), unmasked(model.kl, mask))
            self._lbs_optimiser.step(lbs_loss)
            imagined = self.explorer.imagine(self.world_model, start, self._draws)
            surprise = self.lbs.reward(imagined.trajectory.feat)
            explored = self.explorer.learn(imagined, surprise, self._explorer_optimisers)
            metrics |= {"lbs_loss": lbs_loss.detach()} | {f"exploration_{k}": v for k, v in explored.items()}

        # Skill discovery: which states are worth a skill.
        examples = self._objective.examples(tensors, model.post, self.world_model)
        metrics |= self.skills.learn(examples, self._skills_optimiser, self._draws)

        if int(self.skills.updates) > self.config.skill_policies_start:
            metrics |= self._learn_skill_policies(start)
        return metrics

    def _learn_skill_policies(self, start: LatentState) -> dict[str, Any]:
        """How to get to what skills stand for, and to visit much on the way."""
        skill = self.space.draw(self._draws, start.deter.new_zeros(len(start.deter), self.space.dim))
        imagined = self.skill_policy.imagine(self.world_model, start, self._draws, skill)
        rewards = self._objective.rewards(self.skills, skill.argmax(-1), imagined.trajectory, self.world_model)
        learned = self.skill_policy.learn(imagined, torch.stack([*rewards.values()]).sum(0), self._skill_optimisers)
        metrics = {name: value.detach().mean() for name, value in rewards.items()}
        metrics |= {f"skill_{k}": v for k, v in learned.items()}
        if (updates := int(self.skills.updates)) % EVERY == 0:
            draws = Draws(derive_seed(self.context.seed, "measures", updates), self.context.device)
            metrics |= {f"measured_{name}": value for name, value in self._measure_skills(start, draws).items()}
        return metrics

    def _measure_skills(self, start: LatentState, draws: Draws) -> dict[str, Tensor]:
        return skill_measures(
            self.world_model,
            start,
            self.skill_policy,
            self.config.skills.codes,
            lambda skill, trajectory: self._objective.code_reward(self.skills, skill, trajectory, self.world_model),
            draws,
        )

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The exploration policy's actor: skill policies never act during pretraining."""
        if not self.context.collects:
            raise ValueError("this Choreographer learns from a fixed data set and has no exploration policy")
        return PolicyActor(self, self.explorer.actor, self.actor_draws(seed), sample=not evaluation)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Random skills, executed by the skill policy: what pretraining has learned to reach (sec. 4.2)."""
        return PolicyActor(
            self,
            self.skill_policy.actor,
            self.actor_draws(seed),
            sample=sample,
            skills=self.space,
            skill_steps=skill_steps,
            redraws="after_step",
        )
