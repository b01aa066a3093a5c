"""How much better one agent is than another, and how many seeds it would take to be sure."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.aggregates import metric_replicates, point
from urlbench.statistics.estimates import CONFIDENCE, REPS, Estimate, Floats, estimate
from urlbench.statistics.resampling import CiMethod, clustered, draws, paired_draws
from urlbench.statistics.runs import Runs, check_same_tasks, runs_of
from urlbench.statistics.simulation import SIMULATED, simulated_replicates, simulated_value, why_not_simulated

Scores = ScoreMatrix | SummaryScores
MOST_SEEDS = 1000
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Difference:
    """A metric of one agent minus that of another.

    Attributes:
        resolved: whether the interval excludes 0.
        paired: whether one draw of seeds served both.
    """

    estimate: Estimate
    resolved: bool
    paired: bool


@dataclass(frozen=True)
class Power:
    """How many more seeds a difference needs.

    Attributes:
        more_seeds: of each agent whose runs are known; 0 if the interval excludes 0 already, None if nobody can say.
        power: with which probability the interval then excludes 0.
        note: why there is no number; empty otherwise.
    """

    more_seeds: int | None
    power: float
    note: str


def paired_difference(
    x: Scores, y: Scores, metric: str = "IQM", ci: CiMethod = "stratified", reps: int = REPS
) -> Difference:
    """A metric of x minus that of y, on the same tasks.

    Runs with the same seed meet the same initial states in their evaluations, whoever the agent is. So where both
    agents have all runs of the same seeds, one draw of seeds serves both; otherwise each is drawn on its own. With
    "cluster" the tasks of a domain share that draw if either agent pretrains. Published scores are simulated.

    Args:
        x: scores of one agent.
        y: scores of the other.
        metric: one of `AGGREGATES`.
        ci: how runs are resampled.
        reps: repetitions.

    Raises:
        UserError: if the tasks differ.
    """
    return _compare(x, y, metric, ci, reps).difference()


def seeds_needed(
    x: Scores, y: Scores, metric: str = "IQM", ci: CiMethod = "stratified", reps: int = REPS, power: float = 0.8
) -> Power:
    """How many more seeds of each agent until the 95 % interval of the difference excludes 0.

    It assumes that the true difference is the one observed, which is too bold where that was lucky; that the metric
    is about normal with a variance of v / seeds; and that new seeds vary as the present ones do. From n seeds the
    bootstrap has the variance s^2, and v = s^2 n^2 / (n - 1), for resampling n seeds shrinks a variance by
    (n - 1) / n. The interval excludes 0 with probability `power` if the difference is z(0.975) + z(power) standard
    errors away from it. Published scores get no further seeds.

    Args:
        x: scores of one agent.
        y: scores of the other.
        metric: one of `AGGREGATES`.
        ci: how runs are resampled.
        reps: repetitions.
        power: from 0.5, where the expected interval just touches 0, to below 1.

    Raises:
        UserError: if the tasks differ.
    """
    found = _compare(x, y, metric, ci, reps)
    if found.why_not:
        return Power(None, power, found.why_not)
    if found.difference().resolved:
        return Power(0, power, "")
    assert found.value is not None
    away = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) + NormalDist().inv_cdf(power)
    more = np.arange(MOST_SEEDS + 1)
    enough = abs(found.value) > away * np.sqrt(sum(part.variance(more) for part in found.parts)) + _ROUNDING
    if not enough.any():
        return Power(None, power, f"so small a difference needs more than {MOST_SEEDS:,} further seeds")
    return Power(int(np.argmax(enough)), power, "")


@dataclass(frozen=True)
class _Part:
    """What varies in a difference.

    Attributes:
        replicates: [reps].
        n_seeds: it varies with, on the task with the fewest; 0 for published scores, which get no more.
    """

    replicates: Floats
    n_seeds: int

    def variance(self, more: npt.NDArray[np.int64]) -> Floats:
        """With so many more seeds, [...]."""
        n, now = self.n_seeds, float(np.var(self.replicates))
        return now * n**2 / ((n - 1) * (n + more)) if n else np.full(more.shape, now)


@dataclass(frozen=True)
class _Comparison:
    """What a difference is made of.

    Attributes:
        parts: what varies, on its own: the two agents, the second's negated, or the difference of paired ones.
        why_not: why it cannot be resampled; empty if it can.
        note: what the interval rests on.
    """

    value: float | None
    n_runs: int
    parts: tuple[_Part, ...]
    why_not: str
    note: str = ""

    def difference(self) -> Difference:
        """The value with its interval."""
        if self.value is None or self.why_not:
            nothing = Estimate(self.value, None, None, self.n_runs, self.why_not)
            return Difference(nothing, resolved=False, paired=False)
        found = estimate(self.value, np.sum([part.replicates for part in self.parts], axis=0), self.n_runs, self.note)
        assert found.low is not None
        assert found.high is not None
        # Equal scores differ by a rounding error, which is no difference.
        resolved = found.low > _ROUNDING or found.high < -_ROUNDING
        return Difference(found, resolved=resolved, paired=len(self.parts) == 1)


def _compare(x: Scores, y: Scores, metric: str, ci: CiMethod, reps: int) -> _Comparison:
    check_same_tasks([x.tasks, y.tasks], [x.agent, y.agent])
    one, other = _side(x, metric, ci, reps), _side(y, metric, ci, reps)
    value = None if one.value is None or other.value is None else one.value - other.value
    n_runs = one.n_runs + other.n_runs
    why_not = "; ".join(f"{side.label}: {side.why_not}" for side in (one, other) if side.why_not)
    if why_not:
        return _Comparison(value, n_runs, (), why_not)
    paired = False
    if one.runs and other.runs:
        paired = _same_seeds(one.runs, other.runs)
        both = [one.runs, other.runs]
        draw = paired_draws(one.runs, other.runs, ci) if paired else draws(both, ci)
        drawn, subtracted = (found[metric] for found in metric_replicates(both, draw, reps, [metric]))
    else:
        drawn, subtracted = _replicates(one, metric, ci, reps), _replicates(other, metric, ci, reps)
    if paired:
        return _Comparison(value, n_runs, (_Part(drawn - subtracted, one.n_seeds),), "")
    note = "" if one.runs and other.runs else SIMULATED
    return _Comparison(value, n_runs, (_Part(drawn, one.n_seeds), _Part(-subtracted, other.n_seeds)), "", note)


def _same_seeds(x: Runs, y: Runs) -> bool:
    same = sorted(x.matrix.seeds) == sorted(y.matrix.seeds) and x.matrix.domains == y.matrix.domains
    return same and x.matrix.complete and y.matrix.complete


@dataclass(frozen=True)
class _Side:
    """One of the two agents.

    Attributes:
        n_seeds: on the task with the fewest; 0 for published scores.
        runs: None for published scores.
        simulation: replicates of published scores, [reps].
        why_not: why it has no interval; empty if it has.
    """

    label: str
    value: float | None
    n_runs: int
    n_seeds: int
    runs: Runs | None
    simulation: Floats | None
    why_not: str


def _side(scores: Scores, metric: str, ci: CiMethod, reps: int) -> _Side:
    if isinstance(scores, ScoreMatrix):
        runs = runs_of(scores)
        value = None if runs.why_no_value else point(metric, runs)
        why_not = runs.why_no_interval(clustered=clustered(scores, ci))
        return _Side(scores.agent, value, len(runs.values), min(runs.sizes), runs, None, why_not)
    why_not = why_not_simulated(scores, metric)
    simulation = None if why_not else simulated_replicates(scores, [metric], reps)[metric]
    value = simulated_value(scores, metric, simulation)
    return _Side(scores.label, value, int(scores.n_seeds.sum()), 0, None, simulation, why_not)


def _replicates(side: _Side, metric: str, ci: CiMethod, reps: int) -> Floats:
    if side.simulation is not None:
        return side.simulation
    assert side.runs is not None
    return metric_replicates([side.runs], draws([side.runs], ci), reps, [metric])[0][metric]
