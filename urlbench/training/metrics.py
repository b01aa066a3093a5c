"""Means of what updates return, without waiting for the device until they are asked for."""

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

import torch

from urlbench.core.errors import UserError


class EpisodeMetrics:
    """The metrics of the updates of one episode.

    Converting a tensor to a float waits for the device, so values are kept as they come and converted together
    when the episode ends.
    """

    def __init__(self) -> None:
        self._floats: dict[str, list[float]] = {}
        self._pending: list[tuple[str, SupportsFloat]] = []

    def add(self, metrics: Mapping[str, SupportsFloat]) -> None:
        """Keep the metrics of one update; scalars or tensors of one element, on any device."""
        for name, value in metrics.items():
            # A metric that still hangs on its graph would keep all of its activations alive.
            self._pending.append((name, value.detach() if isinstance(value, torch.Tensor) else value))

    def _convert(self) -> None:
        tensors = [value.reshape(()).double() for _, value in self._pending if isinstance(value, torch.Tensor)]
        converted = iter(torch.stack(tensors).tolist() if tensors else [])
        for name, value in self._pending:
            number = next(converted) if isinstance(value, torch.Tensor) else float(value)
            self._floats.setdefault(name, []).append(number)
        self._pending.clear()

    def take_means(self, when: str) -> dict[str, float]:
        """The mean of each metric, and start anew.

        Args:
            when: the updates were made, for the message.

        Raises:
            UserError: if a metric is not finite.
        """
        self._convert()
        means = {name: math.fsum(values) / len(values) for name, values in self._floats.items() if _finite(values)}
        if broken := sorted(self._floats.keys() - means.keys()):
            raise UserError(
                f"the update's {', '.join(broken)} became infinite or NaN {when}; "
                "the agent's settings do not train stably here, change them."
            )
        self._floats = {}
        return means

    def state_dict(self) -> dict[str, list[float]]:
        """The values of the unfinished episode, oldest first."""
        self._convert()
        return {name: list(values) for name, values in self._floats.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._floats = {name: list(values) for name, values in state.items()}
        self._pending.clear()


def _finite(values: list[float]) -> bool:
    return all(math.isfinite(value) for value in values)
