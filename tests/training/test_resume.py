"""Interrupted runs continue bit for bit, whatever interrupts them and wherever."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from processes import finish, started, wait_until
from struck import killed
from toy_runs import Hold, StopAt, assert_same_run, kill_until_done, run, run_both, toy_jobs

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl
from urlbench.training import worker


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, RunDirectory]:
    return run_both(tmp_path_factory.mktemp("reference"))


def test_two_runs_are_bit_equal(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path) -> None:
    for one, other in zip(reference, run_both(tmp_path), strict=True):
        assert_same_run(one, other)


def test_another_seed_is_another_run(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path) -> None:
    _, finetuning = run_both(tmp_path, seed=1)
    assert finetuning.eval_file.read_bytes() != reference[1].eval_file.read_bytes()


def test_checkpoints_change_nothing(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path) -> None:
    for (job, directory), expected in zip(toy_jobs(tmp_path), reference, strict=True):
        run(tmp_path, job, directory, checkpoint_seconds=0.0)
        assert_same_run(directory, expected)


# A fine-tuning asks at each of its 80 steps and of the 60 in each of its 4 evaluations: the first evaluation
# starts at question 21. 0 is before the first step, 20 at the first step of an evaluation, 319 the last of all.
@pytest.mark.parametrize("questions", [0, 1, 13, 20, 21, 55, 80, 81, 100, 161, 240, 319])
def test_run_half_stop_and_continue(
    reference: tuple[RunDirectory, RunDirectory], tmp_path: Path, questions: int
) -> None:
    pretraining, finetuning = toy_jobs(tmp_path)
    stopped = run(tmp_path, *pretraining, stop=StopAt(questions))
    assert stopped == ("interrupted" if questions <= 100 else "done")
    run(tmp_path, *pretraining)
    assert run(tmp_path, *finetuning, stop=StopAt(questions)) == "interrupted"
    status = finetuning[1].read_status()
    assert status is not None
    assert (status.state, status.message) == ("interrupted", "stopped by the test")
    assert run(tmp_path, *finetuning) == "done"
    assert_same_run(pretraining[1], reference[0])
    assert_same_run(finetuning[1], reference[1])


def test_many_short_attempts_add_up(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path) -> None:
    pretraining, finetuning = toy_jobs(tmp_path)
    attempts = 0
    for job, directory in (pretraining, finetuning):
        while run(tmp_path, job, directory, stop=StopAt(67)) == "interrupted":
            attempts += 1
    assert attempts >= 4
    assert_same_run(pretraining[1], reference[0])
    assert_same_run(finetuning[1], reference[1])


def test_work_after_the_last_checkpoint_is_done_again(
    reference: tuple[RunDirectory, RunDirectory], tmp_path: Path
) -> None:
    """As after a power cut: logs, episodes and a snapshot are there that the checkpoint knows nothing of."""
    (job, directory), _ = toy_jobs(tmp_path)
    run(tmp_path, job, directory, stop=StopAt(30))
    checkpoint = {path.name: path.read_bytes() for path in directory.checkpoints.iterdir()}
    run(tmp_path, job, directory, stop=StopAt(40))
    assert (directory.snapshots / "snapshot_50.pt").exists()
    for path in directory.checkpoints.iterdir():
        path.unlink()
    for name, content in checkpoint.items():
        (directory.checkpoints / name).write_bytes(content)
    with directory.train_file.open("a") as file:
        file.write('{"frame": 80, "epi')
    (directory.snapshots / ".snapshot_100.pt.77.tmp").write_bytes(b"half")
    run(tmp_path, job, directory)
    assert_same_run(directory, reference[0])
    assert not list(directory.path.rglob(".*.tmp"))


def test_without_any_checkpoint_the_run_starts_from_nothing(
    reference: tuple[RunDirectory, RunDirectory], tmp_path: Path
) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    run(tmp_path, job, directory, stop=StopAt(70))
    for path in directory.checkpoints.iterdir():
        path.unlink()
    run(tmp_path, job, directory)
    assert_same_run(directory, reference[0])


def _interrupted_twice(root: Path) -> tuple[Job, RunDirectory]:
    """A pretraining with two checkpoints, at frames 25 (one episode done) and 66 (three done)."""
    (job, directory), _ = toy_jobs(root)
    run(root, job, directory, stop=StopAt(25))
    run(root, job, directory, stop=StopAt(41))
    assert len(list(directory.checkpoints.glob("*.pt"))) == 2
    return job, directory


def _damage_newest(directory: RunDirectory) -> None:
    newest = max(directory.checkpoints.glob("*.pt"))
    os.truncate(newest, newest.stat().st_size - 100)


def _damage_third_episode(directory: RunDirectory) -> None:
    os.truncate(directory.replay / "episode_000002_20.npz", 300)


def _truncate_log(directory: RunDirectory) -> None:
    lines = directory.train_file.read_bytes().splitlines(keepends=True)
    directory.train_file.write_bytes(b"".join(lines[:2]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (_damage_newest, "checkpoint_0000000066.pt is damaged"),
        (_damage_third_episode, "episode_000002_20.npz is damaged"),
        (_truncate_log, "train.jsonl is truncated"),
    ],
)
def test_damage_falls_back_to_the_checkpoint_before(
    reference: tuple[RunDirectory, RunDirectory],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[RunDirectory], None],
    named: str,
) -> None:
    job, directory = _interrupted_twice(tmp_path)
    damage(directory)
    assert run(tmp_path, job, directory) == "done"
    assert named in capsys.readouterr().out
    start = [row for row in read_jsonl(directory.attempts_file) if "started" in row][-1]
    assert start["from_progress"] == 25
    assert named in start["notes"][0]
    assert "falling back to checkpoint_0000000025.pt" in start["notes"][0]
    assert_same_run(directory, reference[0])


def test_damage_beyond_repair_names_the_file(tmp_path: Path) -> None:
    job, directory = _interrupted_twice(tmp_path)
    os.truncate(directory.replay / "episode_000000_20.npz", 300)
    with pytest.raises(UserError, match=r"no checkpoint .* can be used: .*episode_000000_20.npz is damaged"):
        run(tmp_path, job, directory)
    status = directory.read_status()
    assert status is not None
    assert status.state == "failed"
    assert "episode_000000_20.npz is damaged" in status.message
    assert len(list(directory.checkpoints.glob("*.pt"))) == 2


def test_a_full_disk_leaves_the_run_resumable(
    reference: tuple[RunDirectory, RunDirectory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    sync, calls = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 100:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="the disk is full; make room and continue with --rerun failed"):
            run(tmp_path, job, directory, checkpoint_seconds=0.0)
    assert not directory.done_file.exists()
    assert run(tmp_path, job, directory) == "done"
    starts = [row for row in read_jsonl(directory.attempts_file) if "started" in row]
    assert starts[-1]["from_progress"] > 0
    assert_same_run(directory, reference[0])


@pytest.mark.parametrize("most", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path, most: int) -> None:
    pretraining, finetuning = toy_jobs(tmp_path)
    run(tmp_path, *pretraining)
    kills, _ = kill_until_done(tmp_path, finetuning[1], random.Random(0), most)
    assert kills >= 3
    assert_same_run(finetuning[1], reference[1])
    assert not list(finetuning[1].path.rglob(".*.tmp"))


@pytest.mark.slow
def test_kill_9_very_often(tmp_path: Path) -> None:
    expected = run_both(tmp_path / "reference", preset="paper")
    kills = half_written = 0
    for (_, directory), same in zip(toy_jobs(tmp_path, preset="paper"), expected, strict=True):
        more = kill_until_done(tmp_path, directory, random.Random(0))
        kills, half_written = kills + more[0], half_written + more[1]
        assert_same_run(directory, same)
    assert kills >= 6
    assert half_written >= 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_a_checkpoint(
    reference: tuple[RunDirectory, RunDirectory], tmp_path: Path, number: signal.Signals
) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    hold = Hold(tmp_path / "hold", 30)
    command = [sys.executable, "-m", "urlbench.training.worker", str(directory.path), "--runs", str(tmp_path)]
    with started(command, env={**os.environ, **hold.environment}) as process:
        hold.wait(process)
        process.send_signal(number)
        output = finish(process)
    assert process.returncode == worker.EXIT_INTERRUPTED, output
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.message) == ("interrupted", f"stopped by {number.name}")
    assert run(tmp_path, job, directory) == "done"
    assert_same_run(directory, reference[0])


# A worker that asks at each step who its parent is, and the parent.
ORPHAN = """\
import sys
from urlbench.training import worker
worker._PARENT_CHECK_SECONDS = 0.0
sys.exit(worker.main())"""
PARENT = """\
import os, subprocess, sys
subprocess.run([sys.executable, "-c", *sys.argv[1:], "--parent-pid", str(os.getpid())])"""


@pytest.mark.slow
def test_an_orphan_stops_with_a_checkpoint(reference: tuple[RunDirectory, RunDirectory], tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    hold = Hold(tmp_path / "hold", 30)
    command = [sys.executable, "-c", PARENT, ORPHAN, str(directory.path), "--runs", str(tmp_path)]
    with started(command, env={**os.environ, **hold.environment}, stdout=subprocess.DEVNULL) as parent:
        hold.wait(parent)
        parent.kill()
    hold.let_go()
    wait_until(lambda: not directory.is_locked(), "the orphan ends")
    status = directory.read_status()
    assert status is not None
    assert status.state == "interrupted"
    assert status.message == f"stopped because process {parent.pid}, which started it, is gone"
    assert run(tmp_path, job, directory) == "done"
    assert_same_run(directory, reference[0])


def test_an_orphan_knows_it() -> None:
    assert worker.StopRequest(os.getppid())() == ""
    assert worker.StopRequest(None)() == ""
    assert "is gone" in worker.StopRequest(os.getpid())()


@pytest.mark.slow
def test_kill_9_with_the_real_walker(tmp_path: Path) -> None:
    def prepare(root: Path) -> list[RunDirectory]:
        request = PlanRequest(
            suite="urlb-states", agents=("choreographer",), tasks=("walker_stand",), seeds=(0,), preset="smoke"
        )
        jobs = make_plan(request).jobs
        store = RunStore(root)
        for job in jobs:
            store.run_dir(job).prepare(job)
        return [store.run_dir(job) for job in jobs]

    def work(root: Path, directory: RunDirectory, *options: str) -> None:
        sys.exit(worker.main([str(directory.path), "--runs", str(root), *options]))

    rng = random.Random(0)
    for one, other in zip(prepare(tmp_path / "whole"), prepare(tmp_path / "killed"), strict=True):
        assert not killed(partial(work, tmp_path / "whole", one), 0, one.path)
        for _ in range(2):
            often = partial(work, tmp_path / "killed", other, "--checkpoint-seconds", "0.2")
            assert killed(often, rng.randrange(10, 60), other.path)
        assert not killed(partial(work, tmp_path / "killed", other), 0, other.path)
        assert_same_run(one, other)
