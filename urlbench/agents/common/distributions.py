"""The distributions of the agents, as plain functions of their parameters."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.networks import MLP

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
ACTION_LIMIT = 1 - 1e-6
SATURATED = 0.95


def onehot(index: Tensor, probs: Tensor) -> Tensor:
    """One-hot vectors that carry the gradient of the probabilities (straight-through).

    Source: Hafner et al. 2021 (DreamerV2), alg. 1.

    Args:
        index: drawn classes [...].
        probs: probabilities [..., C].

    Returns:
        [..., C]; one-hot in value.
    """
    sample = torch.zeros_like(probs).scatter_(-1, index.unsqueeze(-1), 1.0)
    return sample + (probs - probs.detach())


def onehot_mode(logits: Tensor) -> Tensor:
    """The most likely one-hot vector [..., C] of `logits` [..., C].

    It carries the gradient of the normalised log-probabilities, as the released code's does (not that of the
    probabilities); nothing published learns from it.
    """
    log_probs = F.log_softmax(logits, -1)
    mode = F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    return mode + (log_probs - log_probs.detach())


def categorical_log_prob(index: Tensor, logits: Tensor) -> Tensor:
    """Log-probability [...] of the classes `index` [...] under `logits` [..., C]."""
    return F.log_softmax(logits, -1).gather(-1, index.unsqueeze(-1)).squeeze(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy [...] of `logits` [..., C], in nats."""
    log_probs = F.log_softmax(logits, -1)
    return -(log_probs.exp() * log_probs).sum(-1)


def categorical_kl(logits: Tensor, other: Tensor) -> Tensor:
    """KL[logits || other] in nats, summed over the variables: [..., V, C] twice to [...]."""
    log_probs, log_other = F.log_softmax(logits, -1), F.log_softmax(other, -1)
    return (log_probs.exp() * (log_probs - log_other)).sum((-2, -1))


def unit_normal_nll(mean: Tensor, target: Tensor, event_dims: int = 0) -> Tensor:
    """Negative log-likelihood of `target` under Normal(mean, 1), summed over the last `event_dims` axes."""
    nll = 0.5 * (target - mean) ** 2 + HALF_LOG_2PI
    return nll.sum(tuple(range(-event_dims, 0))) if event_dims else nll


class ClampedNormal(NamedTuple):
    """A diagonal normal over actions whose samples are clamped to (-1, 1).

    The released code calls it a truncated normal, but entropy and log-probability are those of the
    plain normal.

    Attributes:
        mean: [..., A]; the deterministic action.
        std: [..., A].
    """

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor, *, noise_limit: float | None = None) -> Tensor:
        """Mean + std * noise, clamped; the clamp is invisible to the gradient.

        Args:
            noise: standard normal, [..., A].
            noise_limit: bound of std * noise; None for none.
        """
        offset = self.std * noise
        action = self.mean + (offset if noise_limit is None else offset.clamp(-noise_limit, noise_limit))
        return action + (action.clamp(-ACTION_LIMIT, ACTION_LIMIT) - action).detach()

    def log_prob(self, action: Tensor) -> Tensor:
        """[...] summed over the action dimensions."""
        return -(0.5 * ((action - self.mean) / self.std) ** 2 + self.std.log() + HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        """[...] summed over the action dimensions, in nats."""
        return (self.std.log() + 0.5 + HALF_LOG_2PI).sum(-1)


def saturation(means: Tensor) -> Tensor:
    """The share of action means [...] beyond +-0.95, where tanh passes hardly any gradient on and an actor is dying."""
    return (means.abs() > SATURATED).to(means.dtype).mean()


class NormalPolicy(nn.Module):
    """A policy network: mean = tanh(linear), std = 2 sigmoid(linear / 2) + 0.1 from one hidden trunk.

    Source: the released Choreographer code (`trunc_normal`); Hafner et al. 2021, app. D.

    Args:
        inputs: size of the state (and skill) it sees.
        hidden: sizes of the hidden layers.
        action_dim: A.
    """

    MIN_STD = 0.1

    def __init__(self, inputs: int, hidden: tuple[int, ...], action_dim: int) -> None:
        super().__init__()
        self.trunk = MLP(inputs, hidden, None)
        self.mean = nn.Linear(hidden[-1], action_dim)
        self.std = nn.Linear(hidden[-1], action_dim)

    def forward(self, x: Tensor) -> ClampedNormal:
        """The action distribution at `x` [..., inputs]."""
        return self.head(self.trunk(x))

    def head(self, hidden: Tensor) -> ClampedNormal:
        """The action distribution for the last hidden layer's values."""
        return ClampedNormal(torch.tanh(self.mean(hidden)), 2 * torch.sigmoid(self.std(hidden) / 2) + self.MIN_STD)
