"""The pretraining of a DDPG agent: the backbone, rewarded by an intrinsic reward.

Source: the protocol of Laskin et al. 2021 (URLB), sec. 4, and its released code.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, SupportsFloat

from pydantic import Field
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.backbone import Backbone, DDPGConfig, Transitions
from urlbench.agents.ddpg.finetuning import Finetuning
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.ddpg.skills import Skills
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentContext, Array
from urlbench.core.precision import many_rows


class PretrainedConfig(DDPGConfig):
    """What pretraining adds.

    Attributes:
        pretrain_nstep: the same as `nstep`, in pretraining. As released, an intrinsic reward replaces the sum of n
            rewards by one, of the observation, its action and the observation n steps later, still discounted like
            n steps; dynamics models therefore predict n steps ahead. With 1 all is as the papers say.
        critic_trains_encoder: as released, only the intrinsic reward's loss trains the encoder, so that in
            fine-tuning nothing does.
        transfer_q_heads: fine-tuning starts from the whole critic, not its trunk alone.
        target_start: what the critic's target starts from in fine-tuning: as released, a target of its own random
            weights, which then follows; or a copy of the critic.
    """

    pretrain_nstep: int = Field(default=3, gt=0)
    critic_trains_encoder: bool = False
    transfer_q_heads: bool = False
    target_start: Literal["random", "critic"] = "random"


class SkilledConfig(PretrainedConfig):
    """What skills add.

    Attributes:
        sampled_skill: which skill a sampled transition has: as released, the one stored with its observation, that
            led there (`previous`), which is another one where the skill changes; or the one its action was chosen
            for (`acting`).
    """

    sampled_skill: Literal["previous", "acting"] = "previous"


class Learned(NamedTuple):
    """What an intrinsic reward makes of a batch.

    Attributes:
        reward: [N] without gradient.
        metrics: scalars by name.
    """

    reward: Tensor
    metrics: dict[str, Tensor]


class IntrinsicReward(nn.Module):
    """What a pretraining is rewarded with; it learns from each batch and judges it.

    Attributes:
        optimisers: of its parameters and, from pixels, of the encoder's.
    """

    optimisers: dict[str, Optimiser]

    @abstractmethod
    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """One update and the rewards of the same batch.

        Args:
            batch: observations are encoded, and let gradients pass into the encoder; `reward` is the task's.
            draws: of whatever is random.
        """


@dataclass(frozen=True)
class Method:
    """An algorithm: what it adds to the backbone.

    Attributes:
        reward: builds the intrinsic reward from context, configuration and backbone.
        skills: builds the pretraining's skills from the configuration; None for algorithms without.
        finetuning_skills: the same for fine-tuning, from configuration, context and the pretraining's intrinsic
            reward.
        successor: the critic gives successor features, weighed by the skill.
    """

    reward: Callable[[AgentContext, Any, Backbone], IntrinsicReward]
    skills: Callable[[Any], Skills | None] = lambda config: None
    finetuning_skills: Callable[[Any, AgentContext, Any], Skills | None] = lambda config, context, reward: None
    successor: bool = False


class Pretraining(DDPGLearner):
    """Learns from an intrinsic reward alone.

    Args:
        context: where it lives.
        config: settings.
        method: the algorithm.

    Raises:
        UserError: if the algorithm has skills and the data are someone else's, who followed none of them.
    """

    config: PretrainedConfig

    def __init__(self, context: AgentContext, config: PretrainedConfig, method: Method) -> None:
        skills = method.skills(config)
        if skills is not None and not context.collects:
            raise UserError(
                "this agent's skills must act to be learned, so it cannot be pretrained from a data set; "
                "choose an agent without skills."
            )
        super().__init__(
            context,
            config,
            nstep=config.pretrain_nstep,
            skills=skills,
            trains_encoder=False,
            successor=method.successor,
        )
        self._method = method
        self.intrinsic = self.component("intrinsic", lambda: method.reward(context, config, self.backbone))
        self.components |= {
            f"intrinsic_{name}_optimiser": optimiser for name, optimiser in self.intrinsic.optimisers.items()
        }

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The intrinsic reward learns and judges; then the backbone learns from its judgement."""
        transitions = self.transitions(batch, gradients=True)
        learned = self.intrinsic.learn(transitions, self._draws)
        policy = self.learn_policy(transitions._replace(reward=learned.reward))
        rewards = {"intrinsic_reward": learned.reward.mean(), "batch_reward": transitions.reward.mean()}
        return learned.metrics | policy | rewards

    def for_finetuning(self, context: AgentContext) -> Finetuning:
        """An agent with this one's encoder, actor and critic trunk, as released; all else starts afresh."""
        agent = Finetuning(
            context,
            self.config,
            self._method.finetuning_skills(self.config, context, self.intrinsic),
            successor=self._method.successor,
        )
        new, old = agent.backbone, self.backbone
        parts = [(new.encoder, old.encoder), (new.actor, old.actor), (new.critic.trunk, old.critic.trunk)]
        if self.config.transfer_q_heads:
            parts.append((new.critic.heads, old.critic.heads))
        for target, source in parts:
            target.load_state_dict(source.state_dict())
        if self.config.target_start == "critic":
            new.target.load_state_dict(new.critic.state_dict())
        return agent
