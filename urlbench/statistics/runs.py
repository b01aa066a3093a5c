"""The scores of one agent that exist, in an order that does not depend on how they were listed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from urlbench.core.errors import UserError
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import Floats


@dataclass(frozen=True)
class Runs:
    """The scores of one agent, missing cells left out.

    Attributes:
        matrix: where they are from.
        columns: the scores on each task, [runs of the task], by seed.
    """

    matrix: ScoreMatrix
    columns: tuple[Floats, ...]

    @cached_property
    def values(self) -> Floats:
        """All scores, [runs], task by task."""
        return np.concatenate(self.columns)

    @cached_property
    def order(self) -> npt.NDArray[np.intp]:
        """Places in `values` from the lowest score to the highest, [runs]."""
        return np.argsort(self.values, kind="stable")

    @property
    def sizes(self) -> list[int]:
        """Number of runs on each task."""
        return [len(column) for column in self.columns]

    @property
    def places(self) -> list[slice]:
        """Where in `values` each task's runs are."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]

    @property
    def why_no_value(self) -> str:
        """Why no statistic over all tasks can be had: what is left would be of other tasks. Empty if it can."""
        empty = [task for task, size in zip(self.matrix.tasks, self.sizes, strict=True) if not size]
        return f"no run on {', '.join(empty)}" if empty else ""

    def why_no_interval(self, *, clustered: bool) -> str:
        """Why runs cannot be resampled; empty if they can.

        Args:
            clustered: whether those of a domain and seed are to be drawn together.
        """
        if self.why_no_value:
            return self.why_no_value
        if min(self.sizes) < 2:
            return "one run per task: no interval" if max(self.sizes) == 1 else "a task with a single run: no interval"
        if clustered and not self.matrix.complete:
            return "missing runs: no cluster interval"
        return ""


def runs_of(matrix: ScoreMatrix) -> Runs:
    """The scores of a matrix that exist.

    Raises:
        UserError: if a seed is there twice, which would count it twice, or a score is infinite.
    """
    scores = matrix.scores
    assert scores.shape == (len(matrix.seeds), len(matrix.tasks)), f"{scores.shape} is not seeds x tasks"
    twice = [seed for seed, count in Counter(matrix.seeds).items() if count > 1]
    if twice:
        raise UserError(f"seed {twice[0]} of {matrix.agent} occurs twice, so it would count twice; keep one of the two")
    infinite = [task for task, column in zip(matrix.tasks, scores.T, strict=True) if np.isinf(column).any()]
    if infinite:
        raise UserError(f"{matrix.agent} has an infinite score on {', '.join(infinite)}; repair or leave out that run")
    scores = scores[np.argsort(matrix.seeds)]
    return Runs(matrix, tuple(column[~np.isnan(column)] for column in scores.T))


def check_same_tasks(tasks: Sequence[tuple[str, ...]], agents: Sequence[str]) -> None:
    """Refuse to compare agents on different tasks.

    Raises:
        UserError: if an agent's tasks are not the first one's, in the same order.
    """
    for agent, own in zip(agents, tasks, strict=True):
        if own != tasks[0]:
            raise UserError(
                f"{agents[0]} and {agent} cannot be compared: their tasks are {', '.join(tasks[0])} and "
                f"{', '.join(own)}; select the tasks that both have"
            )
