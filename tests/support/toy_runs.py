"""Running toy jobs, for tests."""

import multiprocessing
import os
import posix
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch

from urlbench.core.identity import job_id
from urlbench.core.registry import load_plugin
from urlbench.core.types import Job, Protocol
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training import worker
from urlbench.training.checkpoint import snapshot_path
from urlbench.training.job import run_job

_FORKS = multiprocessing.get_context("fork")
PLUGIN = Path(__file__).with_name("toy_plugin.py").resolve()
ATTEMPT_KEYS = {"attempt", "started", "from_progress", "pid", "host"}


class StopAt:
    """Asks to stop at the n-th question, and goes on asking."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> str:
        self.left -= 1
        return "stopped by the test" if self.left < 0 else ""


def toy_jobs(
    root: Path,
    *,
    suite: str = "toy-states",
    task: str = "ball_left",
    agent: str = "toy",
    preset: str = "smoke",
    overrides: tuple[str, ...] = (),
    seed: int = 0,
    plugin: str = str(PLUGIN),
    data: Path = Path("data"),
) -> tuple[tuple[Job, RunDirectory], tuple[Job, RunDirectory]]:
    """A pretraining and a fine-tuning that starts from it, both prepared."""
    request = PlanRequest(
        suite=suite,
        agents=(agent,),
        tasks=(task,),
        seeds=(seed,),
        preset=preset,
        overrides=overrides,
        plugins=(plugin,),
        data=str(data),
    )
    store = RunStore(root)
    pretraining, finetuning = make_plan(request).jobs
    for job in (pretraining, finetuning):
        store.run_dir(job).prepare(job)
    return (pretraining, store.run_dir(pretraining)), (finetuning, store.run_dir(finetuning))


def toy_plugin() -> Any:
    """The module of the toy suite and agents."""
    load_plugin(str(PLUGIN))
    return sys.modules["urlbench_plugin_toy_plugin"]


def with_protocol(job: Job, root: Path, **changes: object) -> tuple[Job, RunDirectory]:
    """The same job with another protocol, prepared beside it."""
    values = job.spec.protocol.model_dump() | changes
    return with_spec(job, root, protocol=Protocol.model_validate(values))


def with_spec(job: Job, root: Path, **changes: object) -> tuple[Job, RunDirectory]:
    """The same job with another spec, prepared beside it."""
    spec = job.spec.model_copy(update=changes)
    other = job.model_copy(update={"spec": spec, "id": job_id(spec), "path": job.path + "_other"})
    directory = RunStore(root).run_dir(other)
    directory.prepare(other)
    return other, directory


def run(root: Path, job: Job, directory: RunDirectory, **options: Any) -> str:
    """Run a job in this process, under its lock."""
    load_plugin(str(PLUGIN))
    with directory.lock():
        return run_job(job, directory, runs_root=root, **options)


def run_both(root: Path, **choices: Any) -> tuple[RunDirectory, RunDirectory]:
    """Pretrain and fine-tune without interruption."""
    pretraining, finetuning = toy_jobs(root, **choices)
    assert run(root, *pretraining) == "done"
    assert run(root, *finetuning) == "done"
    return pretraining[1], finetuning[1]


def final_agent(directory: RunDirectory) -> dict[str, Any]:
    """The last agent that a run kept."""
    path = snapshot_path(directory.path, None)
    if not path.exists():
        path = max(directory.snapshots.glob("snapshot_*.pt"), key=lambda file: int(file.stem.split("_")[1]))
    agent: dict[str, Any] = torch.load(path, weights_only=True)["agent"]
    return agent


def equal(one: Any, other: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other) and one.dtype == other.dtype
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(one == other)


def assert_same_run(one: RunDirectory, other: RunDirectory) -> None:
    """The same results: logs byte for byte, agents bit for bit."""
    assert one.eval_file.read_bytes() == other.eval_file.read_bytes()
    assert one.train_file.read_bytes() == other.train_file.read_bytes()
    kept = sorted(path.name for path in one.snapshots.glob("*.pt"))
    assert kept == sorted(path.name for path in other.snapshots.glob("*.pt"))
    for name in kept:
        first, second = (torch.load(run.snapshots / name, weights_only=True)["agent"] for run in (one, other))
        assert equal(first, second), f"{name} differs"


def kill_until_done(root: Path, directory: RunDirectory, rng: random.Random, most: int = 10) -> tuple[int, int]:
    """Kill a prepared run's worker again and again, every other time when it is seen writing a checkpoint.

    Returns:
        How often it was killed, `most` times at the most, and how often that left a half-written checkpoint behind.
    """
    kills = half_written = 0
    while True:
        starts = count_starts(directory)
        process = _FORKS.Process(target=_run_worker, args=(str(root), str(directory.path)))
        process.start()
        if kills == most:
            process.join()
        # Killed before it has begun, it would never get anywhere; the time to begin depends on the machine.
        while process.is_alive() and count_starts(directory) == starts:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.3))
        if kills % 2 == 0:
            while process.is_alive() and not _half_written(directory):
                pass
        process.kill()
        process.join()
        if process.exitcode == 0:
            return kills, half_written
        assert process.exitcode == -signal.SIGKILL
        kills += 1
        half_written += _half_written(directory)


def _half_written(directory: RunDirectory) -> bool:
    try:
        names = [path.name for path in directory.checkpoints.iterdir()]
        return any(name.startswith(".") and name.endswith(".tmp") for name in names)
    except FileNotFoundError:  # not made yet, or removed with the end of the run
        return False


def count_starts(directory: RunDirectory) -> int:
    """How often the run was started."""
    return directory.attempts_file.read_bytes().count(b"started") if directory.attempts_file.exists() else 0


def _run_worker(root: str, path: str) -> None:
    os.fsync = posix.fsync  # which the tests leave out; the time that it takes is when files are seen half-written
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stderr = nowhere
        sys.exit(worker.main([path, "--runs", root, "--checkpoint-seconds", "0"]))
