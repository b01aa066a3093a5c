"""What Slurm says about our jobs: one call of squeue, and where that is silent, one of sacct."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from urlbench.core.errors import UserError
from urlbench.slurm.environment import without_options
from urlbench.slurm.grouping import Place
from urlbench.slurm.records import NAME_PREFIX, ArrayRecord, Records, latest_places

_FORMAT = "%F|%K|%T|%r|%j"
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?::(\d+))?)?")
_SECONDS = 60
# Else expressions for the elements of an array end with "..." after 64 characters.
_WHOLE_ANSWERS = {"SLURM_BITSTR_LEN": "0"}
# What jobs wait for that are to start, by their state and, of those that are just PENDING, by Slurm's reason.
_RELEASE = "to let it start: scontrol release JOB"
_WAITING_STATES = {
    "CONFIGURING": "waits until its node is ready",
    "POWER_UP_NODE": "waits until its node is ready",
    "REQUEUED": "waits to be started again",
    "REQUEUE_FED": "waits to be started again",
    "REQUEUE_HOLD": f"is held after a start; {_RELEASE}",
    "SPECIAL_EXIT": f"is held after a start; {_RELEASE}",
    "RESV_DEL_HOLD": f"is held, as its reservation was deleted; {_RELEASE}",
}
_REASONS = {
    "Dependency": "waits for its pretraining",
    "JobArrayTaskLimit": "waits for others of its array (array_parallelism)",
    "Resources": "waits for free resources",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "waits to be started again",
    "DependencyNeverSatisfied": "its pretraining has failed or was cancelled",
    "JobHeldUser": f"is held by its user; {_RELEASE}",
    "JobHeldAdmin": "is held by an administrator, who has to release it",
    "None": "waits until the scheduler looks at it",
}
# How jobs end. Accounting that is late still has other states of jobs that have left the queue.
_ENDS = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("PREEMPTED", "RECONFIG_FAIL", "TIMEOUT"),
)


class NoAnswer(UserError):
    """Slurm does not answer, or not now."""


class Entry(NamedTuple):
    """An element in the queue.

    Attributes:
        job_id: Slurm's name for it, such as `1234_5`.
        state: Slurm's word, such as PENDING or RUNNING.
        reason: why it is in that state, in Slurm's word.
    """

    job_id: str
    state: str
    reason: str

    @property
    def waits(self) -> bool:
        """True until it runs."""
        return self.state == "PENDING" or self.state in _WAITING_STATES

    @property
    def meaning(self) -> str:
        """The reason for people."""
        if not self.waits:
            return self.state.lower()
        return _WAITING_STATES.get(self.state) or _REASONS.get(self.reason, f"waits ({self.reason})")


class Queue:
    """A look at the queue.

    Attributes:
        entries: elements that Slurm has, waiting or running.
        jobs: of the user, of whatever kind; an element counts as one.
    """

    def __init__(self, entries: dict[Place, Entry], jobs: int) -> None:
        self.entries, self.jobs = entries, jobs

    @classmethod
    def look(cls) -> "Queue":
        """Ask squeue once for all jobs of this user, in hidden partitions, too; UserError if it does not answer."""
        text = call("squeue", "--noheader", "--all", f"--user={os.getuid()}", f"--format={_FORMAT}")
        entries, others = {}, 0
        for line in text.splitlines():
            # Other jobs may have any name, also of several lines.
            if line.count("|") < 4:
                continue
            array, expression, state, reason, name = line.strip().split("|", 4)
            if not name.startswith(NAME_PREFIX):
                others += len(_indices(expression) or [None])
            elif indices := _indices(expression):
                for index in indices:
                    job_id = array if index is None else f"{array}_{index}"
                    entries[Place(name, index or 0)] = Entry(job_id, state, reason)
            else:
                raise UserError(
                    f"squeue calls elements of an array {expression!r}, which cannot be read; update Slurm."
                )
        return cls(entries, len(entries) + others)

    def of_runs(self, records: Sequence[ArrayRecord]) -> dict[str, tuple[Place, Entry]]:
        """The elements of runs, by their path; of a run that two arrays hold, the one that was submitted last."""
        found: dict[str, tuple[Place, Entry]] = {}
        for record in records:
            for index, paths in enumerate(record.elements):
                place = Place(record.name, index)
                if entry := self.entries.get(place):
                    found.update(dict.fromkeys(paths, (place, entry)))
        return found


def _indices(expression: str) -> list[int] | list[None]:
    """The indices of an array's elements in the words of squeue, such as 7 or 0-3,10-20:5%8.

    [None] for a plain job, empty if it cannot be read. Asked for a line for each element, squeue (22.05) leaves out the
    last one of 10-20:5.
    """
    if expression == "N/A":
        return [None]
    found: list[int] = []
    for part in expression.partition("%")[0].split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            return []
        first, last, step = match.groups()
        found += range(int(first), int(last or first) + 1, int(step or 1))
    return found


def ended(records: Records, paths: Sequence[str]) -> dict[str, str]:
    """How Slurm ended the elements that last held these runs, for people, by path; "" where nobody can say.

    The states come from one call of sacct; without accounting, the last line that an element wrote has to do.
    """
    places = latest_places(records.all())
    asked = {path: places[path] for path in paths if path in places and places[path][0].slurm_id is not None}
    states = _accounted({str(record.slurm_id) for record, _ in asked.values()}) if asked else {}
    reasons = {}
    for path, (record, place) in asked.items():
        job_id = record.job_id(place.element)
        last = _last_line(records.element_log(record, place.element))
        state = f"ended as {states[job_id]}" if states.get(job_id) in _ENDS else "has left the queue"
        reasons[path] = f"Slurm job {job_id} {state}" + (f": {last}" if last else "")
    return reasons


def _accounted(arrays: Iterable[str]) -> dict[str, str]:
    """States of the elements of these arrays, by their ids; empty on a cluster without accounting."""
    ids = ",".join(sorted(arrays))
    try:
        text = call("sacct", "--noheader", "--parsable2", "--allocations", "--format=JobID,State", f"--jobs={ids}")
    except UserError:
        return {}
    rows = (line.partition("|") for line in text.splitlines())
    return {job_id: state.split()[0] for job_id, _, state in rows if state}


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def call(program: str, *arguments: str) -> str:
    """The output of one of Slurm's commands.

    Raises:
        UserError: if there is no such program.
        NoAnswer: if it fails or does not answer.
    """
    command = [program, *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            env={**without_options(os.environ), **_WHOLE_ANSWERS},
        )
    except FileNotFoundError as error:
        raise UserError(
            f"{program} is not on PATH; run this on a machine of the cluster, or load its module."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{program} gave no answer within {_SECONDS} s; try again when the cluster answers.") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoAnswer(f"{shlex.join(command[:2])} failed: {said}; see whether the cluster is up: sinfo")
    return done.stdout
