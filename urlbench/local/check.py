"""What a doctor finds, here or on a node of a cluster."""

from collections.abc import Callable
from typing import Literal

from urlbench.core.types import Spec


class Check(Spec):
    """One line of a doctor's report.

    Attributes:
        result: `warning` does not keep urlbench from running.
        detail: what was found, and what to do about it if it is not right.
    """

    name: str
    result: Literal["ok", "warning", "failed"]
    detail: str

    def __str__(self) -> str:
        return f"{self.result:<8} {self.name}: {self.detail}"


def made(name: str, check: Callable[[], Check]) -> Check:
    """The result of a check, whatever happens."""
    try:
        return check()
    except Exception as error:  # a broken installation can raise anything, and that is the finding
        return Check(name=name, result="failed", detail=f"{type(error).__name__}: {error}")
