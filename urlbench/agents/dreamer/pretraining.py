"""The pretraining of a Dreamer agent: the backbone, rewarded by an intrinsic reward.

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", sec. 3, and its
released code.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, SupportsFloat

from torch import Tensor, nn

from urlbench.agents.common.actor_critic import Critic, Trajectory
from urlbench.agents.common.finetuning import SkillChoice
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skills import SkillSpace
from urlbench.agents.common.world_model import WorldModel, WorldModelLoss, start_states, to_tensors
from urlbench.agents.common.world_model_learner import BehaviourLearner
from urlbench.agents.dreamer.config import DreamerConfig, DreamerWorldModelConfig
from urlbench.agents.dreamer.finetuning import DreamerFinetuning
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Actor, AgentContext, Array
from urlbench.core.precision import many_rows


class PretrainedConfig(DreamerConfig):
    """What pretraining adds.

    Attributes:
        reward_momentum: of the intrinsic reward's normaliser; 1 switches it off.
        pretrain_entropy: weight of the policy's entropy in pretraining.
        transfer_actor: fine-tuning starts from the pretrained policy.
        transfer_critic: and from its critic, the slow copy included; published: False.
    """

    reward_momentum: float = 0.95
    pretrain_entropy: float = 0.0
    transfer_actor: bool = True
    transfer_critic: bool = False


class SkilledWorldModelConfig(DreamerWorldModelConfig):
    """Defaults: the released code.

    Attributes:
        reward_shapes_finetuned_model: agents with skills keep the pretraining's setting.
    """

    reward_shapes_finetuned_model: bool = False


class SkilledConfig(PretrainedConfig):
    """What skills add.

    Attributes:
        skill_steps: agent steps that a random skill is followed for.
    """

    world_model: SkilledWorldModelConfig = SkilledWorldModelConfig()
    skill_steps: int = 50


def choice_step(config: SkilledConfig, context: AgentContext) -> int:
    """The agent step of the fine-tuning at which a skill is chosen, as released.

    The first step after the seed frames that the period of skills divides, if that is counted in frames (where acting
    counts it in agent steps).
    """
    repeat = context.action_repeat
    seed, period = config.schedule.seed_frames // repeat, max(1, config.skill_steps // repeat)
    return (seed // period + 1) * period


class IntrinsicReward(nn.Module):
    """What a pretraining is rewarded with; it learns from replay batches and judges imagined states.

    Attributes:
        optimisers: of its parameters, by name.
    """

    optimisers: Mapping[str, Optimiser]

    def __init__(self) -> None:
        super().__init__()
        self.optimisers = {}

    def relabel(
        self, batch: Mapping[str, Tensor], world_model: WorldModel
    ) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
        """The batch that the world model learns from, and metrics: with the task's rewards, which shape nothing.

        Args:
            batch: as the replay gives it.
            world_model: before its update.
        """
        return batch, {}

    def learn(self, batch: Mapping[str, Tensor], model: WorldModelLoss) -> dict[str, Tensor]:
        """One update, after that of the world model; metrics.

        Args:
            batch: as the replay gives it.
            model: what the world model made of it.
        """
        return {}

    @abstractmethod
    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """Rewards [H + 1, N] of imagined states.

        Args:
            trajectory: H steps from N start states.
            world_model: that imagined them.
            skill: that each trajectory follows, [N, K]; None for agents without.
        """


@dataclass(frozen=True)
class Method:
    """An algorithm: what it adds to the backbone.

    Attributes:
        reward: builds the intrinsic reward from context, configuration and world model.
        skills: the skills by configuration; None for algorithms without.
        choice: for algorithms with skills, builds what settles for one in fine-tuning, from context, configuration and
            the pretrained intrinsic reward.
        critic: builds another critic than the usual one, from its input's size and the configuration.
    """

    reward: Callable[[AgentContext, Any, WorldModel], IntrinsicReward]
    skills: Callable[[Any], SkillSpace] | None = None
    choice: Callable[[AgentContext, Any, Any], SkillChoice] | None = None
    critic: Callable[[int, Any], Critic] | None = None


class Pretraining(BehaviourLearner):
    """Learns from an intrinsic reward alone.

    Args:
        context: where it lives.
        config: settings.
        method: the algorithm.

    Raises:
        UserError: if the algorithm has skills and the data are someone else's, who followed none of them.
    """

    def __init__(self, context: AgentContext, config: PretrainedConfig, method: Method) -> None:
        skills = None if method.skills is None else method.skills(config)
        if skills is not None and not context.collects:
            raise UserError(
                "this agent's skills must act to be learned, so it cannot be pretrained from a data set; "
                "choose an agent without skills."
            )
        self.config, self._method = config, method
        super().__init__(
            context,
            config,
            skills=skills,
            critic=self._critic(),
            reward_momentum=config.reward_momentum,
            entropy=config.pretrain_entropy,
            entropy_in_critic=config.entropy_in_critic,
        )
        if skills is not None:
            self.recorded = {"skill": (skills.dim,)}
        self.intrinsic = self.component("intrinsic", lambda: method.reward(context, config, self.world_model))
        self.components |= {
            f"intrinsic_{name}_optimiser": optimiser for name, optimiser in self.intrinsic.optimisers.items()
        }

    def _critic(self) -> Callable[[int], Critic] | None:
        build = self._method.critic
        return None if build is None else lambda inputs: build(inputs, self.config)

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The policy that seeks the intrinsic reward; its mean in evaluation."""
        return PolicyActor(
            self,
            self.behaviour.actor,
            self.actor_draws(seed),
            sample=not evaluation,
            skills=self.skills,
            skill_steps=None if self.skills is None else self.skills.every,
        )

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """World model, intrinsic reward, policy: the released code's order."""
        tensors: Mapping[str, Tensor] = to_tensors(batch, self.context.device)
        tensors, metrics = self.intrinsic.relabel(tensors, self.world_model)
        model, learned = self.learn_world_model(tensors)
        metrics |= learned | self.intrinsic.learn(tensors, model)
        start = start_states(model.post, tensors)
        # One random skill for each imagined trajectory.
        skill = None
        if self.skills is not None:
            skill = self.skills.draw(self._draws, start.deter.new_zeros(len(start.deter), self.skills.dim))
        imagined = self.behaviour.imagine(self.world_model, start, self._draws, skill)
        reward = self.intrinsic.judge(imagined.trajectory, self.world_model, skill)
        learned = self.behaviour.learn(imagined, reward, self._optimisers)
        return metrics | {f"behaviour_{name}": value for name, value in learned.items()}

    def for_finetuning(self, context: AgentContext) -> DreamerFinetuning:
        """An agent with this one's encoder, dynamics, decoder and policy, as released; all else starts afresh."""
        config, choice = self.config, None
        if self.skills is not None:
            assert self._method.choice is not None, "an algorithm with skills says how one is chosen"
            choice = self._method.choice(context, config, self.intrinsic)
        agent = DreamerFinetuning(context, config, skills=self.skills, choice=choice, critic=self._critic())
        agent.inherit_world_model(self.world_model)
        if config.transfer_actor:
            agent.behaviour.actor.load_state_dict(self.behaviour.actor.state_dict())
        if config.transfer_critic:
            for part in ("net", "slow"):
                getattr(agent.behaviour.critic, part).load_state_dict(getattr(self.behaviour.critic, part).state_dict())
        return agent
