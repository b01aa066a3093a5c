"""Fractions of runs, goals and episodes, with Wilson's score interval.

Wilson's interval (Wilson 1927; recommended for few trials by Brown, Cai and DasGupta 2001) is taken and not Jeffreys',
because it needs no prior; it stays within [0, 1] and has a width at 0 and at 1, where the usual one has none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from urlbench.results.run_records import RunRecord
from urlbench.statistics.estimates import CONFIDENCE


@dataclass(frozen=True)
class Proportion:
    """A count out of a total.

    Attributes:
        low: lower end of the 95 % interval.
        high: upper end.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The fraction."""
        return self.count / self.total


def wilson(count: int, total: int) -> Proportion:
    """`count` out of `total` >= 1 trials with Wilson's score interval, without continuity correction."""
    interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(count, total, float(interval.low), float(interval.high))


Count = Callable[[RunRecord], tuple[int, int]]
"""What is counted in a run: how many were found, out of how many."""


def goals(run: RunRecord) -> tuple[int, int]:
    """The goals of a run that any of its episodes found; of a task with one goal, whether the run found it."""
    return run.goals_found, len(run.searches)


def episodes(run: RunRecord) -> tuple[int, int]:
    """The episodes of a run that found their goal."""
    return run.episodes_found, run.n_episodes


def pooled(runs: Sequence[RunRecord], count: Count) -> Proportion | None:
    """All that was counted in the runs, as one proportion; None without runs."""
    counts = [count(run) for run in runs]
    return wilson(sum(found for found, _ in counts), sum(total for _, total in counts)) if counts else None


def fractions(runs: Sequence[RunRecord], count: Count) -> list[float]:
    """The fraction of each run."""
    return [found / total for found, total in map(count, runs)]
