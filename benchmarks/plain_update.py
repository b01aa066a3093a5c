"""The pieces of a world-model agent's update that urlbench computes in another way than the published code does.

Together they are the structure of the published update, written anew from its description: the actor's loss computes
the policy of all imagined states a second time, objects of torch.distributions check and normalise their parameters,
each step of the filter has the embedding's projection and the prior in it, and all distances are there at once. They
are what the fast pieces must equal (`tests/agents/test_plain_update.py`) and are measured against (`update_speed.py`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal, OneHotCategorical, kl_divergence

from urlbench.agents.choreographer.meta_controller import MetaController, meta_actor_loss
from urlbench.agents.common import actor_critic, knn_entropy, lbs, world_model
from urlbench.agents.common.actor_critic import (
    ActorCritic,
    Imagined,
    actor_loss,
    imagine,
    lambda_return,
    with_entropy,
)
from urlbench.agents.common.distributions import ACTION_LIMIT, ClampedNormal, onehot, saturation
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import CategoricalLatents
from urlbench.agents.common.networks import MLP, ConvDecoder
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.rssm import RSSM, LatentState, NormedGRUCell
from urlbench.agents.common.world_model import WorldModel
from urlbench.core import precision


@torch.no_grad()
def nearest_distances(x: Tensor, k: int) -> Tensor:
    """Distances [N, k] of each row of `x` [N, D] to its k nearest, itself included, from all N x N at once."""
    x = x - x.mean(0)
    return torch.cdist(x, x).fill_diagonal_(0).topk(k, largest=False).values


def mlp(self: MLP, x: Tensor) -> Tensor:
    """Activations [..., outputs] for [..., inputs], none of them in place."""
    activation = F.relu if self.activation is F.relu_ else F.elu
    for i, linear in enumerate(self.linears):
        x = linear(x)
        x = activation(x if self.norms is None else self.norms[i](x))
    return x if self.out is None else self.out(x)


def decoder(self: ConvDecoder, feat: Tensor) -> Tensor:
    """The mean image [..., 3, 64, 64] for model states [..., F], by transposed convolutions alone."""
    x = self.linear(feat).reshape(-1, self.linear.out_features, 1, 1)
    for deconv in self.deconvs[:-1]:
        x = F.elu(deconv(x))
    x = self.deconvs[-1](x)
    x = F.elu(x) if self.elu_output else x
    return x.reshape(*feat.shape[:-1], *x.shape[1:])


def gru_cell(self: NormedGRUCell, x: Tensor, deter: Tensor) -> Tensor:
    """The next state [..., D], the equation as it is written."""
    gates = self.linear(torch.cat([x, deter], -1))
    reset, candidate, update = (gates if self.norm is None else self.norm(gates)).chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update + self.UPDATE_BIAS)
    return update * candidate + (1 - update) * deter


def observe(
    self: RSSM, action: Tensor, embed: Tensor, is_first: Tensor, draws: Draws
) -> tuple[LatentState, LatentState]:
    """Posterior and prior [B, T, ...], both of one step after the other, with the embedding next to the state."""
    state, posts, priors = self.initial(len(action)), list[LatentState](), list[LatentState]()
    for t in range(action.shape[1]):
        keep = (~is_first[:, t]).to(action.dtype).unsqueeze(-1)
        deter = self._advance(state.stoch * keep.unsqueeze(-1), state.deter * keep, action[:, t] * keep)
        hidden = F.elu(self.post1(torch.cat([deter, embed[:, t]], -1)))
        state = self._draw(deter, self.latents.params(self.post2(hidden)), draws)
        posts.append(state)
        priors.append(state._replace(params=self.prior(deter)))
    post, prior = (LatentState(*(torch.stack(x, 1) for x in zip(*states, strict=True))) for states in (posts, priors))
    return post, prior


def sample(self: CategoricalLatents, params: Tensor, draws: Draws) -> Tensor:
    """Latents [..., V, C] drawn from a distribution object of these logits."""
    probs = Independent(OneHotCategorical(logits=params), 1).base_dist.probs
    return onehot(draws.latent(probs.detach()), probs)


def kl(self: CategoricalLatents, params: Tensor, other: Tensor) -> Tensor:
    """KL [...] of two objects of [..., V, C]."""
    kl: Tensor = kl_divergence(*(Independent(OneHotCategorical(logits=one), 1) for one in (params, other)))
    return kl


def unit_normal_nll(mean: Tensor, target: Tensor, event_dims: int = 0) -> Tensor:
    """Negative log-likelihood of an object."""
    nll: Tensor = -Independent(Normal(mean, 1.0), event_dims).log_prob(target)
    return nll


def action_sample(self: ClampedNormal, noise: Tensor, *, noise_limit: float | None = None) -> Tensor:
    """An action drawn from an object; never with a limit in these agents."""
    assert noise_limit is None, "agents with a world model do not bound their noise"
    normal = Normal(self.mean, self.std)
    action = normal.loc + normal.scale * noise
    return action + (action.clamp(-ACTION_LIMIT, ACTION_LIMIT) - action).detach()


def action_entropy(self: ClampedNormal) -> Tensor:
    """Entropy [...] of an object over actions."""
    entropy: Tensor = Independent(Normal(self.mean, self.std), 1).entropy()
    return entropy


def learn_behaviour(
    self: ActorCritic, imagined: Imagined, reward: Tensor, optimisers: dict[str, Optimiser]
) -> dict[str, Tensor]:
    """The policy once more in all imagined states, for an entropy whose weight may be 0."""
    states = self.sees(imagined.trajectory.feat, imagined.skill)
    reward = self.reward_norm(reward)
    value = self.critic.slow_value(states)
    discount = imagined.trajectory.discount(self.config.discount)
    target = lambda_return(reward[:-1], value[:-1], value[-1], discount, self.config.lambda_)
    policy = self.actor(states[:-1].detach())
    entropy = policy.entropy()[:-1]
    loss = actor_loss(target, discount, entropy, self.entropy_scale)
    metrics: dict[str, Any] = {"actor_grad_norm": optimisers["actor"].step(loss)}
    if self.entropy_in_critic:
        target = with_entropy(target, entropy, self.entropy_scale)
    critic_loss = self.critic.loss(states, target, discount)
    metrics["critic_grad_norm"] = optimisers["critic"].step(critic_loss)
    self.critic.refresh_slow()
    return metrics | {
        "actor_loss": loss.detach(),
        "critic_loss": critic_loss.detach(),
        "reward": reward.detach().mean(),
        "value": value.detach().mean(),
        "action_std": policy.std.detach().mean(),
        "saturation": saturation(policy.mean.detach()),
    }


def learn_controller(
    self: MetaController, model: WorldModel, start: LatentState, draws: Draws, optimisers: dict[str, Optimiser]
) -> dict[str, Tensor]:
    """Imagine; then the choice of skill once more in all imagined states."""
    chosen, means = list[Tensor](), list[Tensor]()

    def policy(feat: Tensor, t: int) -> Tensor:
        probs = Categorical(logits=self.actor(feat)).probs
        chosen.append(draws.skill(probs.detach()))
        action = self.executor(torch.cat([feat, F.one_hot(chosen[-1], self.skills).to(feat.dtype)], -1))
        means.append(action.mean.detach())
        return action.sample(draws.action_noise(action.mean))

    trajectory = imagine(model, start, policy, self.config.horizon, draws)
    discount = trajectory.discount(self.config.discount)
    reward = self.reward_norm(model.reward(trajectory.feat))
    value = self.critic.slow_value(trajectory.feat)
    target = lambda_return(reward[:-1], value[:-1], value[-1], discount, self.config.lambda_)
    choice = Categorical(logits=self.actor(trajectory.feat[:-1].detach()))
    log_prob, entropy = choice.log_prob(torch.stack(chosen)), choice.entropy()
    meta_loss = meta_actor_loss(log_prob[:-1], entropy[:-1], target, value, discount, self.entropy_scale)
    metrics: dict[str, Any] = {"meta_grad_norm": optimisers["meta"].step(meta_loss)}
    if "executor" in optimisers:
        skill = F.one_hot(torch.stack(chosen[:-1]), self.skills).to(reward.dtype)
        bonus = self.executor(torch.cat([trajectory.feat[:-2].detach(), skill], -1)).entropy()
        executor_loss = actor_loss(target, discount, bonus, 0.0)
        metrics["executor_grad_norm"] = optimisers["executor"].step(executor_loss)
        metrics["executor_loss"] = executor_loss.detach()
    critic_loss = self.critic.loss(trajectory.feat, target, discount)
    metrics["critic_grad_norm"] = optimisers["critic"].step(critic_loss)
    self.critic.refresh_slow()
    return metrics | {
        "meta_loss": meta_loss.detach(),
        "meta_entropy": entropy.detach().mean(),
        "meta_choice_entropy": Categorical(choice.probs.detach().mean((0, 1))).entropy(),
        "executor_saturation": saturation(torch.stack(means)),
        "critic_loss": critic_loss.detach(),
        "imagined_reward": reward.detach().mean(),
        "value": value.detach().mean(),
    }


def multinomial(self: Draws, probs: Tensor) -> Tensor:
    """Classes [...] drawn from `probs` [..., C] as torch.distributions draws them."""
    drawn = torch.multinomial(probs.reshape(-1, probs.shape[-1]), 1, replacement=True, generator=self._generator)
    return drawn.reshape(probs.shape[:-1])


def index(self: Draws, probs: Tensor) -> Tensor:
    """Classes [...] drawn from `probs` [..., C]: the first whose cumulative probability is above a uniform number."""
    cdf = probs.cumsum(-1)
    uniform = torch.rand((*probs.shape[:-1], 1), generator=self._generator, device=probs.device, dtype=probs.dtype)
    drawn = torch.searchsorted(cdf, uniform * cdf[..., -1:], right=True)
    return drawn.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def optimiser_step(self: Optimiser, loss: Tensor) -> Tensor:
    """Gradients, their norm, their clipping, decay and Adam, for one parameter after the other."""
    for group in self._adam.param_groups:
        group["foreach"] = group["fused"] = False
    gradients = torch.autograd.grad(loss, self.parameters)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    limit = self._config.clip_norm
    with torch.no_grad():
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient if limit is None else gradient * (limit / (norm + 1e-6)).clamp(max=1)
        for decayed in self._decayed:
            decayed.mul_(1 - self._config.weight_decay)
    self._adam.step()
    self._adam.zero_grad()
    return norm.detach()


@contextmanager
def plain_pieces(*, same_draws: bool = False) -> Iterator[None]:
    """Inside, agents update with the pieces above. An agent does one or the other all its life: Adam's kind stays.

    Args:
        same_draws: draw what the fast pieces draw from the same random numbers, to compare results, and not by
            `torch.multinomial`, which draws from the same distribution.
    """
    with ExitStack() as stack:
        pieces: tuple[tuple[object, str, object], ...] = (
            (knn_entropy, "nearest_distances", nearest_distances),
            (MLP, "forward", mlp),
            (ConvDecoder, "forward", decoder),
            (NormedGRUCell, "forward", gru_cell),
            (nn.functional, "elu_", F.elu),
            (RSSM, "observe", observe),
            (CategoricalLatents, "sample", sample),
            (CategoricalLatents, "kl", kl),
            *((place, "unit_normal_nll", unit_normal_nll) for place in (actor_critic, lbs, world_model)),
            (ClampedNormal, "sample", action_sample),
            (ClampedNormal, "entropy", action_entropy),
            (ActorCritic, "learn", learn_behaviour),
            (MetaController, "learn", learn_controller),
            (Draws, "_index", index if same_draws else multinomial),
            (Optimiser, "step", optimiser_step),
            (precision, "_onednn_keeps_float32", lambda: False),
        )
        for place, name, piece in pieces:
            stack.enter_context(mock.patch.object(place, name, piece))
        yield
