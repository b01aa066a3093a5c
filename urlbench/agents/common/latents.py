"""How the stochastic state of a world model is distributed.

A sample has V variables, each of some numbers, and so have the parameters of its distribution; what differs between
world models is which numbers these are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.distributions import categorical_kl, onehot, onehot_mode
from urlbench.agents.common.draws import Draws


class Latents(ABC):
    """A family of distributions over V independent variables."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Of a sample."""

    @property
    def size(self) -> int:
        """Numbers of a sample."""
        return self.shape[0] * self.shape[1]

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers that a network must give for one distribution."""

    @abstractmethod
    def params(self, outputs: Tensor) -> Tensor:
        """The parameters [..., V, P] that a network's `outputs` [..., outputs] stand for."""

    @abstractmethod
    def sample(self, params: Tensor, draws: Draws) -> Tensor:
        """Samples [..., *shape] that carry the gradient of the parameters."""

    def draw(self, params: Tensor, draws: Draws) -> Tensor:
        """The same samples, of which no gradient is asked."""
        return self.sample(params, draws)

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """The most likely samples [..., *shape]."""

    @abstractmethod
    def kl(self, params: Tensor, other: Tensor) -> Tensor:
        """KL[params || other] in nats, summed over the variables, [...]."""


@dataclass(frozen=True)
class CategoricalLatents(Latents):
    """One-hot variables; their parameters are logits [..., V, C], and samples carry gradients straight through.

    Source: Hafner et al. 2021 (DreamerV2), sec. 2.

    Attributes:
        variables: V.
        classes: C.
    """

    variables: int
    classes: int

    @property
    def shape(self) -> tuple[int, int]:
        """[V, C]."""
        return self.variables, self.classes

    @property
    def outputs(self) -> int:
        """All logits."""
        return self.size

    def params(self, outputs: Tensor) -> Tensor:
        """Logits."""
        return outputs.unflatten(-1, self.shape)

    def sample(self, params: Tensor, draws: Draws) -> Tensor:
        """One-hot vectors with the gradient of the probabilities."""
        probs = F.softmax(params, -1)
        return onehot(draws.latent(probs.detach()), probs)

    def draw(self, params: Tensor, draws: Draws) -> Tensor:
        """One-hot vectors."""
        probs = params.softmax(-1)
        return torch.zeros_like(probs).scatter_(-1, draws.latent(probs).unsqueeze(-1), 1.0)

    def mode(self, params: Tensor) -> Tensor:
        """Of the most likely classes."""
        return onehot_mode(params)

    def kl(self, params: Tensor, other: Tensor) -> Tensor:
        """Of the classes."""
        return categorical_kl(params, other)


@dataclass(frozen=True)
class GaussianLatents(Latents):
    """Normal variables, a number each; their parameters are mean and standard deviation [..., V, 2].

    Source: Hafner et al. 2020 (Dreamer), app. A; std = softplus + 0.1 as in its released code.

    Attributes:
        variables: V.
        min_std: lower bound of the standard deviation.
    """

    variables: int
    min_std: float = 0.1

    @property
    def shape(self) -> tuple[int, int]:
        """[V, 1]."""
        return self.variables, 1

    @property
    def outputs(self) -> int:
        """All means, then what becomes the standard deviations."""
        return 2 * self.variables

    def params(self, outputs: Tensor) -> Tensor:
        """Mean and standard deviation."""
        mean, raw = outputs.chunk(2, -1)
        return torch.stack([mean, F.softplus(raw) + self.min_std], -1)

    def sample(self, params: Tensor, draws: Draws) -> Tensor:
        """Mean + std * noise."""
        mean, std = params.split(1, -1)
        return mean + std * draws.latent_noise(mean)

    def mode(self, params: Tensor) -> Tensor:
        """The mean."""
        return params[..., :1]

    def kl(self, params: Tensor, other: Tensor) -> Tensor:
        """Of diagonal normals."""
        (mean, std), (other_mean, other_std) = params.unbind(-1), other.unbind(-1)
        ratio = (std / other_std) ** 2
        return 0.5 * (ratio + ((mean - other_mean) / other_std) ** 2 - 1 - ratio.log()).sum(-1)
