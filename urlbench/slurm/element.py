"""What runs on a node: an element of an array, which is one run, or several side by side.

submitit calls `Element`, which starts `python -m urlbench.slurm.element`, which runs the local executor on the run
directories of the element. When Slurm announces the end of the slot, or a preemption, submitit calls `checkpoint`:
everything is saved and the element is queued again, as often as it takes. A node that is lost announces nothing: Slurm
queues the element again, and the runs go on from the checkpoints that are on disk.
"""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path

from submitit.helpers import DelayedSubmission

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job, Plan
from urlbench.core.machine import visible_gpus
from urlbench.local.executor import Device, Executor, ExecutorOptions, JobView, wait_for_orphans
from urlbench.runs.manifest import code_snapshot
from urlbench.runs.store import RunDirectory, read_jsonl
from urlbench.slurm.profile import Profile
from urlbench.slurm.records import ArrayRecord, Records
from urlbench.training.worker import EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED

# Told to stop by Slurm itself, an element waits to be ended; what it would say itself counts as a failure.
_UNTIL_SLURM_ENDS_US = 600.0
_ORPHAN_SECONDS = 60.0
# Of the time that was announced; in the rest the element has to be queued again, or Slurm ends it for good.
_SHARE_TO_SAVE = 0.8
_MOST_STARTS_WITHOUT_PROGRESS = 10


class Element:
    """The callable that submitit stores, starts on a node and asks for a checkpoint.

    Args:
        root: folder of all runs.
        name: of the array.
        index: of the element.
    """

    def __init__(self, root: str, name: str, index: int) -> None:
        self._arguments = (root, name, str(index))
        self._child: int | None = None

    def __call__(self) -> None:
        """Run the element to its end; RuntimeError if nothing of it is done then."""
        command = [sys.executable, "-m", "urlbench.slurm.element", *self._arguments]
        # Nobody reaps it: preempted, it is told to stop by Slurm and may have ended when `checkpoint` asks for it.
        self._child = os.posix_spawn(sys.executable, command, os.environ)
        code = _wait(self._child)
        if code in (EXIT_INTERRUPTED, -signal.SIGTERM, -signal.SIGUSR2):
            time.sleep(_UNTIL_SLURM_ENDS_US)
        if code != EXIT_DONE:
            raise RuntimeError(f"element {self._arguments[2]} of {self._arguments[1]} ended with exit code {code}")

    def checkpoint(self) -> DelayedSubmission | None:
        """Save and end; the submission that is queued again, None if the element has failed by itself.

        Called in a signal handler, in the middle of `__call__`: methods to wait that take a lock would never get it.
        """
        if self._child is not None:
            os.kill(self._child, signal.SIGTERM)
            if _wait(self._child) == EXIT_FAILED:
                return None
        return DelayedSubmission(Element(self._arguments[0], self._arguments[1], int(self._arguments[2])))


def _wait(pid: int) -> int:
    """The exit code of a child once it has ended, a signal as a negative number; it may be asked for again."""
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert result is not None, "a call that blocks has a result"
    return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status


def main(arguments: Sequence[str]) -> int:
    """Run the runs of an element as far as they get; the exit code is the worker's, as for one run.

    Failed is only an element of which no run is done: others would keep the fine-tunings of the rest from starting.
    """
    # Slurm's announcement reaches every process of the job; only submitit's answers it.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    root, name, index = Path(arguments[0]), arguments[1], int(arguments[2])
    try:
        record = Records(root).read(name)
        directories = [RunDirectory(root / path) for path in record.elements[index]]
        jobs = [directory.read_job(root) for directory in directories]
        if refusal := _refusal(record, jobs):
            for job, directory in zip(jobs, directories, strict=True):
                _fail(job, directory, refusal)
            raise UserError(refusal)
        with _scratch(record.profile):
            return _run(record, root, jobs)
    except UserError as error:
        print(error, flush=True)
        return EXIT_FAILED


def _run(record: ArrayRecord, root: Path, jobs: Sequence[Job]) -> int:
    profile = record.profile
    # Where Slurm does not confine GPUs, those of others can be seen.
    none = profile.device == "auto" and not profile.usable_gpus(record.phase)
    device: Device = "cpu" if none else profile.device
    options = ExecutorOptions(
        workers=len(jobs),
        threads=profile.threads,
        device=device,
        gpus=() if device == "cpu" else visible_gpus(),
        env_workers=profile.env_workers,
        grace_seconds=_SHARE_TO_SAVE * profile.signal_seconds,
    )
    plan = Plan(jobs=tuple(jobs))
    # After a lost node, or a requeueing by hand, the process of before may still be saving.
    wait_for_orphans(plan, root, _ORPHAN_SECONDS)
    for job in jobs:
        directory = RunDirectory(root / job.path)
        starts = _starts_without_progress(directory, record.submitted)
        if starts >= _MOST_STARTS_WITHOUT_PROGRESS and not directory.done_file.exists():
            _fail(
                job,
                directory,
                f"it was started {starts} times in a row without getting any further; give it a longer slot, or more "
                "signal_seconds, in the cluster profile, then continue with --rerun failed",
            )
    executor = Executor(plan, root, options, _Announcer())
    executor.run()
    states = [view.state for view in executor.views]
    if executor.interrupted or "interrupted" in states:
        return EXIT_INTERRUPTED
    return EXIT_DONE if "done" in states else EXIT_FAILED


class _Announcer:
    """Writes what happens into the element's log."""

    def changed(self, view: JobView) -> None:
        print(f"{view.state}: {view.job.label}" + (f": {view.reason}" if view.reason else ""), flush=True)

    def tick(self) -> None:
        pass


def _refusal(record: ArrayRecord, jobs: Sequence[Job]) -> str | None:
    """Why these are not the runs that were submitted."""
    running = (code_snapshot() or {}).get("sha256")
    if running != record.code:
        return (
            f"the job was submitted with the code {record.code[:16]} and would run {str(running)[:16]}; do not change "
            f"PYTHONPATH in the set-up lines of the cluster profile, then continue with --rerun failed"
        )
    for plugin in {plugin for job in jobs for plugin in job.plugins} & record.plugins.keys():
        if digest_of(Path(plugin)) != record.plugins[plugin]:
            return (
                f"the plugin {plugin} was changed after the job was submitted; restore it, or keep the change, "
                "then continue with --rerun failed"
            )
    return None


def digest_of(file: Path) -> str:
    """The SHA-256 of a file; "missing" if there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "missing"


def _starts_without_progress(directory: RunDirectory, since: float) -> int:
    """How often in a row the run was started at the same place, of the starts after `since`, a unix time."""
    rows = [row for row in read_jsonl(directory.attempts_file) if row.get("started", 0.0) > since]
    return sum(1 for _ in takewhile(lambda row: row["from_progress"] == rows[-1]["from_progress"], reversed(rows)))


def _fail(job: Job, directory: RunDirectory, message: str) -> None:
    """Record a failure that the worker never gets to see."""
    status = directory.read_status()
    if status is not None and status.state not in ("done", "running"):
        print(f"{job.label}: {message}", flush=True)
        directory.write_status(status.model_copy(update={"state": "failed", "message": message}))


@contextmanager
def _scratch(profile: Profile) -> Iterator[None]:
    """Let temporary files go to the profile's folder, and remove them at the end."""
    if profile.scratch is None:
        yield
        return
    parent = os.path.expandvars(profile.scratch)
    try:
        folder = tempfile.mkdtemp(prefix="urlbench-", dir=parent)
    except OSError as error:
        raise UserError(
            f"the scratch folder {parent} cannot be used on this node: {error.strerror}; "
            "correct it in the cluster profile, then run the same command again"
        ) from error
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
