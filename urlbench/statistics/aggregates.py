"""The four aggregates of normalised scores, with 95 % percentile bootstrap intervals.

Point estimates are rliable's (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice").
"""

import numpy as np

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import CONFIDENCE, Estimate, Floats
from urlbench.statistics.resampling import CiMethod, chunks, cluster_draws, independent_draws, shares_pretraining

AGGREGATES = ("IQM", "Median", "Mean", "Optimality gap")
_CHUNK_VALUES = 1 << 20


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
    draw = cluster_draws(matrix, columns) if shares_pretraining(matrix, ci) else independent_draws(matrix, columns)
    chunk = max(1, _CHUNK_VALUES // sum(map(len, columns)))
    parts = [
        _aggregate_samples([column[index] for column, index in zip(columns, draw(size), strict=True)])
        for size in chunks(reps, chunk)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in AGGREGATES}


def _point_estimates(columns: list[Floats]) -> dict[str, float]:
    # rliable takes the IQM and the gap over all runs and tasks together, mean and median over the
    # means of the tasks; written so, tasks with different numbers of runs (PARTIAL) need no filling.
    samples = _aggregate_samples([column[None] for column in columns])
    return {name: float(values[0]) for name, values in samples.items()}


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
    if not matrix.complete and shares_pretraining(matrix, ci):
        return "missing runs: no cluster interval"
    return ""
