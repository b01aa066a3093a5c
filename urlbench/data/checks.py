"""Outcomes of checks of a data set."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from urlbench.core.interfaces import Array
from urlbench.core.types import Spec

_SHOWN_PROBLEMS = 5


class DataCheck(Spec):
    """One thing that was looked at.

    Attributes:
        detail: how much was looked at and the largest difference, or what is wrong.
    """

    name: str
    result: Literal["ok", "failed", "skipped"]
    detail: str


class Largest:
    """The largest difference so far, where it is, and how many there were."""

    def __init__(self) -> None:
        self.value, self.where, self.checked = 0.0, "", 0

    def update(self, differences: Array, name: str, first_row: int = 0) -> None:
        """Take in the differences [T] of consecutive rows of the episode `name`, from `first_row` on."""
        self.checked += len(differences)
        row = int(np.argmax(differences))
        # A difference that is NaN is larger than any.
        if not float(differences[row]) <= self.value:
            self.value, self.where = float(differences[row]), f" in {name} row {row + first_row}"

    def check(self, name: str, tolerance: float, what: str) -> DataCheck:
        """The outcome for differences that may be up to `tolerance`."""
        detail = f"{self.checked} {what}: largest difference {self.value:.2g}{self.where}, allowed {tolerance:g}"
        return DataCheck(name=name, result="ok" if self.value <= tolerance else "failed", detail=detail)


def problem_check(name: str, problems: Sequence[str], fine: str) -> DataCheck:
    """The outcome of a check that gathers problems; `fine` is the detail if there are none."""
    if not problems:
        return DataCheck(name=name, result="ok", detail=fine)
    more = len(problems) - _SHOWN_PROBLEMS
    text = "; ".join([*problems[:_SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])])
    return DataCheck(name=name, result="failed", detail=text)
