"""DDPG with twin critics and n-step returns: the backbone that all model-free agents of URLB share.

Source: Lillicrap et al. 2016 (DDPG); Yarats et al. 2021 (DrQ-v2), sec. 3.1, for noise, n-step returns and twin
critics. Defaults are the settings released with Laskin et al. 2021 (URLB).
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.ddpg.networks import ImageEncoder, Policy, TwinCritic
from urlbench.core.interfaces import AgentConfig, AgentContext, Schedule

# Adam as PyTorch comes; nothing is clipped and nothing decays.
ADAM = OptimiserConfig(eps=1e-8, clip_norm=None, weight_decay=0.0)


class DDPGConfig(AgentConfig):
    """Defaults: the released URLB code.

    Attributes:
        update_every_steps: agent steps between two updates.
        seed_frames: frames before the first update; uniform random actions meanwhile, in both phases.
        batch_size: transitions a batch, from states.
        pixel_batch_size: the same from pixels, where the released configuration advises fewer.
        nstep: steps summed in a return.
        hidden: width of all layers; from states, of the trunks, too.
        pixel_trunk: width of the trunks from pixels.
        conv_channels: of every convolution.
        lr: of everything, if nothing else is said.
        tau: share of the critic in each update of its target.
        exploration_std: standard deviation of the actions' noise at agent steps, linear in between and constant
            beyond: ((0, 1.0), (100000, 0.1)) is the released `linear(1.0,0.1,100000)`.
        noise_limit: bound of the noise inside updates.
        critic_trains_encoder: from pixels, the loss of the task's critic trains the encoder.
    """

    update_every_steps: int = Field(default=2, gt=0)
    seed_frames: int = Field(default=4000, ge=0)
    batch_size: int = Field(default=1024, gt=1)
    pixel_batch_size: int = Field(default=256, gt=1)
    replay_capacity_steps: int = Field(default=1_000_000, gt=0)
    nstep: int = Field(default=3, gt=0)
    discount: float = 0.99
    hidden: int = 1024
    pixel_trunk: int = 50
    conv_channels: int = 32
    lr: float = 1e-4
    tau: float = 0.01
    exploration_std: tuple[tuple[int, float], ...] = Field(default=((0, 0.2),), min_length=1)
    noise_limit: float = 0.3
    critic_trains_encoder: bool = True

    @field_validator("exploration_std")
    @classmethod
    def _steps_ascend(cls, value: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
        steps = [step for step, _ in value]
        if steps != sorted(set(steps)):
            raise ValueError(f"the steps {steps} must ascend")
        return value


def make_schedule(config: DDPGConfig, context: AgentContext, nstep: int) -> Schedule:
    """What the runner does for a DDPG agent whose samples span `nstep` steps."""
    return Schedule(
        update_every_frames=config.update_every_steps * context.action_repeat,
        seed_frames=config.seed_frames,
        random_action_phases=("pretrain", "finetune"),
        batch_size=config.batch_size if context.observation_kind == "states" else config.pixel_batch_size,
        batch_length=nstep + 1,
        replay_capacity_steps=config.replay_capacity_steps,
    )


def noise_std(points: tuple[tuple[int, float], ...], step: int) -> float:
    """The standard deviation of the actions' noise at an agent step; `DDPGConfig.exploration_std` says how."""
    last_step, last = points[-1]
    if step >= last_step:
        return last
    steps, values = zip(*points, strict=True)
    return float(np.interp(step, steps, values))


class Transitions(NamedTuple):
    """What one update learns from, N transitions over n steps.

    Attributes:
        obs: the observation, or its encoding, [N, ...].
        action: taken there, [N, A].
        reward: discounted sum over the n steps, [N].
        discount: of the value n steps later, [N].
        next_obs: n steps later, [N, ...].
        skill: [N, K]; None for agents without.
        images: from pixels, both observations as the encoder saw them, [N, C, H, W] each; None from states.
    """

    obs: Tensor
    action: Tensor
    reward: Tensor
    discount: Tensor
    next_obs: Tensor
    skill: Tensor | None = None
    images: tuple[Tensor, Tensor] | None = None


def n_step_transitions(
    batch: Mapping[str, Tensor], discount: float, sampled_skill: Literal["previous", "acting"] = "previous"
) -> Transitions:
    """Turn replay windows of n + 1 entries into transitions over n steps, or up to where the episode ended before.

    Args:
        batch: `observation` [N, n + 1, ...], `action` [N, n + 1, A], `reward` and `discount` [N, n + 1]; entry 0
            holds the first observation, entry 1 the action taken there and what it led to. `skill`, if there is one,
            [N, n + 1, K], was followed on the way to its entry. `mask` [N, n + 1], if there is one, is False behind an
            episode's end; an action was taken in each window.
        discount: of one step.
        sampled_skill: see `SkilledConfig`.
    """
    observation, reward, step = batch["observation"], batch["reward"], discount * batch["discount"]
    last = observation[:, -1]
    if "mask" in batch:
        mask = batch["mask"]
        reward, step = reward.masked_fill(~mask, 0), step.masked_fill(~mask, 1)
        last = observation[torch.arange(len(mask), device=mask.device), mask.sum(1) - 1]
    total, factor = torch.zeros_like(reward[:, 0]), torch.ones_like(reward[:, 0])
    for i in range(1, reward.shape[1]):
        total = total + factor * reward[:, i]
        factor = factor * step[:, i]
    skill = batch["skill"][:, 0 if sampled_skill == "previous" else 1] if "skill" in batch else None
    return Transitions(observation[:, 0], batch["action"][:, 1], total, factor, last, skill)


@torch.no_grad()
def soft_update(source: nn.Module, target: nn.Module, tau: float) -> None:
    """Move the parameters of `target` towards those of `source` by the share `tau`."""
    new: list[Tensor] = [*source.parameters()]
    old: list[Tensor] = [*target.parameters()]
    if old:  # the encoder of states has none, and torch takes no empty list
        torch._foreach_lerp_(old, new, tau)


class Backbone(nn.Module):
    """Encoder, actor, twin critic and its target.

    Args:
        context: observation kind and shape, action size.
        config: sizes and settings.
        skill_dim: size of the skill that actor and critic see beside the observation (K); 0 for none.
        successor: the critic gives successor features, and the skill is the task that weighs them.
    """

    def __init__(
        self, context: AgentContext, config: DDPGConfig, *, skill_dim: int = 0, successor: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        if context.observation_kind == "pixels":
            self.encoder = encoder = ImageEncoder(context.observation_shape, config.conv_channels)
            self.features, trunk, layers = encoder.features, config.pixel_trunk, 2
        else:
            self.encoder = nn.Identity()
            self.features, trunk, layers = context.observation_shape[0], config.hidden, 1
        inputs, hidden = self.features + skill_dim, layers * (config.hidden,)
        self.actor = Policy(inputs, context.action_dim, trunk=trunk, hidden=hidden)
        critics = [
            TwinCritic(
                inputs,
                context.action_dim,
                trunk=trunk,
                hidden=hidden,
                kind=context.observation_kind,
                task_dim=skill_dim if successor else None,
            )
            for _ in range(2)
        ]
        self.critic, self.target = critics[0], critics[1].requires_grad_(False)
        self.target.load_state_dict(self.critic.state_dict())

    def make_optimisers(self, *, trains_encoder: bool) -> dict[str, Optimiser]:
        """One for the actor, one for the critic and, if its loss trains it, the encoder."""
        encoder = self.encoder.parameters() if trains_encoder else ()
        return {
            "actor": Optimiser(self.actor.parameters(), self.config.lr, ADAM),
            "critic": Optimiser([*self.critic.parameters(), *encoder], self.config.lr, ADAM),
        }

    @staticmethod
    def policy_input(obs: Tensor, skill: Tensor | None) -> Tensor:
        """What actor and critic see: encoded observations [N, F] and skills [N, K], if there are any."""
        return obs if skill is None else torch.cat([obs, skill], -1)

    def learn(
        self, batch: Transitions, std: float, draws: Draws, optimisers: Mapping[str, Optimiser]
    ) -> dict[str, Any]:
        """One update of critic, actor and target, in this order.

        Next actions come from the actor itself: unlike the paper's, the released DDPG has no target actor.

        Args:
            batch: with encoded observations.
            std: of the actions' noise.
            draws: of that noise.
            optimisers: from `make_optimisers`.

        Returns:
            Scalars by name.
        """
        limit = self.config.noise_limit
        x, task = self.policy_input(batch.obs, batch.skill), batch.skill
        with torch.no_grad():
            next_x = self.policy_input(batch.next_obs, batch.skill)
            policy = self.actor(next_x, std)
            next_action = policy.sample(draws.action_noise(policy.mean), noise_limit=limit)
            target = batch.reward + batch.discount * self.target(next_x, next_action, task).amin(0)
        values = self.critic(x, batch.action, task)
        critic_loss = sum(F.mse_loss(value, target) for value in values)
        assert isinstance(critic_loss, Tensor)
        optimisers["critic"].step(critic_loss)

        policy = self.actor(x, std)
        action = policy.sample(draws.action_noise(policy.mean), noise_limit=limit)
        actor_loss = -self.critic(x, action, task).amin(0).mean()
        optimisers["actor"].step(actor_loss)

        soft_update(self.critic, self.target, self.config.tau)
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "target_value": target.mean(),
            "batch_reward": batch.reward.mean(),
        }
