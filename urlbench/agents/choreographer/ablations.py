"""Choreographer with something taken away.

Source: Mazzaglia et al. 2023 (Choreographer), sec. 4.3 and app. D. None of these can be run from the released code but
the one without resampling, so the paper's words decide; what it leaves open is said where it is chosen.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from urlbench.agents.choreographer.choreographer import (
    FINETUNING_SETTINGS,
    SPEC as CHOREOGRAPHER,
    Choreographer,
    ChoreographerConfig,
)
from urlbench.agents.choreographer.discovery import (
    EntropyObjective,
    EntropySkillsConfig,
    SkillDiscovery,
    SkillDiscoveryConfig,
    SkillObjective,
)
from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder, SkillConfig
from urlbench.agents.common.actor_critic import ActorCritic, Trajectory
from urlbench.agents.common.finetuning import Finetuning, SkillChoice
from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.networks import ConvDecoder, ConvEncoder
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.interfaces import AgentContext, AgentSpec

# --- Without resampling -----------------------------------------------------------------------------


class UnresampledSkillConfig(SkillConfig):
    """Codes that no state was assigned to stay as they are.

    Attributes:
        resampling: False is the ablation.
    """

    resampling: bool = False


class NoResamplingConfig(ChoreographerConfig):
    """Choreographer's settings."""

    skills: UnresampledSkillConfig = UnresampledSkillConfig()


# --- Without learning skills any further ------------------------------------------------------------


def frozen_choreographer(context: AgentContext, config: ChoreographerConfig) -> Choreographer:
    """The zero-shot ablation: the meta-controller learns to direct skill policies that no longer learn."""
    return Choreographer(context, config, frozen_skills=True)


# --- Without the meta-controller --------------------------------------------------------------------


class ChoiceConfig(SkillDiscoveryConfig):
    """What the choice of one skill adds.

    Attributes:
        choice_updates: replay batches of the fine-tuning from which skills are judged. The paper says: by the expected
            reward over the first 4k frames. One batch holds half of these; ten hold nearly all.
    """

    choice_updates: int = Field(default=10, gt=0)


class SingleSkillConfig(ChoiceConfig, EntropySkillsConfig):
    """Choreographer's settings but for the meta-controller's."""


class HighestReward(SkillChoice):
    """The skill that was rewarded most, by the mean over the steps that it was followed.

    As for the meta-controller, nothing is decided before a batch holds a reward above the threshold. A skill that was
    never followed cannot be chosen.

    Args:
        config: settings.

    Attributes:
        rewards: their sums by skill, [K].
        steps: that each skill was followed, [K].
        batches: looked at so far.
        rewarded: one of them held a reward above the threshold.
    """

    rewards: Tensor
    steps: Tensor
    batches: Tensor
    rewarded: Tensor

    def __init__(self, config: ChoiceConfig) -> None:
        super().__init__(step=0)
        self._threshold, self._batches = config.reward_threshold, config.choice_updates
        self.register_buffer("rewards", torch.zeros(config.skills.codes))
        self.register_buffer("steps", torch.zeros(config.skills.codes))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("rewarded", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, batch: Mapping[str, Tensor], post: LatentState, behaviour: ActorCritic) -> Tensor | None:
        """A skill's rewards are those of the entries it has led to."""
        reward, skill = (unmasked(batch[key], batch.get("mask")) for key in ("reward", "skill"))
        self.rewards += (reward.unsqueeze(-1) * skill).sum(0)
        self.steps += skill.sum(0)
        self.batches += 1
        self.rewarded |= (reward > self._threshold).any()
        if int(self.batches) < self._batches or not bool(self.rewarded):
            return None
        mean = torch.where(self.steps > 0, self.rewards / self.steps, -torch.inf)
        return F.one_hot(mean.argmax(), len(mean)).to(self.rewards.dtype)


class SingleSkill(SkillDiscovery):
    """Pretrained with the entropy reward; fine-tunes the one skill that was rewarded most while all were tried.

    Its executor learns as Choreographer's does, without an entropy bonus; its critic sees the skill, too.

    Args:
        context: where it lives.
        config: settings.
        objective: of the skills; by default Choreographer's.
    """

    config: ChoiceConfig

    def for_finetuning(self, context: AgentContext) -> Finetuning:
        """An agent with this one's encoder, dynamics, decoder and skill policies; all else starts afresh."""
        agent = Finetuning(
            context,
            self.config.of_finetuning(),
            entropy=0.0,
            entropy_in_critic=False,
            skills=self.space._replace(every=self.config.random_skill_steps),
            choice=HighestReward(self.config),
        )
        agent.recorded = {"skill": (self.space.dim,)}
        agent.inherit_world_model(self.world_model)
        agent.behaviour.actor.load_state_dict(self.skill_policy.actor.state_dict())
        return agent


def single_skill(context: AgentContext, config: SingleSkillConfig) -> SingleSkill:
    """Choreographer without a meta-controller."""
    return SingleSkill(context, config, EntropyObjective(context, config))


# --- EDL: explore, discover and learn ---------------------------------------------------------------


class EDLConfig(ChoiceConfig):
    """Choreographer's settings but for the meta-controller's and the entropy reward's.

    The paper gives none for these two, so they are Choreographer's, its exploration and its codes (held as moving
    averages) included, and the reward is the distance, not its square as in Campos et al. 2020 (`code_reward_squared`).
    """

    skills: UnresampledSkillConfig = UnresampledSkillConfig()


class ObservationObjective(SkillObjective):
    """Skills stand for observations; an imagined state counts as what the world model decodes from it."""

    def autoencoder(self) -> SkillAutoEncoder:
        """Over state observations, or images with the world model's convolutions."""
        shape, skills = self.context.observation_shape, self.config.skills
        if self.context.observation_kind == "states":
            return SkillAutoEncoder(shape[0], skills)
        encoder = ConvEncoder(self.config.world_model.conv_depth)
        networks = (
            nn.Sequential(nn.Unflatten(1, shape), encoder, nn.Linear(encoder.embed_dim, skills.code_dim)),
            nn.Sequential(ConvDecoder(skills.code_dim, self.config.world_model.conv_depth), nn.Flatten(1)),
        )
        return SkillAutoEncoder(0, skills, networks=networks)

    def examples(self, batch: Mapping[str, Tensor], post: LatentState, world_model: WorldModel) -> Tensor:
        """Observations as the world model sees them."""
        return unmasked(world_model.seen(batch["observation"]), batch.get("mask")).flatten(1)

    def reached(self, trajectory: Trajectory, world_model: WorldModel) -> Tensor:
        """The decoded observations."""
        observed: Tensor = world_model.decoder(trajectory.feat).flatten(2)
        return observed


def edl_dreamer(context: AgentContext, config: EDLConfig) -> SingleSkill:
    """EDL with a world model: skills of observations."""
    return SingleSkill(context, config, ObservationObjective(context, config))


def latent_edl(context: AgentContext, config: EDLConfig) -> SingleSkill:
    """EDL with a world model: skills of its states."""
    return SingleSkill(context, config, SkillObjective(context, config))


_PAPER = "an ablation of Mazzaglia et al. 2023, Choreographer: Learning and Adapting Skills in Imagination (ICLR)"
_CHOICE_SETTINGS = ("choice_updates", *FINETUNING_SETTINGS)
_EDL = "Campos et al. 2020, Explore, Discover and Learn (ICML), as " + _PAPER

NO_RESAMPLING = AgentSpec(
    name="choreographer-no-resampling",
    description="Choreographer whose unused codes stay unused",
    paper=_PAPER,
    observations=CHOREOGRAPHER.observations,
    pretrains=True,
    config=NoResamplingConfig,
    build=Choreographer,
    presets=CHOREOGRAPHER.presets,
    finetuning_settings=CHOREOGRAPHER.finetuning_settings,
)
ZERO_SHOT = AgentSpec(
    name="choreographer-zero-shot",
    description="Choreographer whose skills stay as they were pretrained",
    paper=_PAPER,
    observations=CHOREOGRAPHER.observations,
    pretrains=True,
    config=ChoreographerConfig,
    build=frozen_choreographer,
    presets=CHOREOGRAPHER.presets,
    pretrained_as=CHOREOGRAPHER.name,
    finetuning_settings=CHOREOGRAPHER.finetuning_settings,
)
SINGLE_SKILL = AgentSpec(
    name="choreographer-single-skill",
    description="Choreographer that fine-tunes its best skill, without a meta-controller",
    paper=_PAPER,
    observations=CHOREOGRAPHER.observations,
    pretrains=True,
    config=SingleSkillConfig,
    build=single_skill,
    presets=CHOREOGRAPHER.presets,
    pretrained_as=CHOREOGRAPHER.name,
    finetuning_settings=_CHOICE_SETTINGS,
)
EDL_DREAMER = AgentSpec(
    name="edl-dreamer",
    description="skills discovered among observations, in imagination: EDL with a world model",
    paper=_EDL,
    observations=CHOREOGRAPHER.observations,
    pretrains=True,
    config=EDLConfig,
    build=edl_dreamer,
    presets=CHOREOGRAPHER.presets,
    finetuning_settings=_CHOICE_SETTINGS,
)
LATENT_EDL = AgentSpec(
    name="latent-edl",
    description="skills discovered among model states, without an entropy reward",
    paper=_EDL,
    observations=CHOREOGRAPHER.observations,
    pretrains=True,
    config=EDLConfig,
    build=latent_edl,
    presets=CHOREOGRAPHER.presets,
    finetuning_settings=_CHOICE_SETTINGS,
)
