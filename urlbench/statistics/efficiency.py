"""Sample efficiency: an aggregate against the frames of pretraining, or of fine-tuning.

Source: Agarwal et al. 2021, section 4 (aggregates at several numbers of frames).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.aggregates import METRICS, point
from urlbench.statistics.estimates import REPS, Floats, percentile_intervals
from urlbench.statistics.resampling import CiMethod, Resamples, clustered, draws, names_of_draws, resamples
from urlbench.statistics.runs import Runs, runs_of


@dataclass(frozen=True, eq=False)
class Curve:
    """An aggregate at several numbers of frames.

    Attributes:
        frames: ascending, F of them.
        values: [F]; NaN where there is no value.
        lows: lower ends of the pointwise 95 % intervals, [F]; NaN where there is no interval.
        highs: upper ends, [F].
        notes: why there is no value or no interval, for each number of frames; empty where nothing is missing.
    """

    frames: tuple[int, ...]
    values: Floats
    lows: Floats
    highs: Floats
    notes: tuple[str, ...]


def efficiency_curve(
    matrices: Mapping[int, ScoreMatrix], metric: str = "IQM", ci: CiMethod = "stratified", reps: int = REPS
) -> Curve:
    """An aggregate at each number of frames, with pointwise intervals.

    One resample serves all frames with equally many runs, so the band moves with the scores and not with the draws.
    Each point is what `aggregate` gives for its matrix alone.

    Args:
        matrices: scores of one agent, by number of frames.
        metric: one of `AGGREGATES`.
        ci: how runs are resampled.
        reps: bootstrap repetitions.
    """
    frames = tuple(sorted(matrices))
    values, lows, highs = (np.full(len(frames), np.nan) for _ in range(3))
    notes = []
    alike: defaultdict[tuple[object, ...], dict[int, Runs]] = defaultdict(dict)
    for place, frame in enumerate(frames):
        runs = runs_of(matrices[frame])
        if not runs.why_no_value:
            values[place] = point(metric, runs)
        notes.append(runs.why_no_interval(clustered=clustered(runs.matrix, ci)))
        if not notes[-1]:
            alike[names_of_draws(runs)][place] = runs
    for group in alike.values():
        replicates = _replicates(list(group.values()), metric, ci, reps)
        lows[list(group)], highs[list(group)] = percentile_intervals(replicates)
    return Curve(frames, values, lows, highs, tuple(notes))


def _replicates(alike: Sequence[Runs], metric: str, ci: CiMethod, reps: int) -> Floats:
    """Replicates of the metric [frames, reps], all from the draws of the first."""
    found, done = np.empty((len(alike), reps)), 0
    for (drawn,) in resamples(alike[:1], draws(alike[:1], ci), reps):
        until = done + drawn.counts.shape[1]
        for row, runs in zip(found, alike, strict=True):
            row[done:until] = METRICS[metric](Resamples(runs, drawn.counts))
        done = until
    return found
