"""What was submitted: one file for each array, written before Slurm hears of it.

An array's name is the name of its jobs in Slurm. So an array whose submitting command was killed at any moment is
found again, by its record and one look at the queue.
"""

import fcntl
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from urlbench.core.durable import explained, write_atomic
from urlbench.core.errors import UserError
from urlbench.core.types import Phase, Spec
from urlbench.slurm.grouping import ArrayPlan, Place
from urlbench.slurm.profile import Profile

NAME_PREFIX = "urlbench-"


class ArrayRecord(Spec):
    """One array.

    Attributes:
        name: of its jobs in Slurm.
        elements: for each index the run directories of its runs, relative to the runs folder; empty where the array
            has no element.
        dependency: in the words of sbatch; None if it waits for nothing.
        profile: as it was at the submission.
        code: digest of the copy of urlbench that its jobs run.
        plugins: SHA-256 of each plugin that is a file.
        submitted: unix time.
        slurm_id: the array's job id; None until sbatch has answered.
    """

    name: str
    phase: Phase
    elements: tuple[tuple[str, ...], ...]
    dependency: str | None
    profile: Profile
    code: str
    plugins: dict[str, str]
    submitted: float
    slurm_id: str | None = None

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the elements that there are."""
        return tuple(index for index, paths in enumerate(self.elements) if paths)

    @property
    def is_array(self) -> bool:
        """False for a single element with index 0, which is submitted as a plain job."""
        return len(self.elements) > 1

    def job_id(self, index: int) -> str:
        """Slurm's name for an element: `1234_5`, or `1234` for a plain job."""
        assert self.slurm_id is not None, f"{self.name} has no job id"
        return f"{self.slurm_id}_{index}" if self.is_array else self.slurm_id


class Records:
    """The records of a runs folder, in the order of their submission.

    Args:
        root: folder of all runs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".slurm"

    def array_folder(self, name: str) -> Path:
        """Where an array's files are."""
        return self.folder / name

    def log_folder(self, name: str) -> Path:
        """Where submitit keeps what its jobs need and write."""
        return self.array_folder(name) / "log"

    def element_log(self, record: ArrayRecord, index: int) -> Path:
        """What an element wrote outside its runs' logs."""
        return self.log_folder(record.name) / f"{record.job_id(index)}_0_log.out"

    def logs(self, known: list[ArrayRecord]) -> dict[str, Path]:
        """The log of the element that last held a run, by the run's path; of arrays that Slurm has given an id."""
        places = latest_places([record for record in known if record.slurm_id is not None])
        return {path: self.element_log(record, place.element) for path, (record, place) in places.items()}

    def write(self, record: ArrayRecord) -> None:
        """Add or replace a record; UserError if that is impossible."""
        folder = self.array_folder(record.name)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, folder, "run the same command again") from error
        content = record.model_dump_json(indent=2) + "\n"
        write_atomic(folder / "array.json", content, remedy="run the same command again")

    def remove(self, name: str) -> None:
        """Forget an array that Slurm refused."""
        shutil.rmtree(self.array_folder(name), ignore_errors=True)

    def read(self, name: str) -> ArrayRecord:
        """The record of that name; UserError if it cannot be read."""
        file = self.array_folder(name) / "array.json"
        try:
            return ArrayRecord.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(
                f"{file} cannot be read; cancel its jobs with scancel --name={name} and remove {file.parent}, "
                "then run the same command again."
            ) from error

    def all(self) -> list[ArrayRecord]:
        """All records, oldest first; UserError names one that cannot be read."""
        names = [file.parent.name for file in self.folder.glob(f"{NAME_PREFIX}*/array.json")]
        return sorted((self.read(name) for name in names), key=lambda record: (record.submitted, record.name))

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one command that submits or cancels; waits for others."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = (self.folder / "lock").open("a")
        except OSError as error:
            raise explained(error, self.folder, "run the same command again") from error
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def record_of(
    plan: ArrayPlan, dependency: str | None, profile: Profile, code: str, plugins: dict[str, str]
) -> ArrayRecord:
    """The record of an array that is about to be submitted."""
    return ArrayRecord(
        name=plan.name,
        phase=plan.phase,
        elements=tuple(tuple(job.path for job in pack) for pack in plan.packs),
        dependency=dependency,
        profile=profile,
        code=code,
        plugins=plugins,
        submitted=time.time(),
    )


def new_names() -> Iterator[str]:
    """Names for arrays that no other array has, on this cluster or elsewhere."""
    while True:
        yield NAME_PREFIX + secrets.token_hex(5)


def latest_places(records: list[ArrayRecord]) -> dict[str, tuple[ArrayRecord, Place]]:
    """For every run that was ever submitted, by its path, where it was last."""
    return {
        path: (record, Place(record.name, index))
        for record in records
        for index, paths in enumerate(record.elements)
        for path in paths
    }
