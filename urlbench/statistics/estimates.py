"""What the statistics return: values with the 95 % interval, and means with their standard error."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
CONFIDENCE = 0.95
REPS = 50_000


@dataclass(frozen=True)
class Estimate:
    """A point estimate and its interval.

    Attributes:
        low: lower end of the 95 % interval; None where there is no interval.
        high: upper end.
        n_runs: runs that went in, over all tasks.
        note: why there is no value or no interval, or what the interval rests on; empty otherwise.
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


def percentile_intervals(replicates: Floats) -> tuple[Floats, Floats]:
    """Lower and upper ends of the 95 % percentile interval, each [...], of replicates [..., reps]."""
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(replicates, [tail, 100 - tail], axis=-1)
    return low, high


def estimate(value: float, replicates: Floats, n_runs: int, note: str = "") -> Estimate:
    """A value with the interval of its replicates [reps]."""
    low, high = percentile_intervals(replicates)
    return Estimate(value, float(low), float(high), n_runs, note)
