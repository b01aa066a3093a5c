"""What can be wrong with results, in the words that `validate` uses."""

from typing import Literal

from urlbench.core.types import Spec

ProblemKind = Literal[
    "missing",
    "unfinished",
    "failed",
    "unreadable",
    "truncated",
    "nan",
    "hash",
    "frames",
    "episodes",
    "found",
    "outcome",
    "duplicate",
    "misplaced",
    "preset",
    "protocol",
    "versions",
    "data",
]
CONFLICTS: frozenset[ProblemKind] = frozenset({"duplicate", "misplaced", "preset", "protocol", "versions", "data"})
Fault = tuple[ProblemKind, str]
"""One thing wrong with a file, and the sentence about it."""


class Problem(Spec):
    """One reason why results cannot be used as they are.

    Attributes:
        kind: what is wrong.
        agent: label of the agent; task, seed and goal set name the cell with it, where there is one.
        path: the run directory or file, relative to the runs root.
        message: one sentence for people; names the cell or the file.
        command: the command that fills the cell, after what `message` says was done.
    """

    kind: ProblemKind
    message: str
    agent: str | None = None
    task: str | None = None
    seed: int | None = None
    goal_set: int | None = None
    path: str | None = None
    command: str | None = None

    @property
    def is_conflict(self) -> bool:
        """True if runs contradict each other: no partial report can be made, either."""
        return self.kind in CONFLICTS

    def __str__(self) -> str:
        return self.message + (f"\n    {self.command}" if self.command else "")
