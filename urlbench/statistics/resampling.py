"""How runs are drawn for the bootstrap: runs, never episodes.

* `stratified`: the runs of each task are drawn independently (as rliable does; Agarwal et al. 2021, "Deep RL at the
  Edge of the Statistical Precipice");
* `cluster`: the fine-tunings that share a pretraining, those of one domain and seed, are drawn together,
  which is wider where a lucky pretraining helps all tasks of its domain.

Every draw comes from a stream named after the suite, the preset, the agent and the task (or domain), so
neither other agents, nor the order of rows, nor any global random state changes an interval.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.seeding import stream
from urlbench.statistics.estimates import Floats

CiMethod = Literal["stratified", "cluster"]
_BOOTSTRAP_SEED = 0


def shares_pretraining(matrix: ScoreMatrix, ci: CiMethod) -> bool:
    """Fine-tunings that start from nothing share nothing: each run is its own cluster."""
    return ci == "cluster" and matrix.pretrains


def _stream(matrix: ScoreMatrix, *names: str) -> np.random.Generator:
    return stream(_BOOTSTRAP_SEED, "bootstrap", matrix.suite, matrix.preset, matrix.agent, matrix.config_hash, *names)


def independent_draws(matrix: ScoreMatrix, columns: list[Floats]) -> Callable[[int], list[npt.NDArray[np.int64]]]:
    """Draws of the runs of each task on its own, [reps, runs] a task."""
    streams = [_stream(matrix, "task", task) for task in matrix.tasks]

    def draw(size: int) -> list[npt.NDArray[np.int64]]:
        return [
            one.integers(len(column), size=(size, len(column))) for one, column in zip(streams, columns, strict=True)
        ]

    return draw


def cluster_draws(matrix: ScoreMatrix, columns: list[Floats]) -> Callable[[int], list[npt.NDArray[np.int64]]]:
    """Draws of seeds that the tasks of a domain share, [reps, runs] a task."""
    streams = {domain: _stream(matrix, "domain", domain) for domain in matrix.domains}
    n_seeds = len(columns[0])

    def draw(size: int) -> list[npt.NDArray[np.int64]]:
        drawn = {domain: one.integers(n_seeds, size=(size, n_seeds)) for domain, one in streams.items()}
        return [drawn[domain] for domain in matrix.domains]

    return draw


def chunks(total: int, chunk: int) -> Iterator[int]:
    """Sizes of at most `chunk` that sum to `total`."""
    while total > 0:
        yield min(chunk, total)
        total -= chunk
