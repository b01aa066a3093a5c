"""The published scores that urlbench carries: what papers, their repositories and discussions say, one row a number.

Nothing is filled in: a number that could not be read in a source is absent. The files lie in `published/`; their hashes
are here, so that a changed number is noticed.
"""

import csv
import hashlib
import io
from functools import cache
from importlib import resources
from typing import Literal, NamedTuple, TypeVar

from pydantic import Field, field_validator

from urlbench.core.errors import UserError
from urlbench.core.types import Spec

Row = TypeVar("Row", bound=Spec)
SpreadType = Literal["stderr", "std", "none"]
HASHES = {
    "scores.csv": "8049a5691df121dfca5acd37fd99ce15022600b67a7374b9a1046bedc78216bb",
    "aggregates.csv": "0d1d8c9cb6c627fca4193cb44d41e3a6ca50b259fbdd6d41d2f0da408da60645",
    "normalization.csv": "2efa8b890506c8ed1a43424ae5ccd859b38c353f38e1ec92d908530c8948a9d4",
    "derived_means.csv": "9f766151373edb6557fd167e6cfddfadd286ed28866be395eec23f46a252ad41",
    "sources.csv": "ca8fd5be91a20c43a26c963e704959f85140fd39f0d753f5715f787eb06be9d7",
}


class Source(Spec):
    """One publication.

    Attributes:
        id: as the collections name it.
        commit_or_index_id: of the version that was read, where there is one.
        reliability: how far to trust it, and why.
    """

    id: str
    what: str
    where_read: str
    commit_or_index_id: str
    reliability: str


class PublishedScore(Spec):
    """The score of one agent on one task.

    Attributes:
        suite: `urlb-states`, `sparse-jaco`, or `others` for protocols that are no suite of ours.
        value: mean return, or the fraction of runs that found the goal in `sparse-jaco`.
        spread_type: standard error of the mean, standard deviation over seeds, or none given.
        n_seeds: None where the source does not say.
        source: publication and table.
    """

    suite: str
    agent: str
    domain: str
    task: str
    pretrain_frames: int
    finetune_frames: int
    statistic: Literal["mean"]
    value: float = Field(allow_inf_nan=False)
    spread_type: SpreadType
    spread: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    n_seeds: int | None = Field(default=None, gt=0)
    source: str
    notes: str

    @field_validator("spread", "n_seeds", mode="before")
    @classmethod
    def _blank_is_none(cls, value: object) -> object:
        return None if value == "" else value

    @property
    def full_task(self) -> str:
        """The task as suites name it: `walker_flip`."""
        return f"{self.domain}_{self.task}"

    @property
    def standard_error(self) -> float | None:
        """Of the mean; None without a spread, and for a standard deviation over an unknown number of seeds."""
        if self.spread_type == "std":
            return self.spread / self.n_seeds**0.5 if self.spread is not None and self.n_seeds else None
        return self.spread


class PublishedAggregate(Spec):
    """A score over several tasks, as the source printed or drew it.

    Attributes:
        metric: `iqm`, `median`, `mean`, `optimality_gap`, or what else the source reports.
        value: as text, since one source gives a range.
        value_kind: whether it stands in a table or a text, or was measured on a figure.
    """

    suite: str
    agent: str
    metric: str
    value: str
    ci_low: str
    ci_high: str
    value_kind: str
    n_tasks: str
    n_seeds: str
    pretrain_frames: int
    finetune_frames: int
    source: str
    notes: str


class Normalisation(Spec):
    """A return to compare with: of an expert, which scores are divided by, or of random actions, for information."""

    suite: str
    domain: str
    task: str
    kind: Literal["expert", "random"]
    value: float
    source: str
    notes: str

    @property
    def full_task(self) -> str:
        """The task as suites name it: `walker_flip`."""
        return f"{self.domain}_{self.task}"


class DerivedMean(Spec):
    """The mean normalised score over the tasks of a table, worked out from its means by normal theory.

    Attributes:
        optimality_gap_lower_bound: 1 - mean over tasks of min(score, 1); runs above the expert hide in a mean.
    """

    suite: str
    agent: str
    from_source: str
    n_tasks: int
    mean_normalised: float
    stderr_normal_approx: float
    ci95_low: float
    ci95_high: float
    optimality_gap_lower_bound: float


class Published(NamedTuple):
    """All the files, row by row in their order."""

    scores: tuple[PublishedScore, ...]
    aggregates: tuple[PublishedAggregate, ...]
    normalisation: tuple[Normalisation, ...]
    derived: tuple[DerivedMean, ...]
    sources: tuple[Source, ...]


@cache
def published() -> Published:
    """What urlbench carries; read once.

    Raises:
        UserError: if a file is not the one that urlbench was released with.
    """
    return Published(
        scores=_read("scores.csv", PublishedScore),
        aggregates=_read("aggregates.csv", PublishedAggregate),
        normalisation=_read("normalization.csv", Normalisation),
        derived=_read("derived_means.csv", DerivedMean),
        sources=_read("sources.csv", Source),
    )


def changed_files() -> list[str]:
    """The files of `HASHES` that are not the ones urlbench was released with."""
    return [name for name, expected in HASHES.items() if hashlib.sha256(_content(name)).hexdigest() != expected]


def _content(name: str) -> bytes:
    try:
        return resources.files(__package__).joinpath("published", name).read_bytes()
    except OSError:
        return b""


def _read(name: str, row: type[Row]) -> tuple[Row, ...]:
    content = _content(name)
    if hashlib.sha256(content).hexdigest() != HASHES[name]:
        raise UserError(f"the published scores in {name} are missing or were changed; install urlbench again.")
    return tuple(row.model_validate(values) for values in csv.DictReader(io.StringIO(content.decode(), newline="")))
