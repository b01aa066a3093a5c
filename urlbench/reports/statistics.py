"""Point estimates and intervals of normalised scores.

Point estimates are rliable's (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice").
Intervals are 95 % percentile bootstraps that resample runs, never episodes:

* `stratified`: the runs of each task are drawn independently (as rliable does);
* `cluster`: the fine-tunings that share a pretraining, those of one domain and seed, are drawn together,
  which is wider where a lucky pretraining helps all tasks of its domain.

Every draw comes from a stream named after the suite, the preset, the agent and the task (or domain), so
neither other agents, nor the order of rows, nor any global random state changes an interval.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from rliable import metrics

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.seeding import stream

CiMethod = Literal["stratified", "cluster"]
Floats = npt.NDArray[np.float64]
AGGREGATES = ("IQM", "Median", "Mean", "Optimality gap")
CONFIDENCE = 0.95
_BOOTSTRAP_SEED = 0
_CHUNK_VALUES = 1 << 20


@dataclass(frozen=True)
class Estimate:
    """A point estimate and its interval.

    Attributes:
        low: lower end of the 95 % interval; None where there is no interval.
        high: upper end.
        n_runs: runs that went in, over all tasks.
        note: why there is no value or no interval; empty otherwise.
    """

    value: float | None
    low: float | None
    high: float | None
    n_runs: int
    note: str = ""


@dataclass(frozen=True)
class TaskMean:
    """The mean return of one agent on one task.

    Attributes:
        mean: over runs; None without any.
        standard_error: sample standard deviation / sqrt(n); None for fewer than two runs.
        n: number of runs.
    """

    mean: float | None
    standard_error: float | None
    n: int


def task_mean(values: Floats) -> TaskMean:
    """Mean and standard error of the runs' values [runs]; NaN marks a run that is missing."""
    present = values[~np.isnan(values)]
    n = len(present)
    error = float(np.std(present, ddof=1) / np.sqrt(n)) if n > 1 else None
    return TaskMean(float(np.mean(present)) if n else None, error, n)


def aggregate(matrix: ScoreMatrix, ci: CiMethod = "stratified", reps: int = 50_000) -> dict[str, Estimate]:
    """The four aggregates of `AGGREGATES` with their intervals.

    A task without any run leaves no aggregate at all: what is left would be a score of other tasks. A task
    with a single run leaves no interval, for its spread is unknown.

    Args:
        matrix: scores of one agent.
        ci: how runs are resampled.
        reps: bootstrap repetitions.
    """
    columns = [column[~np.isnan(column)] for column in matrix.scores.T]
    counts = [len(column) for column in columns]
    n_runs = sum(counts)
    if not n_runs or min(counts) == 0:
        empty = [task for task, count in zip(matrix.tasks, counts, strict=True) if not count]
        note = f"no run on {', '.join(empty)}"
        return {name: Estimate(None, None, None, n_runs, note) for name in AGGREGATES}
    points = _point_estimates(columns)
    note = _no_interval_reason(matrix, counts, ci)
    if note:
        return {name: Estimate(points[name], None, None, n_runs, note) for name in AGGREGATES}
    replicates = bootstrap(matrix, ci, reps)
    tail = 100 * (1 - CONFIDENCE) / 2
    estimates = {}
    for name in AGGREGATES:
        low, high = np.percentile(replicates[name], [tail, 100 - tail])
        estimates[name] = Estimate(points[name], float(low), float(high), n_runs)
    return estimates


def bootstrap(matrix: ScoreMatrix, ci: CiMethod, reps: int) -> dict[str, Floats]:
    """Replicates [reps] of each aggregate; memory is bounded whatever `reps` is."""
    columns = [column[~np.isnan(column)] for column in matrix.scores.T]
    draw = _cluster_draws(matrix, columns) if _shares_pretraining(matrix, ci) else _independent_draws(matrix, columns)
    chunk = max(1, _CHUNK_VALUES // sum(map(len, columns)))
    parts = [
        _aggregate_samples([column[index] for column, index in zip(columns, draw(size), strict=True)])
        for size in _chunks(reps, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in AGGREGATES}


def _point_estimates(columns: list[Floats]) -> dict[str, float]:
    # rliable takes the IQM and the gap over all runs and tasks together, mean and median over the
    # means of the tasks; written so, tasks with different numbers of runs (PARTIAL) need no filling.
    runs = np.concatenate(columns)[:, None]
    tasks = np.array([[np.mean(column) for column in columns]])
    return {
        "IQM": float(metrics.aggregate_iqm(runs)),
        "Median": float(metrics.aggregate_median(tasks)),
        "Mean": float(metrics.aggregate_mean(tasks)),
        "Optimality gap": float(metrics.aggregate_optimality_gap(runs)),
    }


def _aggregate_samples(samples: list[Floats]) -> dict[str, Floats]:
    """The aggregates of many resamples at once, from one array [reps, runs] a task."""
    runs = np.concatenate(samples, axis=1)
    tasks = np.stack([sample.mean(axis=1) for sample in samples], axis=1)
    n_runs = runs.shape[1]
    cut = int(0.25 * n_runs)
    return {
        "IQM": np.sort(runs, axis=1)[:, cut : n_runs - cut].mean(axis=1),
        "Median": np.median(tasks, axis=1),
        "Mean": tasks.mean(axis=1),
        "Optimality gap": 1 - np.minimum(runs, 1).mean(axis=1),
    }


def _no_interval_reason(matrix: ScoreMatrix, counts: list[int], ci: CiMethod) -> str:
    if min(counts) < 2:
        return "one run per task: no interval" if max(counts) == 1 else "a task with a single run: no interval"
    if not matrix.complete and _shares_pretraining(matrix, ci):
        return "missing runs: no cluster interval"
    return ""


def _shares_pretraining(matrix: ScoreMatrix, ci: CiMethod) -> bool:
    """Fine-tunings that start from nothing share nothing: each run is its own cluster."""
    return ci == "cluster" and matrix.pretrains


def _stream(matrix: ScoreMatrix, *names: str) -> np.random.Generator:
    return stream(_BOOTSTRAP_SEED, "bootstrap", matrix.suite, matrix.preset, matrix.agent, matrix.config_hash, *names)


def _independent_draws(matrix: ScoreMatrix, columns: list[Floats]) -> Callable[[int], list[npt.NDArray[np.int64]]]:
    streams = [_stream(matrix, "task", task) for task in matrix.tasks]

    def draw(size: int) -> list[npt.NDArray[np.int64]]:
        return [
            one.integers(len(column), size=(size, len(column))) for one, column in zip(streams, columns, strict=True)
        ]

    return draw


def _cluster_draws(matrix: ScoreMatrix, columns: list[Floats]) -> Callable[[int], list[npt.NDArray[np.int64]]]:
    streams = {domain: _stream(matrix, "domain", domain) for domain in matrix.domains}
    n_seeds = len(columns[0])

    def draw(size: int) -> list[npt.NDArray[np.int64]]:
        drawn = {domain: one.integers(n_seeds, size=(size, n_seeds)) for domain, one in streams.items()}
        return [drawn[domain] for domain in matrix.domains]

    return draw


def _chunks(total: int, chunk: int) -> Iterator[int]:
    while total > 0:
        yield min(chunk, total)
        total -= chunk
