"""How runs are drawn for the bootstrap: runs, never episodes.

* `stratified`: the runs of each task are drawn independently (as rliable does; Agarwal et al. 2021, "Deep RL at the
  Edge of the Statistical Precipice", section 4);
* `cluster`: the fine-tunings that share a pretraining, those of one domain and seed, are drawn together,
  which is wider where a lucky pretraining helps all tasks of its domain.

Every draw comes from a stream named after the suite, the preset, the agent and the task (or domain), so
neither other agents, nor the order of rows, nor any global random state changes an interval.

A resample is kept as how often it contains each run. That is all any statistic needs, and most become products of
matrices.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from urlbench.core.seeding import stream
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import Floats
from urlbench.statistics.runs import Runs

CiMethod = Literal["stratified", "cluster"]
Indices = npt.NDArray[np.int64]
Counts = npt.NDArray[np.signedinteger[Any]]
Draw = Callable[[int], list[list[Indices]]]
"""Draws a number of resamples: of each agent and task, the places of the runs drawn, [reps, runs of the task]."""

BOOTSTRAP_SEED = 0
_BLOCK_REPS = 1024
_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class LegacyStream:
    """rliable's own stream, for whoever must reproduce an interval that was made with it.

    rliable 1.2.0 draws each repetition with `numpy.random.choice`, so from NumPy's global legacy generator (MT19937),
    whatever `random_state` it is given: arch 7.2.0 keeps that argument for its own bootstraps, whose method of drawing
    rliable replaces. Hence two calls with one `random_state` differ there, and only `numpy.random.seed` repeats them.
    One repetition takes one draw for all runs and tasks; with two agents, the first's and then the second's.

    Attributes:
        state: as the global generator was before rliable was called; it moves on as rliable's would.
    """

    state: np.random.RandomState

    def draws(self, agents: Sequence[Runs]) -> Draw:
        """Draws as rliable makes them of one agent, or of a pair."""
        shapes = [agent.matrix.scores.shape for agent in agents]
        assert all(agent.matrix.complete for agent in agents), "rliable knows no missing runs"

        def draw(reps: int) -> list[list[Indices]]:
            if len(set(shapes)) == 1:
                together = self.state.randint(0, shapes[0][0], (reps, len(shapes), *shapes[0]))
                return [_by_task(together[:, number]) for number in range(len(shapes))]
            one_by_one = [[self.state.randint(0, shape[0], shape) for shape in shapes] for _ in range(reps)]
            return [_by_task(np.stack(of_agent)) for of_agent in zip(*one_by_one, strict=True)]

        return draw


def _by_task(drawn: Indices) -> list[Indices]:
    return [drawn[:, :, task] for task in range(drawn.shape[2])]


def clustered(matrix: ScoreMatrix, ci: CiMethod | LegacyStream) -> bool:
    """Whether runs of a domain and seed are drawn together; those that start from nothing share nothing."""
    return ci == "cluster" and matrix.pretrains


def draws(agents: Sequence[Runs], ci: CiMethod | LegacyStream) -> Draw:
    """Independent draws for each agent.

    The scores of one agent and configuration can be there twice, such as a stored baseline and its repetition; the
    second ones have streams of their own.
    """
    if isinstance(ci, LegacyStream):
        return ci.draws(agents)
    seen: Counter[tuple[str, ...]] = Counter()
    own = []
    for agent in agents:
        name = _identity(agent.matrix)
        again = (f"again {seen[name]}",) if seen[name] else ()
        seen[name] += 1
        own.append(_named_draws(agent, (*name, *again), together=clustered(agent.matrix, ci)))
    return lambda reps: [draw(reps) for draw in own]


def names_of_draws(agent: Runs) -> tuple[object, ...]:
    """All that `draws` of one agent depend on; scores for which it is equal have the same draws."""
    matrix = agent.matrix
    return *_identity(matrix), matrix.tasks, matrix.domains, matrix.pretrains, tuple(agent.sizes)


def paired_draws(x: Runs, y: Runs, ci: CiMethod) -> Draw:
    """The same seeds for both agents, which must have the same ones; swapping the agents changes nothing."""
    names = [part for name in sorted((_identity(x.matrix), _identity(y.matrix))) for part in name]
    draw = _named_draws(x, ("pair", *names), together=clustered(x.matrix, ci) or clustered(y.matrix, ci))

    def draw_both(reps: int) -> list[list[Indices]]:
        both = draw(reps)
        return [both, both]

    return draw_both


@dataclass(frozen=True)
class Resamples:
    """Resamples of the runs of one agent.

    Attributes:
        counts: how often each run was drawn, [runs, reps].
    """

    runs: Runs
    counts: Counts

    @cached_property
    def task_means(self) -> Floats:
        """Mean score on each task, [tasks, reps]."""
        means = [
            column @ self.counts[place] / len(column)
            for column, place in zip(self.runs.columns, self.runs.places, strict=True)
        ]
        return np.stack(means)

    @cached_property
    def cumulative(self) -> Counts:
        """How many drawn runs are among the lowest 1, 2, … scores, [runs, reps]."""
        drawn = self.counts[self.runs.order]
        # Row by row takes a fifth of the time of np.cumsum, which goes down the columns.
        for lower, row in pairwise(drawn):
            row += lower
        return drawn


def resamples(agents: Sequence[Runs], draw: Draw, reps: int) -> Iterator[list[Resamples]]:
    """Resamples of each agent, a block of repetitions after the other.

    Memory does not grow with `reps`; the size of blocks changes no draw.
    """
    for block in block_sizes(reps, sum(len(agent.values) for agent in agents)):
        yield [Resamples(agent, _counts(agent, drawn, block)) for agent, drawn in zip(agents, draw(block), strict=True)]


def block_sizes(reps: int, values: int) -> Iterator[int]:
    """Repetitions to do at once, `reps` in all, where each takes that many values."""
    while reps > 0:
        block = min(reps, _BLOCK_REPS, max(1, _BLOCK_VALUES // values))
        yield block
        reps -= block


def _counts(agent: Runs, drawn: Sequence[Indices], reps: int) -> Counts:
    n_runs = len(agent.values)
    counts = np.empty((n_runs, reps), np.int16 if n_runs < 1 << 15 else np.int32)
    by_draw: dict[int, Counts] = {}
    for place, index, size in zip(agent.places, drawn, agent.sizes, strict=True):
        # Tasks that are drawn together have one and the same array.
        if id(index) not in by_draw:
            bins = index * reps + np.arange(reps)[:, None]
            by_draw[id(index)] = np.bincount(bins.ravel(), minlength=size * reps).reshape(size, reps)
        counts[place] = by_draw[id(index)]
    return counts


def _identity(matrix: ScoreMatrix) -> tuple[str, ...]:
    return matrix.suite, matrix.preset, matrix.agent, matrix.config_hash


def _named_draws(agent: Runs, names: Sequence[str], *, together: bool) -> Callable[[int], list[Indices]]:
    """Draws from a stream for each task, or for each domain if its tasks are drawn together."""
    matrix = agent.matrix
    groups = [("domain", domain) for domain in matrix.domains] if together else [("task", t) for t in matrix.tasks]
    sizes = dict(zip(groups, agent.sizes, strict=True))
    streams = {group: stream(BOOTSTRAP_SEED, "bootstrap", *names, *group) for group in sizes}

    def draw(reps: int) -> list[Indices]:
        drawn = {group: one.integers(sizes[group], size=(reps, sizes[group])) for group, one in streams.items()}
        return [drawn[group] for group in groups]

    return draw
