"""Scores to show: of agents with their runs, frozen ones, and published ones of which only means are known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from urlbench.core.types import Suite
from urlbench.results.score_kinds import Floats, scale_of
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.aggregates import AGGREGATES, aggregate
from urlbench.statistics.estimates import Estimate, TaskMean, task_mean
from urlbench.statistics.resampling import CiMethod
from urlbench.statistics.simulation import simulated

Scores = ScoreMatrix | SummaryScores


def published_labels(entries: Mapping[str, Scores]) -> list[str]:
    """The labels of those that come without runs."""
    return [label for label, scores in entries.items() if isinstance(scores, SummaryScores)]


def with_runs(entries: Mapping[str, Scores]) -> dict[str, ScoreMatrix]:
    """Those whose runs are known, frozen ones among them."""
    return {label: scores for label, scores in entries.items() if isinstance(scores, ScoreMatrix)}


def on_tasks(scores: Scores, suite: Suite, tasks: Sequence[str]) -> Scores:
    """The scores on exactly these tasks of the suite, NaN on those without any."""
    places = [scores.tasks.index(task) if task in scores.tasks else None for task in tasks]

    def spread(values: Floats) -> Floats:
        columns = [np.full(values.shape[:-1], np.nan) if place is None else values[..., place] for place in places]
        return np.stack(columns, axis=-1)

    common: dict[str, Any] = {
        "tasks": tuple(tasks),
        "domains": tuple(suite.task(task).domain for task in tasks),
        "scale": scale_of(suite, tasks),
    }
    if isinstance(scores, ScoreMatrix):
        return replace(scores, measured=spread(scores.measured), **common)
    seeds = np.array([0 if place is None else scores.n_seeds[place] for place in places], dtype=np.int64)
    return replace(
        scores, means=spread(scores.means), standard_errors=spread(scores.standard_errors), n_seeds=seeds, **common
    )


def task_means(scores: Scores) -> list[TaskMean]:
    """Mean of what was measured, and its standard error, on each task."""
    if isinstance(scores, ScoreMatrix):
        return [task_mean(column) for column in scores.measured.T]
    return [
        TaskMean(None, None, 0)
        if np.isnan(mean)
        else TaskMean(float(mean), None if np.isnan(error) else float(error), int(n))
        for mean, error, n in zip(scores.means, scores.standard_errors, scores.n_seeds, strict=True)
    ]


def estimates(scores: Scores, ci: CiMethod, reps: int) -> dict[str, Estimate]:
    """The aggregates of `AGGREGATES`; of published means by the normal approximation, which their notes name."""
    if isinstance(scores, ScoreMatrix):
        return aggregate(scores, ci, reps)
    absent = [task for task, mean in zip(scores.tasks, scores.means, strict=True) if np.isnan(mean)]
    if absent:
        note = f"no published score on {', '.join(absent)}"
        return {name: Estimate(None, None, None, 0, note) for name in AGGREGATES}
    return simulated(scores, reps)
