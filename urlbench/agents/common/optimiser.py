"""The optimiser of every module: optional clipping, optional plain weight decay on everything, Adam."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from urlbench.core.types import Spec


class OptimiserConfig(Spec):
    """Settings shared by all optimisers; the learning rate belongs to the module.

    Source: released Choreographer code. `weight_decay` multiplies every parameter, biases and norms included,
    by (1 - weight_decay) before Adam's step, not scaled by the learning rate.

    Attributes:
        clip_norm: bound of the gradient's global norm; None for none.
    """

    eps: float = 1e-5
    clip_norm: float | None = 100.0
    weight_decay: float = 1e-6


class Optimiser:
    """Adam for a fixed list of parameters; only these receive gradients from its losses.

    Args:
        parameters: what it trains.
        lr: learning rate.
        config: the shared settings.
        also_decay: parameters that take the weight decay of each step without being trained.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, config: OptimiserConfig, also_decay: Iterable[Tensor] = ()
    ) -> None:
        self.parameters = list(parameters)
        self._decayed = [*self.parameters, *also_decay]
        self._config = config
        self._adam = torch.optim.Adam(self.parameters, lr=lr, eps=config.eps, fused=True)

    def step(self, loss: Tensor) -> Tensor:
        """One step down the gradient of `loss`.

        Returns:
            The gradient's global norm before clipping, a scalar.
        """
        # Asking for these gradients alone keeps them out of every other module the loss passed through.
        gradients = torch.autograd.grad(loss, self.parameters)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        norm = nn.utils.get_total_norm(gradients, foreach=True)
        if self._config.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self._config.clip_norm, norm, foreach=True)
        if self._config.weight_decay:
            with torch.no_grad():
                torch._foreach_mul_(self._decayed, 1 - self._config.weight_decay)
        self._adam.step()
        self._adam.zero_grad()
        return norm.detach()

    def state_dict(self) -> dict[str, Any]:
        """Adam's state."""
        return self._adam.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._adam.load_state_dict(state)
