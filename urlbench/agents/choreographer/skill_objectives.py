"""What skills are discovered among, and what their policies are rewarded for.

Source: Mazzaglia et al. 2023 (Choreographer), sec. 3.2-3.3 and app. B.1.
"""

from collections.abc import Mapping

from torch import Tensor

from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder, SkillConfig
from urlbench.agents.common.actor_critic import ActorCriticConfig, Trajectory
from urlbench.agents.common.knn_entropy import knn_entropy
from urlbench.agents.common.optimiser import OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig
from urlbench.core.interfaces import AgentConfig, AgentContext, Schedule


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
    random_skill_steps: int = 125


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

    def examples(self, batch: Mapping[str, Tensor], post: LatentState) -> Tensor:
        """What skills are to stand for, detached, [B * T, D].

        Args:
            batch: as the replay gives it.
            post: its model states [B, T, ...], detached.
        """
        return post.deter.flatten(0, 1)

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
        return {"code_reward": skills.code_reward(skill, trajectory.deter, squared=self.config.code_reward_squared)}


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
