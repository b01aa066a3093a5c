"""Running toy jobs, for tests."""

import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from processes import wait_until
from struck import killed

from urlbench.core.identity import job_id
from urlbench.core.jobs import Job
from urlbench.core.registry import load_plugin
from urlbench.core.types import Protocol
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training import worker
from urlbench.training.checkpoint import snapshot_path
from urlbench.training.job import run_job

PLUGIN = Path(__file__).with_name("toy_plugin.py").resolve()
# How often at most a worker touches files before it is killed; a fine-tuning of preset smoke does so 800 times.
_MOST_TOUCHES = 300
ATTEMPT_KEYS = {"attempt", "started", "from_progress", "pid", "host"}


class StopAt:
    """Asks to stop at the n-th question, and goes on asking."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> str:
        self.left -= 1
        return "stopped by the test" if self.left < 0 else ""


class Hold:
    """Where toy runs wait for a test, so that they are at work when it does something to them.

    Args:
        folder: a new one.
        actions: a process waits once it has acted so often.
    """

    def __init__(self, folder: Path, actions: int) -> None:
        folder.mkdir()
        self._folder, self._hold = folder, folder / "hold"
        self._hold.write_text(str(actions))

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the processes that are to wait."""
        return {"TOY_HOLD": str(self._folder)}

    @property
    def waiting(self) -> int:
        """How many processes have come to wait."""
        return len(list(self._folder.glob("*.held")))

    def wait(self, process: Any = None) -> None:
        """Until a process waits; `process` is the one that runs it."""
        wait_until(lambda: self.waiting, "a toy run waits", process)

    def let_go(self) -> None:
        """Let all go on."""
        self._hold.unlink()


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
    """Kill a prepared run's worker again and again, at random ones of the times when it touches a file of the run.

    Returns:
        How often it was killed, `most` times at the most, and how often that left a half-written checkpoint behind.
    """
    work = partial(_run_worker, root, directory.path)
    kills = half_written = 0
    while kills < most and killed(work, rng.randrange(1, _MOST_TOUCHES), directory.path):
        kills += 1
        half_written += any(directory.checkpoints.glob(".*.tmp"))
    assert directory.done_file.exists() or not killed(work, 0, directory.path)
    return kills, half_written


def count_starts(directory: RunDirectory) -> int:
    """How often the run was started."""
    return directory.attempts_file.read_bytes().count(b"started") if directory.attempts_file.exists() else 0


def _run_worker(root: Path, path: Path) -> None:
    sys.exit(worker.main([str(path), "--runs", str(root), "--checkpoint-seconds", "0"]))
