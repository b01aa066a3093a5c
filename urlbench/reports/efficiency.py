"""Scores against frames: of fine-tuning, and of the pretraining that fine-tunings started from."""

import math
from collections.abc import Callable, Mapping, Sequence

from urlbench.reports.origins import Source
from urlbench.reports.score_tables import evaluation_frames, tasks_by_domain
from urlbench.reports.tables import Table, format_estimate
from urlbench.results.cells import Results
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.scores import scores_at
from urlbench.statistics.efficiency import Curve, efficiency_curve
from urlbench.statistics.estimates import Estimate
from urlbench.statistics.resampling import CiMethod

ALL_TASKS = "all tasks"
Panels = Mapping[str, Mapping[str, Curve]]
"""Mean scores by the name of a group of tasks, all of them first, and by the agent's label."""


def finetuning_curves(results: Results, ci: CiMethod, reps: int) -> Panels:
    """The mean score at each evaluation of the fine-tunings."""
    return _panels({frame: scores_at(results, frame) for frame in evaluation_frames(results)}, ci, reps)


def pretraining_curves(snapshots: Mapping[int, Results], ci: CiMethod, reps: int) -> Panels:
    """The mean final score of the fine-tunings from each snapshot; of agents that do not pretrain the same at all."""
    last = {at: results.suite.protocols[results.preset].finetune_frames for at, results in snapshots.items()}
    return _panels({at: scores_at(results, last[at]) for at, results in snapshots.items()}, ci, reps)


def _panels(matrices: Mapping[int, Mapping[str, ScoreMatrix]], ci: CiMethod, reps: int) -> Panels:
    labels = list(next(iter(matrices.values())))
    first = next(iter(matrices.values()))[labels[0]]
    domains = tasks_by_domain(first)
    groups = {ALL_TASKS: first.tasks, **domains} if len(domains) > 1 else {ALL_TASKS: first.tasks}
    return {
        name: {
            label: efficiency_curve(
                {at: by_label[label].select(tasks) for at, by_label in matrices.items()}, "Mean", ci, reps
            )
            for label in labels
        }
        for name, tasks in groups.items()
    }


def curves_table(
    name: str,
    title: str,
    panels: Panels,
    columns: str,
    score: str,
    notes: Sequence[str],
    source_of: Callable[[str, int], Source],
) -> Table:
    """The curves over all tasks as numbers.

    Args:
        name: of the table.
        title: of the table.
        panels: the curves.
        columns: what the numbers in the header are.
        score: what a score is called.
        notes: what is said below it.
        source_of: the runs behind a number, by the agent's label and the column.
    """
    curves = panels[ALL_TASKS]
    frames = next(iter(curves.values())).frames
    values = {label: [_estimate(curve, place) for place in range(len(frames))] for label, curve in curves.items()}
    return Table(
        name,
        title,
        ("agent", *(f"{frame:,}" for frame in frames)),
        tuple((label, *map(format_estimate, row)) for label, row in values.items()),
        (f"Columns are {columns}; mean {score} over all tasks.", *notes),
        tuple((None, *(source_of(label, int(frame)) for frame in frames)) for label in curves),
        tuple((None, *row) for row in values.values()),
    )


def _estimate(curve: Curve, place: int) -> Estimate:
    ends = (float(one[place]) for one in (curve.values, curve.lows, curve.highs))
    value, low, high = (None if math.isnan(end) else end for end in ends)
    return Estimate(value, low, high, 0, curve.notes[place])
