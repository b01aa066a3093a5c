"""Pretraining from a data set: what it does, and that interrupted runs continue bit for bit."""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_offline import EPISODE_STEPS, PLUGINS, write_toys
from toy_runs import StopAt, assert_same_run, kill_until_done, run

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Batch
from urlbench.core.jobs import Job
from urlbench.core.registry import load_plugin
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.replay import Replay
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl
from urlbench.training.checkpoint import SnapshotHeader, load_snapshot, snapshot_path
from urlbench.training.offline import fill_replay

torch.set_num_threads(1)


def plan(
    root: Path, *, preset: str = "smoke", overrides: tuple[str, ...] = (), data: str = "data"
) -> list[tuple[Job, RunDirectory]]:
    """A pretraining and a fine-tuning, prepared in `root`/runs; the data are in `root`/data."""
    request = PlanRequest(
        suite="toy-offline",
        agents=("toy",),
        tasks=("ball_left",),
        seeds=(0,),
        preset=preset,
        overrides=overrides,
        plugins=PLUGINS,
        data=str(root / data),
    )
    store = RunStore(root / "runs")
    jobs = make_plan(request).jobs
    for job in jobs:
        store.run_dir(job).prepare(job)
    return [(job, store.run_dir(job)) for job in jobs]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RunDirectory]]:
    root = tmp_path_factory.mktemp("reference")
    for plugin in PLUGINS:
        load_plugin(plugin)
    write_toys(root / "data")
    jobs = plan(root)
    for job, directory in jobs:
        assert run(root / "runs", job, directory) == "done"
    return root, [directory for _, directory in jobs]


@pytest.fixture
def root(reference: tuple[Path, list[RunDirectory]], tmp_path: Path) -> Path:
    """A folder with a copy of the data."""
    shutil.copytree(reference[0] / "data", tmp_path / "data")
    return tmp_path


def test_a_run_leaves_rows_and_snapshots_in_updates(reference: tuple[Path, list[RunDirectory]]) -> None:
    pretraining, finetuning = reference[1]
    assert [path.name for path in sorted(pretraining.snapshots.glob("*.pt"))] == ["snapshot_15.pt", "snapshot_30.pt"]
    assert [row["updates"] for row in read_jsonl(pretraining.train_file)] == [30]
    assert json.loads(pretraining.done_file.read_text())["updates"] == 30
    assert not pretraining.replay.exists()
    status = pretraining.read_status()
    assert status is not None
    assert (status.progress, status.budget, status.unit) == (30, 30, "updates")
    header = SnapshotHeader.of(pretraining.read_job(reference[0] / "runs").spec, 15)
    assert load_snapshot(snapshot_path(pretraining.path, 15), header)["updates"] == 15
    assert len(read_jsonl(finetuning.eval_file)) == 4


def test_metrics_are_means_of_a_hundred_updates(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    job, directory = plan(root, preset="paper")[0]
    run(root / "runs", job, directory)
    rows = read_jsonl(directory.train_file)
    assert [row["updates"] for row in rows] == [100, 200, 230]
    # The toy agent reports the number of each update, so the mean of 1 to 100 is 50.5.
    assert [row["updates_of_agent"] for row in rows] == [50.5, 150.5, 215.5]


def test_only_the_first_files_by_name_are_sampled(root: Path) -> None:
    for plugin in PLUGINS:
        load_plugin(plugin)
    job, _ = plan(root)[0]
    replay = Replay(None, (4,), np.float32, 2, 10_000)
    fill_replay(replay, job.data_path, job.spec)
    # 90 transitions are asked for, and files have 20.
    assert (replay.episodes, replay.steps) == (5, 5 * EPISODE_STEPS)
    dataset = Dataset(root / "data" / "ball" / "toys")
    whole = replay.sample(np.random.default_rng(0), Batch(size=100, length=EPISODE_STEPS + 1))["observation"]
    files = [np.load(dataset.buffer / f"episode_{index:06d}_20.npz")["observation"] for index in range(5)]
    assert {episode.tobytes() for episode in whole} == {episode.tobytes() for episode in files}


@pytest.mark.parametrize("questions", [0, 3, 5, 6, 17, 20, 34])
def test_run_half_stop_and_continue(reference: tuple[Path, list[RunDirectory]], root: Path, questions: int) -> None:
    """It asks before each of its 5 files and of its 30 updates."""
    pretraining, finetuning = plan(root)
    assert run(root / "runs", *pretraining, stop=StopAt(questions)) == "interrupted"
    status = pretraining[1].read_status()
    assert status is not None
    assert (status.message, status.progress) == ("stopped by the test", max(questions - 5, 0))
    for job in (pretraining, finetuning):
        assert run(root / "runs", *job) == "done"
    for (_, one), other in zip((pretraining, finetuning), reference[1], strict=True):
        assert_same_run(one, other)


def test_checkpoints_change_nothing(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    job, directory = plan(root)[0]
    run(root / "runs", job, directory, checkpoint_seconds=0.0)
    assert_same_run(directory, reference[1][0])


def test_work_after_the_last_checkpoint_is_done_again(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    job, directory = plan(root)[0]
    run(root / "runs", job, directory, stop=StopAt(12))
    checkpoint = {path.name: path.read_bytes() for path in directory.checkpoints.iterdir()}
    run(root / "runs", job, directory, stop=StopAt(20))
    assert (directory.snapshots / "snapshot_15.pt").exists()
    shutil.rmtree(directory.checkpoints)
    directory.checkpoints.mkdir()
    for name, content in checkpoint.items():
        (directory.checkpoints / name).write_bytes(content)
    with directory.train_file.open("a") as file:
        file.write('{"updates": 25, "lo')
    run(root / "runs", job, directory)
    assert_same_run(directory, reference[1][0])


@pytest.mark.parametrize("most", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_9_at_random_moments(reference: tuple[Path, list[RunDirectory]], root: Path, most: int) -> None:
    expected = plan(reference[0], preset="paper")[0]
    run(reference[0] / "runs", *expected)
    _, directory = plan(root, preset="paper")[0]
    kills, _ = kill_until_done(root / "runs", directory, random.Random(0), most)
    assert kills >= 1
    assert_same_run(directory, expected[1])


def test_another_data_set_is_refused(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    job, directory = plan(root)[0]
    shutil.rmtree(root / "data")
    write_toys(root / "data", shift=1.0)
    with pytest.raises(UserError, match="not the one that this run was planned with"):
        run(root / "runs", job, directory)
    status = directory.read_status()
    assert status is not None
    assert (status.state, "fingerprint" in status.message) == ("failed", True)


def test_a_changed_file_is_refused_only_if_it_is_used(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    job, directory = plan(root)[0]
    buffer = root / "data" / "ball" / "toys" / "buffer"
    (buffer / "episode_000007_20.npz").write_bytes(b"not among the first 90 transitions")
    shutil.copy(buffer / "episode_000003_20.npz", buffer / "episode_000004_20.npz")
    with pytest.raises(UserError, match=r"episode_000004_20.npz was changed since it was indexed"):
        run(root / "runs", job, directory)
    shutil.copy(reference[0] / "data" / "ball" / "toys" / "buffer" / "episode_000004_20.npz", buffer)
    assert run(root / "runs", job, directory) == "done"
    assert_same_run(directory, reference[1][0])


def test_a_missing_data_set_is_one_sentence(root: Path) -> None:
    job, directory = plan(root)[0]
    (root / "data").rename(root / "elsewhere")
    with pytest.raises(UserError, match="holds no data set"):
        run(root / "runs", job, directory)


def test_a_moved_data_set_is_found_again(reference: tuple[Path, list[RunDirectory]], root: Path) -> None:
    _, directory = plan(root)[0]
    (root / "other").mkdir()
    (root / "data").rename(root / "other" / "data")
    assert plan(root, data="other/data")[0][1].path == directory.path
    assert run(root / "runs", directory.read_job(root / "runs"), directory) == "done"
    assert_same_run(directory, reference[1][0])


def test_episodes_shorter_than_a_batch_are_one_sentence(root: Path) -> None:
    job, directory = plan(root, overrides=("agent.schedule.batch_length=22",))[0]
    with pytest.raises(UserError, match="5 of the data set's episodes have fewer than the 21 steps"):
        run(root / "runs", job, directory)


def test_a_metric_that_is_not_finite_ends_the_run(root: Path) -> None:
    job, directory = plan(root, overrides=("agent.nan_update=3",))[0]
    with pytest.raises(UserError, match="loss became infinite or NaN in the updates up to 30"):
        run(root / "runs", job, directory)
