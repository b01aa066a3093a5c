"""Performance profiles: which fraction of the runs score above a threshold, for many thresholds.

Source: Agarwal et al. 2021, section 4 (the score distribution, over runs and tasks).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import REPS, Floats, percentile_intervals
from urlbench.statistics.resampling import CiMethod, Counts, LegacyStream, clustered, draws, resamples
from urlbench.statistics.runs import Runs, runs_of

_ROWS_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class Profile:
    """A performance profile.

    Attributes:
        thresholds: scores, [K].
        values: fraction of the runs strictly above each, [K]; NaN where there is no value.
        lows: lower ends of the pointwise 95 % intervals, [K]; NaN where there is no interval.
        highs: upper ends, [K].
        n_runs: runs that went in, over all tasks.
        note: why there is no value or no interval; empty otherwise.
    """

    thresholds: Floats
    values: Floats
    lows: Floats
    highs: Floats
    n_runs: int
    note: str


def performance_profile(
    matrix: ScoreMatrix,
    thresholds: Sequence[float] | Floats,
    ci: CiMethod | LegacyStream = "stratified",
    reps: int = REPS,
) -> Profile:
    """The fraction of runs above each threshold, with pointwise intervals.

    Args:
        matrix: scores of one agent.
        thresholds: scores.
        ci: how runs are resampled.
        reps: bootstrap repetitions.
    """
    runs, taus = runs_of(matrix), np.asarray(thresholds, dtype=np.float64)
    n_runs, nothing = len(runs.values), np.full(len(taus), np.nan)
    if runs.why_no_value:
        return Profile(taus, nothing, nothing, nothing, n_runs, runs.why_no_value)
    # A profile is flat between scores, so all that can differ is how many scores a threshold reaches.
    reached = np.searchsorted(runs.values[runs.order], taus, side="right")
    values = 1 - reached / n_runs
    note = runs.why_no_interval(clustered=clustered(matrix, ci))
    if note:
        return Profile(taus, values, nothing, nothing, n_runs, note)
    steps, step_of = np.unique(reached, return_inverse=True)
    above = _runs_above(runs, steps, ci, reps)
    # A few rows at once: as floats, all replicates would be several times as large.
    ends = [
        percentile_intervals(above[row : row + _ROWS_AT_ONCE] / n_runs) for row in range(0, len(steps), _ROWS_AT_ONCE)
    ]
    lows, highs = (np.concatenate(end)[step_of] for end in zip(*ends, strict=True))
    return Profile(taus, values, lows, highs, n_runs, "")


def _runs_above(runs: Runs, steps: npt.NDArray[np.intp], ci: CiMethod | LegacyStream, reps: int) -> Counts:
    """How many runs of each resample are above the lowest `steps` scores, [steps, reps]."""
    n_runs = len(runs.values)
    above, done = np.full((len(steps), reps), n_runs, np.int32), 0
    reaches_any = steps > 0
    for (drawn,) in resamples([runs], draws([runs], ci), reps):
        until = done + drawn.counts.shape[1]
        above[reaches_any, done:until] -= drawn.cumulative[steps[reaches_any] - 1]
        done = until
    return above
