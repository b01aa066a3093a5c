"""What published means and standard errors tell of scores whose runs are not known.

The runs of a task are drawn as normal scores with the published mean and the standard deviation standard error x
sqrt(seeds), and what would be a return below 0 is set to 0, since returns are not negative. One repetition draws as
many runs as the source had seeds; the metrics of many repetitions give the value, their average, and its 95 % interval.
The mean needs no draws: it is exact, and its interval follows from the standard errors.

The approximation ignores skew, the ceiling of returns and that tasks of a domain share a pretraining. On the one
published source with a table and a figure it is within 0.008 of the figure's IQM and 0.005 of its optimality gap for
seven agents of eight (docs/statistics.md).
"""

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np

from urlbench.core.seeding import stream
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.aggregates import AGGREGATES
from urlbench.statistics.estimates import CONFIDENCE, REPS, Estimate, Floats, estimate
from urlbench.statistics.resampling import BOOTSTRAP_SEED, block_sizes

SIMULATED = "simulated from published means and standard errors"


def simulated(summary: SummaryScores, reps: int = REPS) -> dict[str, Estimate]:
    """The four aggregates of published scores.

    The mean is exact. Where a task lacks a standard error it has no interval; the other aggregates then have no
    value, nor where a task's number of seeds is not stated.

    Args:
        summary: of one agent from one source.
        reps: simulated repetitions.
    """
    n_runs = int(summary.n_seeds.sum())
    able = [metric for metric in AGGREGATES if not why_not_simulated(summary, metric)]
    replicates = simulated_replicates(summary, able, reps)
    found = {}
    for metric in AGGREGATES:
        value = simulated_value(summary, metric, replicates.get(metric))
        if metric not in able:
            found[metric] = Estimate(value, None, None, n_runs, why_not_simulated(summary, metric))
        elif metric == "Mean":
            assert value is not None
            half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * _standard_error(summary)
            found[metric] = Estimate(value, value - half, value + half, n_runs, SIMULATED)
        else:
            assert value is not None
            found[metric] = estimate(value, replicates[metric], n_runs, SIMULATED)
    return found


def simulated_value(summary: SummaryScores, metric: str, replicates: Floats | None) -> float | None:
    """The exact mean, or the average of the replicates [reps] of another metric; None without them."""
    if metric == "Mean":
        return float(summary.scores.mean())
    return None if replicates is None else float(replicates.mean())


def why_not_simulated(summary: SummaryScores, metric: str) -> str:
    """What the source lacks for drawing a metric; empty if nothing."""
    lacking = {"standard error": np.isnan(summary.standard_errors)}
    if metric != "Mean":
        lacking["number of seeds"] = summary.n_seeds < 1
    for what, lacks in lacking.items():
        tasks = [task for task, lacking_here in zip(summary.tasks, lacks, strict=True) if lacking_here]
        if tasks:
            return f"the source gives no {what} for {'any task' if lacks.all() else ', '.join(tasks)}"
    return ""


def simulator(summary: SummaryScores) -> Callable[[int], list[Floats]]:
    """Draws a number of repetitions: of each task, scores [reps, runs]."""
    errors = summary.score_errors
    # The scores of a return of 0.
    lowest = summary.scale.scores(np.zeros(len(summary.tasks)))
    streams = [_stream(summary, task) for task in summary.tasks]

    def draw(reps: int) -> list[Floats]:
        return [
            np.maximum(least, score + error * np.sqrt(n) * one.standard_normal((reps, n)))
            for one, least, score, error, n in zip(
                streams, lowest, summary.scores, errors, summary.n_seeds, strict=True
            )
        ]

    return draw


def simulated_replicates(summary: SummaryScores, metrics: Sequence[str], reps: int) -> dict[str, Floats]:
    """Replicates [reps] of each metric, of the mean without setting returns below 0 to 0."""
    parts = []
    if set(metrics) - {"Mean"}:
        draw = simulator(summary)
        parts = [_metrics(draw(block)) for block in block_sizes(reps, int(summary.n_seeds.sum()))]
    found = {}
    for metric in metrics:
        if metric == "Mean":
            noise = _stream(summary, "mean of tasks").standard_normal(reps)
            found[metric] = summary.scores.mean() + _standard_error(summary) * noise
        else:
            found[metric] = np.concatenate([part[metric] for part in parts])
    return found


def _metrics(samples: Sequence[Floats]) -> dict[str, Floats]:
    """All but the mean of many repetitions, [reps], from the runs of each task, [reps, runs]."""
    scores = np.sort(np.concatenate(samples, axis=1), axis=1)
    n_runs = scores.shape[1]
    cut = int(0.25 * n_runs)
    return {
        "IQM": scores[:, cut : n_runs - cut].mean(axis=1),
        "Median": np.median(np.stack([sample.mean(axis=1) for sample in samples]), axis=0),
        "Optimality gap": 1 - np.minimum(scores, 1).mean(axis=1),
    }


def _standard_error(summary: SummaryScores) -> float:
    """Of the mean over tasks, taken as independent."""
    return float(np.sqrt(np.sum(summary.score_errors**2)) / len(summary.tasks))


def _stream(summary: SummaryScores, name: str) -> np.random.Generator:
    names = (summary.suite, summary.preset, summary.source, summary.agent, name)
    return stream(BOOTSTRAP_SEED, "simulation", *names)
