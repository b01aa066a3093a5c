"""Where an agent's random draws come from: one object, so that a test can put given numbers in their place."""

from typing import Any

import torch
from torch import Tensor


class Draws:
    """Every draw of one agent (or one actor), from one generator of its own.

    Subclass it to prescribe the draws; nothing else in the agents is random after initialisation.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device=device).manual_seed(seed)

    def latent(self, probs: Tensor) -> Tensor:
        """Class indices [...] of latent variables, drawn from `probs` [..., C]."""
        return self._index(probs)

    def latent_noise(self, mean: Tensor) -> Tensor:
        """Standard normal noise of latent variables, of the shape of `mean`."""
        return self.normal(mean)

    def skill(self, probs: Tensor) -> Tensor:
        """Skill indices [...], drawn from `probs` [..., K]."""
        return self._index(probs)

    def action_noise(self, mean: Tensor) -> Tensor:
        """Standard normal noise of the shape of `mean`."""
        return self.normal(mean)

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape of `like`."""
        return torch.randn(like.shape, generator=self._generator, device=like.device, dtype=like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape of `like`."""
        return torch.rand(like.shape, generator=self._generator, device=like.device, dtype=like.dtype)

    def shift(self, count: int, values: int) -> Tensor:
        """Pairs of integers [count, 2], uniform in [0, values)."""
        device = self._generator.device
        return torch.randint(values, (count, 2), generator=self._generator, device=device)

    def candidate(self, probs: Tensor) -> Tensor:
        """Row indices [K], drawn from `probs` [K, N]."""
        return self._index(probs)

    def row(self, probs: Tensor) -> Tensor:
        """One row index (scalar), drawn from `probs` [N]; they need not sum to one."""
        return torch.multinomial(probs, 1, generator=self._generator)[0]

    def _index(self, probs: Tensor) -> Tensor:
        # Inverse CDF: one uniform number a variable, several times cheaper than multinomial or Gumbel.
        cdf = probs.cumsum(-1)
        uniform = torch.rand((*probs.shape[:-1], 1), generator=self._generator, device=probs.device, dtype=probs.dtype)
        return (cdf <= uniform * cdf[..., -1:]).sum(-1).clamp_(max=probs.shape[-1] - 1)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._generator.set_state(state["generator"])
