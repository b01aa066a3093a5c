"""The four aggregates of scores, and scores of tasks and domains, with 95 % percentile intervals.

Point estimates are rliable's (Agarwal et al. 2021, "Deep RL at the Edge of the Statistical Precipice", section 4).
The IQM and the gap are over all runs and tasks together, mean and median over the means of the tasks; written so,
tasks with different numbers of runs need no filling.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import REPS, Estimate, Floats, estimate
from urlbench.statistics.resampling import CiMethod, Draw, LegacyStream, Resamples, clustered, draws, resamples
from urlbench.statistics.runs import Runs, runs_of


def iqm(drawn: Resamples) -> Floats:
    """Interquartile mean: of all scores but the floor(runs / 4) lowest and highest, [reps]."""
    n_runs = len(drawn.runs.values)
    cut = int(0.25 * n_runs)
    inner = np.clip(drawn.cumulative, cut, n_runs - cut)
    # What a score adds to the clipped count is how often it is in the middle half.
    kept = np.empty(inner.shape)
    kept[0] = inner[0] - cut
    np.subtract(inner[1:], inner[:-1], out=kept[1:])
    return drawn.runs.values[drawn.runs.order] @ kept / (n_runs - 2 * cut)


def median(drawn: Resamples) -> Floats:
    """Median of the tasks' means, [reps]."""
    ordered = np.sort(drawn.task_means, axis=0)  # in half of the time of np.median
    n_tasks = len(ordered)
    return (ordered[(n_tasks - 1) // 2] + ordered[n_tasks // 2]) / 2


def mean(drawn: Resamples) -> Floats:
    """Mean of the tasks' means, [reps]."""
    return drawn.task_means.mean(axis=0)


def optimality_gap(drawn: Resamples) -> Floats:
    """How far runs stay below a score of 1 on average, [reps]; a score above 1 counts as 1."""
    return 1 - np.minimum(drawn.runs.values, 1) @ drawn.counts / len(drawn.runs.values)


METRICS: Mapping[str, Callable[[Resamples], Floats]] = {
    "IQM": iqm,
    "Median": median,
    "Mean": mean,
    "Optimality gap": optimality_gap,
}
AGGREGATES = tuple(METRICS)


def aggregate(
    matrix: ScoreMatrix,
    ci: CiMethod | LegacyStream = "stratified",
    reps: int = REPS,
    metrics: Sequence[str] = AGGREGATES,
) -> dict[str, Estimate]:
    """Aggregates with their intervals.

    A task without any run leaves no aggregate at all: what is left would be a score of other tasks. A task
    with a single run leaves no interval, for its spread is unknown.

    Args:
        matrix: scores of one agent.
        ci: how runs are resampled.
        reps: bootstrap repetitions.
        metrics: which of `AGGREGATES`.
    """
    runs = runs_of(matrix)
    n_runs = len(runs.values)
    if runs.why_no_value:
        return {name: Estimate(None, None, None, n_runs, runs.why_no_value) for name in metrics}
    values = {name: point(name, runs) for name in metrics}
    note = runs.why_no_interval(clustered=clustered(matrix, ci))
    if note:
        return {name: Estimate(values[name], None, None, n_runs, note) for name in metrics}
    (replicates,) = metric_replicates([runs], draws([runs], ci), reps, metrics)
    return {name: estimate(values[name], replicates[name], n_runs) for name in metrics}


def point(metric: str, runs: Runs) -> float:
    """A metric of the runs themselves, each taken once."""
    return float(METRICS[metric](Resamples(runs, np.ones((len(runs.values), 1), np.int32)))[0])


def metric_replicates(agents: Sequence[Runs], draw: Draw, reps: int, metrics: Sequence[str]) -> list[dict[str, Floats]]:
    """Replicates [reps] of each metric, by agent."""
    found = [{metric: np.empty(reps) for metric in metrics} for _ in agents]
    done = 0
    for block in resamples(agents, draw, reps):
        until = done + block[0].counts.shape[1]
        for drawn, replicates in zip(block, found, strict=True):
            for metric, values in replicates.items():
                values[done:until] = METRICS[metric](drawn)
        done = until
    return found


def task_scores(matrix: ScoreMatrix, ci: CiMethod = "stratified", reps: int = REPS) -> dict[str, Estimate]:
    """The mean score on each task."""
    return {task: aggregate(matrix.select([task]), ci, reps, ["Mean"])["Mean"] for task in matrix.tasks}


def domain_scores(matrix: ScoreMatrix, ci: CiMethod = "stratified", reps: int = REPS) -> dict[str, Estimate]:
    """The mean score in each domain, over its tasks' means."""
    tasks_of = {
        domain: [task for task, its in zip(matrix.tasks, matrix.domains, strict=True) if its == domain]
        for domain in dict.fromkeys(matrix.domains)
    }
    return {domain: aggregate(matrix.select(tasks), ci, reps, ["Mean"])["Mean"] for domain, tasks in tasks_of.items()}
