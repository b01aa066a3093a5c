"""Runs a plan on this machine: a pool of worker processes over the graph of its jobs.

Every job is one process on one run directory, the same process that a cluster would start. The directory is
the only truth: what a job's process says through its files is what counts, so a run can be stopped at any
time and continued by the same command.
"""

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal, Protocol as TypingProtocol

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job, Plan
from urlbench.core.machine import usable_cores, visible_gpus
from urlbench.runs.store import RunDirectory
from urlbench.training.worker import EXIT_INTERRUPTED

JobState = Literal["waiting", "running", "done", "failed", "interrupted", "blocked"]
Device = Literal["auto", "cpu", "cuda"]

_ENDINGS = {"failed": "has failed", "interrupted": "was interrupted", "blocked": "could not start"}
_POLL_SECONDS = 0.1
# LP_NUM_THREADS is the software renderer's, which otherwise takes every core.
_THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "LP_NUM_THREADS",
)


@dataclass(frozen=True)
class ExecutorOptions:
    """How a plan is run on this machine.

    Attributes:
        workers: worker processes at the same time.
        threads: threads of each worker.
        device: handed to the workers; `auto` is the GPU if there is one.
        gpus: identifiers for CUDA_VISIBLE_DEVICES, shared out among the workers; empty without GPUs.
        fail_fast: stop everything at the first failure.
        env_workers: processes in which each worker plays evaluation episodes; with 1 it plays them itself.
        worker: the command that runs one run directory.
        grace_seconds: how long workers may take to save when they are asked to stop.
    """

    workers: int
    threads: int = 1
    device: Device = "auto"
    gpus: tuple[str, ...] = ()
    fail_fast: bool = False
    env_workers: int = 1
    worker: tuple[str, ...] = (sys.executable, "-m", "urlbench.training.worker")
    grace_seconds: float = 60.0

    @property
    def cores(self) -> int:
        """Cores that the workers keep busy: while its evaluation processes work, a worker itself waits."""
        return self.workers * max(self.threads, self.env_workers)


@dataclass
class JobView:
    """A job of the plan as the executor sees it.

    Attributes:
        reason: why it failed, is blocked or was interrupted.
        seconds: wall-clock time of this process's run of the job.
    """

    job: Job
    directory: RunDirectory
    state: JobState
    reason: str = ""
    seconds: float = 0.0

    @property
    def log(self) -> Path:
        """Where the worker's output goes."""
        return self.directory.log_file


class Listener(TypingProtocol):
    """Is told what happens; `tick` comes about ten times a second."""

    def changed(self, view: JobView) -> None:
        """The state of one job changed."""

    def tick(self) -> None:
        """Time has passed."""


@dataclass
class _Worker:
    view: JobView
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    slot: int
    log_start: int
    started: float = field(default_factory=time.monotonic)


def default_options(
    workers: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    fail_fast: bool = False,
    env_workers: int = 1,
    runs_per_gpu: int = 1,
) -> ExecutorOptions:
    """Options that oversubscribe neither the cores nor the GPUs, unless they are asked to.

    Args:
        workers: None for `runs_per_gpu` per GPU, or without GPUs as many as the cores allow.
        threads: of a worker; None for 1, the fastest for many small jobs.
        device: `cpu` leaves the GPUs alone; `cuda` asks for one.
        fail_fast: stop everything at the first failure.
        env_workers: processes of a worker that play evaluation episodes, each with one thread.
        runs_per_gpu: workers that share a GPU.

    Raises:
        UserError: for a GPU that is not there, or for no workers or threads.
    """
    numbers = {"--workers": workers, "--threads": threads, "--env-workers": env_workers, "--runs-per-gpu": runs_per_gpu}
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f"{name} {value} is too few; give at least 1.")
    gpus = () if device == "cpu" else visible_gpus()
    if device == "cuda" and not gpus:
        raise UserError("--device cuda asks for a GPU and this machine shows none; use --device cpu or auto.")
    threads = threads or 1
    most = max(1, usable_cores() // max(threads, env_workers))
    workers = workers or (min(len(gpus) * runs_per_gpu, most) if gpus else most)
    return ExecutorOptions(workers, threads, device, gpus, fail_fast, env_workers)


class Executor:
    """Runs what is left of a plan.

    Attributes:
        views: every job of the plan, in the plan's order.
        interrupted: the user or the system asked to stop.
    """

    def __init__(
        self,
        plan: Plan,
        root: Path,
        options: ExecutorOptions,
        listener: Listener | None = None,
        retry_failed: bool = False,
    ) -> None:
        """Read where each job stands; nothing is written or started yet.

        Args:
            plan: parents before children.
            root: folder of all runs.
            options: of this machine.
            listener: told what happens.
            retry_failed: run jobs again that have failed before.
        """
        self.root, self.options, self.listener = root, options, listener
        self.interrupted = False
        self.views: list[JobView] = [self._view(job, retry_failed) for job in plan.jobs]
        self._by_id = {view.job.id: view for view in self.views}
        self._workers: list[_Worker] = []
        self._failed_now = False

    def _view(self, job: Job, retry_failed: bool) -> JobView:
        directory = RunDirectory(self.root / job.path)
        status = directory.read_status()
        if status is None or status.state in ("queued", "interrupted", "stale"):
            return JobView(job, directory, "waiting")
        if status.state == "done":
            return JobView(job, directory, "done")
        if status.state == "running":
            return JobView(job, directory, "blocked", f"process {status.pid} on {status.host} is running it")
        if retry_failed:
            return JobView(job, directory, "waiting")
        return JobView(job, directory, "failed", status.message)

    def check_identities(self) -> None:
        """UserError if a directory of the plan belongs to a job with another specification; writes nothing."""
        for view in self.views:
            if view.directory.spec_file.exists():
                view.directory.prepare(view.job)

    def prepare(self) -> None:
        """Create the run directories of the jobs to run, so that every job is visible as queued.

        Raises:
            UserError: if a directory belongs to a job with another specification, or cannot be written.
        """
        self.check_identities()
        for view in self.views:
            if view.state == "waiting":
                view.directory.prepare(view.job)

    def run(self) -> None:
        """Run until every job has ended or cannot start; Ctrl-C and SIGTERM stop the workers in good order."""
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            queue = deque(view for view in self.views if view.state == "waiting")
            while queue or self._workers:
                self._start_what_can(queue)
                time.sleep(_POLL_SECONDS)
                for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
                    self._collect(worker)
                if self.options.fail_fast and self._failed_now:
                    self._stop("stopped by --fail-fast after another job failed")
                    self._block(queue, "not started because of --fail-fast")
                if self.listener is not None:
                    self.listener.tick()
        except KeyboardInterrupt:
            self.interrupted = True
            # A second request by the system must not cut the saving short; a second Ctrl-C does.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            self._stop("stopped on request")
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.wait()
                worker.log.close()
            signal.signal(signal.SIGTERM, previous)

    def _set(self, view: JobView, state: JobState, reason: str = "") -> None:
        view.state, view.reason = state, reason
        self._failed_now |= state == "failed"
        if self.listener is not None:
            self.listener.changed(view)

    def _start_what_can(self, queue: deque[JobView]) -> None:
        for view in list(queue):
            if len(self._workers) >= self.options.workers:
                return
            obstacle = self._obstacle(view)
            if obstacle is None:
                queue.remove(view)
                self._start(view)
            elif obstacle:
                queue.remove(view)
                self._set(view, "blocked", obstacle)

    def _obstacle(self, view: JobView) -> str | None:
        """None if the job can start, "" if it must wait, else the reason why it cannot start at all."""
        job = view.job
        if job.parent_path is None:
            return None
        parent = self._by_id.get(job.spec.parent or "")
        if parent is None:
            status = RunDirectory(self.root / job.parent_path).read_status()
            if status is not None and status.state == "done":
                return None
            state = "does not exist" if status is None else f"is {status.state}"
            return f"its pretraining {job.parent_path} {state}; run it with --phase all"
        if parent.state == "done":
            return None
        if parent.state in ("waiting", "running"):
            return ""
        return f"its pretraining {_ENDINGS[parent.state]}: {parent.job.path}"

    def _start(self, view: JobView) -> None:
        slot = min(set(range(self.options.workers)) - {worker.slot for worker in self._workers})
        command = [
            *self.options.worker,
            *(str(view.directory.path), "--runs", str(self.root)),
            *("--threads", str(self.options.threads), "--device", self.options.device),
            *("--env-workers", str(self.options.env_workers), "--parent-pid", str(os.getpid())),
        ]
        try:
            log = view.log.open("ab")
        except OSError as error:
            self._set(view, "failed", f"cannot write {view.log}: {error.strerror}")
            return
        # A session of its own: Ctrl-C in the terminal must reach the workers through us, once.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=self._environment(os.environ, slot),
            start_new_session=True,
        )
        self._workers.append(_Worker(view, process, log, slot, log.tell()))
        self._set(view, "running")

    def _environment(self, base: Mapping[str, str], slot: int) -> dict[str, str]:
        environment = {**base, "PYTHONUNBUFFERED": "1"}
        environment.update(dict.fromkeys(_THREAD_VARIABLES, str(self.options.threads)))
        # The slot's GPU renders, too: renderers look for EGL's number of the one that CUDA_VISIBLE_DEVICES shows.
        if self.options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        elif self.options.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = self.options.gpus[slot % len(self.options.gpus)]
        return environment

    def _collect(self, worker: _Worker, stopping: str = "") -> None:
        """Take a worker that has ended out of the pool; its exit code and its files say how it went."""
        self._workers.remove(worker)
        worker.log.close()
        view, code = worker.view, worker.process.returncode
        view.seconds = time.monotonic() - worker.started
        status = view.directory.read_status()
        if code == 0 and status is not None and status.state == "done":
            self._set(view, "done")
        elif code == EXIT_INTERRUPTED or (stopping and code < 0):
            self._set(view, "interrupted", stopping or "its worker was asked to stop")
        elif code < 0:
            name = signal.Signals(-code).name
            hint = ", perhaps for lack of memory" if code == -signal.SIGKILL else ""
            self._set(view, "failed", f"its worker was ended by {name}{hint}; the same command continues it")
        else:
            message = status.message if status is not None and status.state == "failed" else ""
            self._set(view, "failed", message or _last_line(view.log, worker.log_start) or f"exit code {code}")

    def _block(self, queue: deque[JobView], reason: str) -> None:
        while queue:
            self._set(queue.popleft(), "blocked", reason)

    def _stop(self, reason: str) -> None:
        """Ask all workers to save and end, and wait for them; a second Ctrl-C ends them at once."""
        for worker in self._workers:
            worker.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.options.grace_seconds
        try:
            while self._workers and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
                    self._collect(worker, stopping=reason)
        except KeyboardInterrupt:
            self.interrupted = True
        for worker in list(self._workers):
            worker.process.kill()
            worker.process.wait()
            self._collect(worker, stopping=reason)


def _last_line(log: Path, start: int) -> str:
    """The last line that a worker wrote; "" if it wrote nothing."""
    lines = log.read_bytes()[start:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def wait_for_orphans(plan: Plan, root: Path, seconds: float) -> None:
    """Give workers whose executor was killed the time to notice it, save and end; at most so many seconds."""
    deadline = time.monotonic() + seconds
    running = [RunDirectory(root / job.path) for job in plan.jobs]
    while running := [one for one in running if (status := one.read_status()) and status.state == "running"]:
        if time.monotonic() > deadline:
            return
        time.sleep(0.2)


def set_aside(folder: Path) -> Path:
    """Move a run directory out of the way, without deleting anything; its new place.

    Its spec.json gets another name too, so that nothing takes the folder for a run any more.
    """
    number = 1
    while (target := folder.with_name(f"{folder.name}.aside-{number}")).exists():
        number += 1
    folder.rename(target)
    (target / "spec.json").rename(target / "spec.aside.json")
    return target


def exit_code(views: Sequence[JobView]) -> int:
    """0 if every job is done, 1 if one has failed, 3 if some have not run to their end."""
    states = {view.state for view in views}
    if "failed" in states:
        return 1
    return 0 if states <= {"done"} else 3
