"""Running toy jobs, for tests."""

from pathlib import Path
from typing import Any

import torch

from urlbench.checkpoint import snapshot_path
from urlbench.plan import PlanRequest, make_plan
from urlbench.registry import load_plugin
from urlbench.run_job import run_job
from urlbench.store import RunDirectory, RunStore
from urlbench.types import Job

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
    root: Path, *, agent: str = "toy", preset: str = "smoke", overrides: tuple[str, ...] = (), seed: int = 0
) -> tuple[tuple[Job, RunDirectory], tuple[Job, RunDirectory]]:
    """A pretraining and a fine-tuning that starts from it, both prepared."""
    request = PlanRequest(
        suite="toy-states",
        agents=(agent,),
        tasks=("ball_left",),
        seeds=(seed,),
        preset=preset,
        overrides=overrides,
        plugins=(str(PLUGIN),),
    )
    store = RunStore(root)
    pretraining, finetuning = make_plan(request).jobs
    for job in (pretraining, finetuning):
        store.run_dir(job).prepare(job)
    return (pretraining, store.run_dir(pretraining)), (finetuning, store.run_dir(finetuning))


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
