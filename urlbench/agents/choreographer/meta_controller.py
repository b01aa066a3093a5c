"""The meta-controller: picks a skill in every state, while the skill policy goes on learning the task.

Source: Mazzaglia et al. 2023 (Choreographer), sec. 3.4 and app. B.1.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.actor_critic import (
    ActorCriticConfig,
    Critic,
    StreamNorm,
    actor_loss,
    discount_weights,
    imagine,
    lambda_return,
)
from urlbench.agents.common.distributions import NormalPolicy, categorical_entropy, categorical_log_prob, saturation
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel


def meta_actor_loss(
    log_prob: Tensor, entropy: Tensor, target: Tensor, value: Tensor, discount: float | Tensor, entropy_scale: float
) -> Tensor:
    """REINFORCE: -mean of weight_t (log pi(k_t|z_t) sg(R_{t+1} - v(z_t)) + eta H[pi(.|z_t)]), t = 0 ... H - 2.

    Args:
        log_prob: of the skill chosen at states 0 ... H - 2, [H - 1, N].
        entropy: of the choice there, [H - 1, N].
        target: lambda-returns [H, N].
        value: slow-critic values [H + 1, N].
        discount: of each step, see `discount_weights`.
        entropy_scale: eta.
    """
    advantage = (target[1:] - value[:-2]).detach()
    objective = log_prob * advantage + entropy_scale * entropy
    return -(discount_weights(discount, len(objective), target) * objective).mean()


class MetaController(nn.Module):
    """A categorical policy over skills, its critic, and the skill policy that executes its choice.

    Args:
        feat_dim: size of the model state.
        skills: K.
        action_dim: A.
        config: sizes and settings, shared with the pretraining actor-critics.
        entropy_scale: eta of the choice of skill; the executor has no entropy bonus.
    """

    def __init__(
        self, feat_dim: int, skills: int, action_dim: int, config: ActorCriticConfig, entropy_scale: float
    ) -> None:
        super().__init__()
        self.config, self.skills, self.entropy_scale = config, skills, entropy_scale
        self.actor = MLP(feat_dim, config.units, skills)
        self.critic = Critic(feat_dim, config)
        self.executor = NormalPolicy(feat_dim + skills, config.units, action_dim)
        self.reward_norm = StreamNorm(1.0, centred=config.centred_rewards)  # as published: off, but for its 1e-8

    def make_optimisers(self, config: OptimiserConfig, *, frozen_executor: bool = False) -> dict[str, Optimiser]:
        """The `meta`, `executor` and `critic` optimisers that `learn` takes; a frozen executor has none."""
        optimisers = {
            "meta": Optimiser(self.actor.parameters(), self.config.actor_lr, config),
            "critic": Optimiser(self.critic.net.parameters(), self.config.critic_lr, config),
        }
        if frozen_executor:
            self.executor.requires_grad_(False)
        else:
            optimisers["executor"] = Optimiser(self.executor.parameters(), self.config.actor_lr, config)
        return optimisers

    def learn(
        self, world_model: WorldModel, start: LatentState, draws: Draws, optimisers: dict[str, Optimiser]
    ) -> dict[str, Tensor]:
        """One update of the choice of skill, of its execution and of the critic.

        Args:
            world_model: dynamics and reward head.
            start: N detached start states.
            draws: of skills, latents and action noise.
            optimisers: as `make_optimisers` returns them.

        Returns:
            Scalars by name; `meta_entropy` is the choice's in one state, `meta_choice_entropy` that over all of them.
        """
        log_probs, entropies, choices, means = [], [], [], []

        def policy(feat: Tensor, t: int) -> Tensor:
            logits = self.actor(feat)
            probs = logits.detach().softmax(-1)
            index = draws.skill(probs)
            choices.append(probs.mean(0))
            log_probs.append(categorical_log_prob(index, logits))
            entropies.append(categorical_entropy(logits))
            # The executor's input is detached: the choice learns by REINFORCE alone.
            action = self.executor(torch.cat([feat, F.one_hot(index, self.skills).to(feat.dtype)], -1))
            means.append(action.mean.detach())
            return action.sample(draws.action_noise(action.mean))

        trajectory = imagine(world_model, start, policy, self.config.horizon, draws)
        discount = trajectory.discount(self.config.discount)
        reward = self.reward_norm(world_model.reward(trajectory.feat))
        value = self.critic.slow_value(trajectory.feat)
        target = lambda_return(reward[:-1], value[:-1], value[-1], discount, self.config.lambda_)
        entropy = torch.stack(entropies)
        meta_loss = meta_actor_loss(
            torch.stack(log_probs[:-1]), entropy[:-1], target, value, discount, self.entropy_scale
        )
        metrics: dict[str, Any] = {"meta_grad_norm": optimisers["meta"].step(meta_loss)}
        if "executor" in optimisers:
            executor_loss = actor_loss(target, discount)
            metrics["executor_grad_norm"] = optimisers["executor"].step(executor_loss)
            metrics["executor_loss"] = executor_loss.detach()
        critic_loss = self.critic.loss(trajectory.feat, target, discount)
        metrics["critic_grad_norm"] = optimisers["critic"].step(critic_loss)
        self.critic.refresh_slow()
        return metrics | {
            "meta_loss": meta_loss.detach(),
            "meta_entropy": entropy.detach().mean(),
            "meta_choice_entropy": torch.special.entr(torch.stack(choices).mean(0)).sum(),
            "executor_saturation": saturation(torch.stack(means)),
            "critic_loss": critic_loss.detach(),
            "imagined_reward": reward.detach().mean(),
            "value": value.detach().mean(),
        }
