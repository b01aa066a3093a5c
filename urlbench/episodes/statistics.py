"""Statistics of a data set's observations and actions, for agents that scale what they see."""

from collections.abc import Callable

import numpy as np

from urlbench.core.interfaces import Array, DataStatistics
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.format import read_arrays


class _Moments:
    """Mean and standard deviation of each dimension, from one batch of rows after another.

    Source: the pairwise update of Chan, Golub and LeVeque (1979), in float64.
    """

    def __init__(self) -> None:
        self._rows, self._mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, values: Array) -> None:
        """Take in rows [N, ...]."""
        values = values.astype(np.float64)
        rows, mean = self._rows + len(values), values.mean(0)
        shift = mean - self._mean
        self._squares = self._squares + ((values - mean) ** 2).sum(0) + shift**2 * (self._rows * len(values) / rows)
        self._mean = self._mean + shift * (len(values) / rows)
        self._rows = rows

    def result(self) -> tuple[Array, Array]:
        """Mean and standard deviation, both float32."""
        return self._mean.astype(np.float32), np.sqrt(self._squares / self._rows).astype(np.float32)


def data_statistics(dataset: Dataset, transitions: int, advance: Callable[[], None] = lambda: None) -> DataStatistics:
    """Statistics of the first files that hold `transitions`, read once, in the order of their names.

    Args:
        dataset: whose.
        transitions: how many are pretrained on.
        advance: called before every file; may raise.

    Raises:
        UserError: if there are fewer, or if a file is damaged or was changed.
    """
    observation, action, files = _Moments(), _Moments(), dataset.first_files(transitions)
    for file in files:
        advance()
        arrays = read_arrays(dataset.read(file), str(dataset.buffer / file.name))
        observation.add(arrays["observation"])
        action.add(arrays["action"][1:])  # no action led to the reset
    return DataStatistics(sum(file.length for file in files), *observation.result(), *action.result())
