"""Run directories: the files of one run, and the only truth about it.

Everything that counts is written to a temporary file, synced and renamed, or appended as whole lines of JSON and
synced, so a process may be killed at any moment. One process at a time writes into a run directory: it holds the
lock. `DONE` is written last; checkpoint and replay are removed after it, since nothing reads them any more.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from urlbench.core.durable import append_jsonl, explained, read_jsonl, write_atomic
from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json, differences, job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.types import Phase, Spec
from urlbench.runs.budgets import Unit, budget_of, budget_unit

__all__ = [
    "RunDirectory",
    "RunState",
    "RunStore",
    "Status",
    "append_jsonl",
    "read_jsonl",
    "write_atomic",
]

RunState = Literal["queued", "running", "stale", "done", "interrupted", "failed"]
SPEC_FORMAT = 2
"""Of spec.json. Since 2 a pretraining's identity holds no setting that it does not read (urlbench 0.1 wrote none)."""
_LOCK_ATTEMPTS = 10
_LOCK_PAUSE_SECONDS = 0.05


class Status(Spec):
    """What status.json says about a run, for people and the live display; never the truth about results.

    Attributes:
        state: `stale` is never written: it is a `running` whose process is gone.
        progress: done of `budget`, both in `unit`.
        per_second: progress over the last half minute, evaluations included; None before there is a measurement.
        updated: unix time.
        attempt: number of the start, from 1.
        message: why it failed or stopped.
    """

    state: RunState
    phase: Phase
    progress: int = 0
    budget: int = 0
    unit: Unit = "frames"
    per_second: float | None = None
    updated: float = 0.0
    attempt: int = 0
    pid: int | None = None
    host: str | None = None
    message: str = ""


class OtherVersionError(UserError):
    """A run directory that another version of urlbench made."""


class RunDirectory:
    """The files of one run.

    Attributes:
        path: the folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.spec_file = self.path / "spec.json"
        self.manifest_file = self.path / "manifest.json"
        self.status_file = self.path / "status.json"
        self.attempts_file = self.path / "attempts.jsonl"
        self.train_file = self.path / "train.jsonl"
        self.eval_file = self.path / "eval.jsonl"
        self.log_file = self.path / "log.txt"
        self.lock_file = self.path / "lock"
        self.done_file = self.path / "DONE"
        self.checkpoints = self.path / "checkpoint"
        self.snapshots = self.path / "snapshots"
        self.replay = self.path / "replay"
        self.episodes = self.path / "episodes"  # kept where the spec says so
        self.episodes_file = self.path / "episodes.json"

    # --- identity ---

    def prepare(
        self,
        job: Job,
        remedy: str = "add --rerun stale to move it aside and run anew, or choose another folder with --runs",
    ) -> None:
        """Create the folder with spec.json and a status `queued`, or find this job in it.

        Args:
            job: whose folder it is; where its data set lies may have changed.
            remedy: what to do if the folder belongs to another job, for the message.

        Raises:
            UserError: if the folder belongs to another job (naming the fields that differ), was made by another
                version of urlbench or cannot be written.
        """
        wanted = {
            "format": SPEC_FORMAT,
            "id": job.id,
            "spec": job.spec.model_dump(mode="json"),
            "plugins": list(job.plugins),
            "parent_path": job.parent_path,
            "data_path": job.data_path,
        }
        if self.spec_file.exists():
            stored = self.read_spec()
            if stored["id"] != job.id:
                fields = ", ".join(differences(stored["spec"], wanted["spec"])) or "its id"
                raise UserError(f"{self.path} belongs to another run, which differs in {fields}; {remedy}.")
            if stored.get("data_path") != job.data_path:
                write_atomic(self.spec_file, canonical_json({**stored, "data_path": job.data_path}) + "\n")
            return
        if any(path.exists() for path in (self.done_file, self.eval_file, self.snapshots, self.checkpoints)):
            raise UserError(f"{self.path} holds a run whose spec.json is gone; restore it, or move the folder away.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, self.path) from error
        self.write_status(queued_status(job.spec))
        write_atomic(self.spec_file, canonical_json(wanted) + "\n")

    def read_job(self, root: Path) -> Job:
        """The job of this folder, its path taken relative to `root`.

        Raises:
            UserError: if spec.json is missing, damaged, of another version or was edited, or if the folder is not
                below `root`.
        """
        stored = self.read_spec()
        try:
            spec = JobSpec.model_validate(stored["spec"])
        except ValidationError as error:
            where = ".".join(map(str, error.errors()[0]["loc"]))
            raise UserError(f"{self.spec_file} is not of this version of urlbench: {where} does not fit.") from error
        if job_id(spec) != stored["id"]:
            raise UserError(f"{self.spec_file} was edited: its id does not fit its content; restore or remove it.")
        path = self.path.resolve()
        if not path.is_relative_to(root.resolve()):
            raise UserError(f"{self.path} does not lie below the runs folder {root}; give the right one with --runs.")
        return Job(
            id=stored["id"],
            path=path.relative_to(root.resolve()).as_posix(),
            spec=spec,
            parent_path=stored.get("parent_path"),
            plugins=tuple(stored.get("plugins", ())),
            data_path=stored.get("data_path"),
        )

    def read_spec(self) -> dict[str, Any]:
        """What spec.json holds; UserError if it is missing, damaged or was written by another version of urlbench."""
        try:
            stored = json.loads(self.spec_file.read_text(encoding="utf-8"))
            if not isinstance(stored, dict) or not {"id", "spec"} <= stored.keys():
                raise ValueError("id or spec is missing")
        except (OSError, ValueError) as error:
            raise UserError(f"{self.spec_file} cannot be read ({error}); restore it or remove the folder.") from error
        if stored.get("format") != SPEC_FORMAT:
            raise OtherVersionError(
                f"{self.path} was made by {'another version of urlbench' if 'format' in stored else 'urlbench 0.1'}, "
                "which identified runs differently; report or freeze its results with that version, and run anew in "
                "another folder with --runs, or here with --rerun stale, which moves it aside."
            )
        return stored

    # --- lock ---

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the one process that writes here.

        Raises:
            UserError: if another process is, or if the folder cannot be written.
        """
        try:
            file = self.lock_file.open("a+")
        except OSError as error:
            raise explained(error, self.lock_file) from error
        with file:
            # Whoever looks whether the lock is free holds it for a moment: try for half a second.
            for attempt in range(_LOCK_ATTEMPTS):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if attempt == _LOCK_ATTEMPTS - 1:
                        file.seek(0)
                        holder = file.read().strip() or "another process"
                        raise UserError(
                            f"{self.path} is being run by {holder}; wait for it or stop it before starting it again."
                        ) from error
                    time.sleep(_LOCK_PAUSE_SECONDS)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def is_locked(self) -> bool:
        """True while a process holds the lock."""
        try:
            file = self.lock_file.open("r")
        except FileNotFoundError:
            return False
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    # --- status ---

    def write_status(self, status: Status) -> None:
        """Replace status.json, stamped with the present time."""
        stamped = status.model_copy(update={"updated": time.time()})
        write_atomic(self.status_file, stamped.model_dump_json() + "\n")

    def read_status(self) -> Status | None:
        """How the run stands; None if nothing was prepared here.

        `done` if DONE is there, and `stale` if it should be running and no process holds the lock.
        """
        if not self.spec_file.exists():
            return None
        try:
            status = Status.model_validate_json(self.status_file.read_bytes())
        except (OSError, ValidationError):
            phase = self.read_spec()["spec"]["phase"]
            status = Status(state="stale", phase=phase, message="status.json is missing or damaged")
            if self.is_locked():
                status = status.model_copy(update={"state": "running"})
        if self.done_file.exists():
            return status.model_copy(update={"state": "done", "progress": status.budget, "message": ""})
        if status.state == "running" and not self.is_locked():
            return status.model_copy(update={"state": "stale", "message": "its process is gone"})
        return status

    # --- attempts ---

    def begin_attempt(self, progress: int, notes: Sequence[str] = ()) -> int:
        """Note a start from `progress`, in the unit of the status; the number of the start.

        Also that the one before ended without a word, if it did.
        """
        self._drop_unfinished_line(self.attempts_file)
        rows = read_jsonl(self.attempts_file)
        last = max((row["attempt"] for row in rows), default=0)
        if last and not any(row["attempt"] == last and "ended" in row for row in rows):
            reason = "ended without a word: it was killed, or the machine went down"
            append_jsonl(self.attempts_file, {"attempt": last, "ended": None, "reason": reason})
        row: dict[str, Any] = {"attempt": last + 1, "started": time.time(), "from_progress": progress}
        row |= {"pid": os.getpid(), "host": socket.gethostname()}
        append_jsonl(self.attempts_file, row | ({"notes": list(notes)} if notes else {}))
        return last + 1

    def end_attempt(self, attempt: int, reason: str) -> None:
        """Note how a start ended."""
        append_jsonl(self.attempts_file, {"attempt": attempt, "ended": time.time(), "reason": reason})

    @staticmethod
    def _drop_unfinished_line(path: Path) -> None:
        # A power cut in the middle of an append; the line was not synced, so nothing relied on it.
        if path.exists() and not (content := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)

    # --- results ---

    def lengths(self) -> dict[str, int]:
        """Bytes of train.jsonl and eval.jsonl, for the checkpoint."""
        files = (self.train_file, self.eval_file)
        return {file.name: file.stat().st_size if file.exists() else 0 for file in files}

    def check_lengths(self, lengths: Mapping[str, int]) -> None:
        """UserError if a file is shorter than `lengths` says it was."""
        for name, expected in lengths.items():
            actual = self.lengths()[name]
            if actual < expected:
                raise UserError(f"{self.path / name} is truncated: it has {actual} bytes, and had {expected}")

    def cut_back(self, lengths: Mapping[str, int]) -> None:
        """Drop the lines that were written after a checkpoint; creates the files if there are none."""
        self.check_lengths(lengths)
        for name, length in lengths.items():
            try:
                with (self.path / name).open("ab") as file:
                    file.truncate(length)
                    os.fsync(file.fileno())
            except OSError as error:
                raise explained(error, self.path / name) from error

    def finish(self, progress: int, unit: Unit = "frames") -> None:
        """Write DONE: from here on the run counts and is never run again."""
        done = {"sha256": _digest(self.eval_file), unit: progress, "finished": datetime.now(UTC).isoformat()}
        if self.episodes_file.exists():
            done["episodes_sha256"] = _digest(self.episodes_file)
        write_atomic(self.done_file, json.dumps(done) + "\n")

    def is_done(self) -> bool:
        """True if the run ended and eval.jsonl and the list of kept episodes are as they were then.

        Raises:
            UserError: naming the file, if one of these or DONE were changed since.
        """
        if not self.done_file.exists():
            return False
        try:
            done = json.loads(self.done_file.read_text(encoding="utf-8"))
            expected = {self.eval_file: done["sha256"]}
            if "episodes_sha256" in done:
                expected[self.episodes_file] = done["episodes_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{self.done_file} cannot be read ({error}); remove the run directory to run it again."
            ) from error
        for file, digest in expected.items():
            if digest != _digest(file):
                raise UserError(
                    f"{file} was changed after the run ended: its SHA-256 is not the one in DONE; "
                    "restore the file, or remove the run directory to run it again."
                )
        return True

    def remove_working_files(self) -> None:
        """Delete checkpoint and replay of a run that is done; snapshots and kept episodes stay."""
        for folder in (self.checkpoints, self.replay):
            shutil.rmtree(folder, ignore_errors=True)

    def remove_progress(self) -> None:
        """Delete what an attempt without a usable checkpoint left, before the run starts from nothing."""
        for folder in (self.checkpoints, self.replay, self.episodes, self.snapshots):
            if folder.exists():
                shutil.rmtree(folder)
        self.cut_back({self.train_file.name: 0, self.eval_file.name: 0})


class RunStore:
    """All run directories below one folder.

    Attributes:
        root: the folder; `Job.path` and `Job.parent_path` are relative to it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def run_dir(self, job: Job) -> RunDirectory:
        """The run directory of a job."""
        return RunDirectory(self.root / job.path)

    def directories(self) -> Iterator[RunDirectory]:
        """All folders with a spec.json, sorted by path."""
        for folder in sorted(_folders_with_spec(self.root)):
            yield RunDirectory(folder)


def _folders_with_spec(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if "spec.json" in files:
            subfolders.clear()
            yield Path(folder)


def queued_status(spec: JobSpec) -> Status:
    """The status of a job that nothing has started yet."""
    return Status(state="queued", phase=spec.phase, budget=budget_of(spec), unit=budget_unit(spec))


def _digest(file: Path) -> str:
    """The SHA-256 of a file; one that is not there counts as empty."""
    return hashlib.sha256(file.read_bytes() if file.exists() else b"").hexdigest()
