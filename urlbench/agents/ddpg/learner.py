"""The two phases of a DDPG agent: pretrained with an intrinsic reward, fine-tuned with a task's.

Source: the protocol of Laskin et al. 2021 (URLB), sec. 4, and its released code.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, SupportsFloat

import torch
from pydantic import Field
from torch import Tensor, nn

from urlbench.agents.common import acting
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skill_schedule import SkillSchedule
from urlbench.agents.common.world_model import preprocess, to_tensors
from urlbench.agents.ddpg.backbone import (
    Backbone,
    DDPGConfig,
    Transitions,
    make_schedule,
    n_step_transitions,
    noise_std,
)
from urlbench.agents.ddpg.networks import SHIFT_PAD, random_shift
from urlbench.agents.ddpg.skills import Skills
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array
from urlbench.core.precision import many_rows
from urlbench.core.seeding import derive_seed


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


class DDPGLearner(Learner):
    """What both phases share.

    Args:
        context: where it lives.
        config: settings.
        nstep: of its samples.
        skills: what its actors follow; None if there are none.
        trains_encoder: from pixels, the critic's loss trains the encoder.
        successor: see `Method`.

    Attributes:
        steps: agent steps so far, as the training actor was last told.
    """

    def __init__(
        self,
        context: AgentContext,
        config: DDPGConfig,
        *,
        nstep: int,
        skills: Skills | None,
        trains_encoder: bool,
        successor: bool,
    ) -> None:
        self.context, self.config, self.skills = context, config, skills
        self.schedule = make_schedule(config, context, nstep)
        self.steps = 0
        self._draws = Draws(derive_seed(context.seed, "updates"), context.device)
        dim = 0 if skills is None else skills.dim
        self.backbone = initialised(
            lambda: Backbone(context, config, skill_dim=dim, successor=successor),
            derive_seed(context.seed, "init", "backbone"),
        ).to(context.device)
        self._optimisers = self.backbone.make_optimisers(trains_encoder=trains_encoder)
        self.components = {"draws": self._draws, "backbone": self.backbone}
        self.components |= {f"{name}_optimiser": optimiser for name, optimiser in self._optimisers.items()}
        if skills is not None:
            self.recorded = {"skill": (skills.dim,)}
            self.components["skills"] = skills.to(context.device)

    @property
    def noise_std(self) -> float:
        """Standard deviation of the actions' noise at this point of the training."""
        return noise_std(self.config.exploration_std, self.steps)

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """Noisy, with changing skills; in evaluation the policy's mean and, as released, one skill throughout."""
        draws = Draws(derive_seed(seed, "actor"), self.context.device)
        if evaluation:
            return DDPGActor(self, draws, noisy=False, keeps_skill=True)
        every = None if self.skills is None else self.skills.every
        return DDPGActor(self, draws, noisy=True, trains=True, skill_steps=every)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """Skills change at episode starts and every `skill_steps`."""
        draws = Draws(derive_seed(seed, "actor"), self.context.device)
        return DDPGActor(self, draws, noisy=sample, skill_steps=skill_steps)

    def encode(self, observation: Tensor) -> Tensor:
        """Features [N, F] of observations as the environment gives them."""
        return self.backbone.encoder(preprocess(observation))

    def transitions(self, batch: Mapping[str, Array], *, gradients: bool) -> Transitions:
        """The batch, encoded; from pixels, images are shifted at random and `gradients` may reach the encoder."""
        skill: Any = getattr(self.config, "sampled_skill", "previous")
        raw = n_step_transitions(to_tensors(batch, self.context.device), self.config.discount, skill)
        if self.context.observation_kind == "states":
            return raw
        image, next_image = (
            preprocess(random_shift(image, self._draws.shift(len(image), 2 * SHIFT_PAD + 1)))
            for image in (raw.obs, raw.next_obs)
        )
        with torch.set_grad_enabled(gradients):
            obs, next_obs = (self.backbone.encoder(seen) for seen in (image, next_image))
        return raw._replace(obs=obs, next_obs=next_obs, images=(image, next_image))

    def learn_policy(self, batch: Transitions) -> dict[str, Any]:
        """One update of the backbone."""
        return self.backbone.learn(batch, self.noise_std, self._draws, self._optimisers)

    def state_dict(self) -> dict[str, Any]:
        """The components' and the step counter."""
        return super().state_dict() | {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.steps = state["steps"]


class DDPGActor(Actor):
    """Follows a DDPG agent's policy.

    Args:
        agent: whose current weights it uses.
        draws: the actor's own.
        noisy: add noise to the policy's mean.
        trains: tell the agent how far its training is.
        skill_steps: steps after which another skill is drawn, besides at each episode start; None for none.
        keeps_skill: follow one skill, drawn for the whole evaluation, or else at the first episode start.
    """

    def __init__(
        self,
        agent: DDPGLearner,
        draws: Draws,
        *,
        noisy: bool,
        trains: bool = False,
        skill_steps: int | None = None,
        keeps_skill: bool = False,
    ) -> None:
        self._agent, self._draws, self._noisy = agent, draws, noisy
        self._encoder = acting.encoder(agent.backbone.encoder)
        self._policy = acting.ddpg_policy(agent.backbone.actor)
        self._trains, self._keeps_skill = trains, keeps_skill
        self._skill: SkillSchedule[Tensor | None] = SkillSchedule(self._draw, skill_steps)

    def _draw(self) -> Tensor | None:
        return None if self._agent.skills is None else self._agent.skills.draw(self._draws)

    def begin_evaluation(self, seed: int) -> None:
        """All episodes of an evaluation follow one skill, as released."""
        skills = self._agent.skills
        if skills is not None:
            self._skill.skill = skills.draw(Draws(derive_seed(seed, "skill"), self._agent.context.device))

    def begin_episode(self) -> None:
        """A fresh skill."""
        if self._skill.skill is None or not self._keeps_skill:
            self._skill.at_episode_start()

    def before_step(self, step: int) -> None:
        """The released loops look before acting, also right after a reset and while actions are random."""
        if self._trains:
            self._agent.steps = step
        self._skill.at_step(step)

    @torch.inference_mode()
    def act(self, observation: Array, step: int) -> Array:
        """The policy's mean [A], with noise that only the action's own limits bound."""
        agent = self._agent
        obs = self._encoder(preprocess(torch.as_tensor(observation, device=agent.context.device).unsqueeze(0)))
        skill = None if self._skill.skill is None else self._skill.skill.unsqueeze(0)
        policy = self._policy(agent.backbone.policy_input(obs, skill), agent.noise_std)
        action = policy.sample(self._draws.action_noise(policy.mean)) if self._noisy else policy.mean
        return action[0].cpu().numpy()

    def recorded(self) -> Mapping[str, Array]:
        """The skill, if there are any."""
        return {} if self._skill.skill is None else {"skill": self._skill.skill.cpu().numpy()}

    def state_dict(self) -> dict[str, Any]:
        """Draws and skill."""
        return {"draws": self._draws.state_dict(), "skill": self._skill.skill}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._draws.load_state_dict(state["draws"])
        self._skill.skill = None if state["skill"] is None else state["skill"].to(self._agent.context.device)


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
        self.intrinsic = initialised(
            lambda: method.reward(context, config, self.backbone), derive_seed(context.seed, "init", "intrinsic")
        ).to(context.device)
        self.components["intrinsic"] = self.intrinsic
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

    def for_finetuning(self, context: AgentContext) -> "Finetuning":
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


class Finetuning(DDPGLearner):
    """Learns from a task's reward.

    Args:
        context: where it lives.
        config: settings.
        skills: which skill to follow; None for agents without.
        successor: see `Method`.
    """

    def __init__(
        self, context: AgentContext, config: DDPGConfig, skills: Skills | None = None, *, successor: bool = False
    ) -> None:
        super().__init__(
            context,
            config,
            nstep=config.nstep,
            skills=skills,
            trains_encoder=config.critic_trains_encoder,
            successor=successor,
        )

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The backbone learns; whoever chooses skills sees the batch, too."""
        transitions = self.transitions(batch, gradients=self.config.critic_trains_encoder)
        if self.skills is not None:
            self.skills.observe(transitions, self.steps * self.context.action_repeat)
        return self.learn_policy(transitions)

    def for_finetuning(self, context: AgentContext) -> Agent:
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("this agent is fine-tuned already; call for_finetuning on a pretrained one")
