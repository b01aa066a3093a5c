"""Probability of improvement: how likely a run of one agent beats a run of another on a task.

For each task it is the Mann-Whitney U statistic over the product of the numbers of runs, so the fraction of pairs of
runs that the first agent wins, ties counting half; over tasks, their mean.

Source: Agarwal et al. 2021, section 4; rliable's `probability_of_improvement`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.estimates import REPS, Estimate, Floats, estimate
from urlbench.statistics.resampling import CiMethod, LegacyStream, block_sizes, clustered, draws, resamples
from urlbench.statistics.runs import Runs, check_same_tasks, runs_of
from urlbench.statistics.simulation import SIMULATED, simulator, why_not_simulated

Pair = tuple[int, int]
_REPLICATES_AT_ONCE = 1 << 23


def probability_of_improvement(
    x: ScoreMatrix | SummaryScores,
    y: ScoreMatrix | SummaryScores,
    ci: CiMethod | LegacyStream = "stratified",
    reps: int = REPS,
) -> Estimate:
    """P(X > Y) with its interval; the runs of the two agents are drawn independently.

    Published scores are simulated, and the value is then the mean over the simulations.

    Args:
        x: scores of one agent.
        y: scores of the other, on the same tasks.
        ci: how runs are resampled.
        reps: repetitions.

    Raises:
        UserError: if the tasks differ.
    """
    check_same_tasks([x.tasks, y.tasks], [x.agent, y.agent])
    if isinstance(x, ScoreMatrix) and isinstance(y, ScoreMatrix):
        return _estimates([runs_of(x), runs_of(y)], [(0, 1)], ci, reps)[0]
    assert not isinstance(ci, LegacyStream), "rliable simulates nothing"
    return _simulated(x, y, ci, reps)


def probabilities_of_improvement(
    matrices: Mapping[str, ScoreMatrix], ci: CiMethod = "stratified", reps: int = REPS
) -> dict[tuple[str, str], Estimate]:
    """P(X > Y) of all ordered pairs of labels.

    Each is what `probability_of_improvement` gives, in less time: an agent is drawn once for all its pairs, and
    P(Y > X) = 1 - P(X > Y).
    """
    labels = list(matrices)
    check_same_tasks([matrix.tasks for matrix in matrices.values()], labels)
    pairs = list(combinations(range(len(labels)), 2))
    found = {}
    for (x, y), one in zip(
        pairs, _estimates([runs_of(matrix) for matrix in matrices.values()], pairs, ci, reps), strict=True
    ):
        found[labels[x], labels[y]] = one
        found[labels[y], labels[x]] = Estimate(_rest(one.value), _rest(one.high), _rest(one.low), one.n_runs, one.note)
    return {(x, y): found[x, y] for x in labels for y in labels if x != y}


def _rest(probability: float | None) -> float | None:
    return None if probability is None else 1 - probability


def _estimates(agents: Sequence[Runs], pairs: Sequence[Pair], ci: CiMethod | LegacyStream, reps: int) -> list[Estimate]:
    notes = [agent.why_no_interval(clustered=clustered(agent.matrix, ci)) for agent in agents]
    found = {}
    for x, y in pairs:
        note = "; ".join(f"{agents[one].matrix.agent}: {notes[one]}" for one in (x, y) if notes[one])
        value = None if agents[x].why_no_value or agents[y].why_no_value else _improvement(agents[x], agents[y])
        found[x, y] = Estimate(value, None, None, len(agents[x].values) + len(agents[y].values), note)
    resampled = [pair for pair in pairs if not found[pair].note]
    at_once = max(1, _REPLICATES_AT_ONCE // reps)
    for start in range(0, len(resampled), at_once):
        some = resampled[start : start + at_once]
        for pair, replicates in zip(some, _replicates(agents, some, ci, reps), strict=True):
            value = found[pair].value
            assert value is not None
            found[pair] = estimate(value, replicates, found[pair].n_runs)
    return [found[pair] for pair in pairs]


def _improvement(x: Runs, y: Runs) -> float:
    return float(np.mean([_wins(*columns).mean() for columns in zip(x.columns, y.columns, strict=True)]))


def _wins(x: Floats, y: Floats) -> Floats:
    """1 where x [..., X] is larger than y [..., Y], 1/2 where they are equal, else 0: [..., X, Y]."""
    one, other = x[..., :, None], y[..., None, :]
    return (one > other) + 0.5 * (one == other)


def _replicates(agents: Sequence[Runs], pairs: Sequence[Pair], ci: CiMethod | LegacyStream, reps: int) -> Floats:
    """Replicates of the pairs, [pairs, reps]."""
    used = sorted({one for pair in pairs for one in pair})
    drawn = [agents[one] for one in used]
    found, done = np.empty((len(pairs), reps)), 0
    for block in resamples(drawn, draws(drawn, ci), reps):
        counts = {one: some.counts.astype(np.float64) for one, some in zip(used, block, strict=True)}
        until = done + block[0].counts.shape[1]
        for row, (x, y) in zip(found, pairs, strict=True):
            row[done:until] = _improvement_of_counts(agents[x], counts[x], agents[y], counts[y])
        done = until
    return found


def _improvement_of_counts(x: Runs, x_counts: Floats, y: Runs, y_counts: Floats) -> Floats:
    """P(X > Y) in each resample, [reps], from how often each run of x and y is in it, [runs, reps]."""
    total = np.zeros(x_counts.shape[1])
    for x_place, y_place in zip(x.places, y.places, strict=True):
        wins = _wins(x.values[x_place], y.values[y_place])
        total += np.einsum("xr,xr->r", wins @ y_counts[y_place], x_counts[x_place]) / wins.size
    return total / len(x.columns)


def _simulated(x: ScoreMatrix | SummaryScores, y: ScoreMatrix | SummaryScores, ci: CiMethod, reps: int) -> Estimate:
    sides = [_Side.of(x, ci), _Side.of(y, ci)]
    n_runs = sum(side.n_runs for side in sides)
    note = "; ".join(f"{side.label}: {side.why_no_value}" for side in sides if side.why_no_value)
    if note:
        return Estimate(None, None, None, n_runs, note)
    parts = []
    for block in block_sizes(reps, n_runs * max(side.n_runs for side in sides)):
        wins = [
            _wins(*samples).mean(axis=(1, 2)) for samples in zip(*(side.draw(block) for side in sides), strict=True)
        ]
        parts.append(np.mean(wins, axis=0))
    replicates = np.concatenate(parts)
    value = float(replicates.mean())
    note = "; ".join(f"{side.label}: {side.why_no_interval}" for side in sides if side.why_no_interval)
    return Estimate(value, None, None, n_runs, note) if note else estimate(value, replicates, n_runs, SIMULATED)


@dataclass(frozen=True)
class _Side:
    """One of two agents, from whose scores runs can be drawn.

    Attributes:
        draw: draws a number of repetitions: of each task, scores [reps, runs].
    """

    label: str
    n_runs: int
    why_no_value: str
    why_no_interval: str
    draw: Callable[[int], list[Floats]]

    @classmethod
    def of(cls, scores: ScoreMatrix | SummaryScores, ci: CiMethod) -> "_Side":
        if isinstance(scores, SummaryScores):
            n_runs = int(scores.n_seeds.sum())
            # Runs must be drawn here, as they are for the IQM.
            return cls(scores.label, n_runs, why_not_simulated(scores, "IQM"), "", simulator(scores))
        runs = runs_of(scores)
        draw = draws([runs], ci)
        why_no_interval = runs.why_no_interval(clustered=clustered(scores, ci))
        return cls(
            scores.agent,
            len(runs.values),
            runs.why_no_value,
            why_no_interval,
            lambda reps: [column[index] for column, index in zip(runs.columns, draw(reps)[0], strict=True)],
        )
