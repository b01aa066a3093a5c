"""Runs on a suite whose episodes end early: what they count and learn from, and that they continue bit for bit."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from toy_early import EPISODE_FRAMES, PLUGIN
from toy_runs import StopAt, assert_same_run, kill_until_done, run, toy_jobs, toy_plugin

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Batch, Schedule
from urlbench.core.jobs import Job
from urlbench.core.registry import load_plugin, load_suite
from urlbench.runs.store import RunDirectory, read_jsonl
from urlbench.training.assembly import build_environment, build_untrained_agent, check_schedule
from urlbench.training.checkpoint import snapshot_path

torch.set_num_threads(1)
Runs = tuple[tuple[Job, RunDirectory], tuple[Job, RunDirectory]]
# A burst every ten frames, two batches of which one has entries of whole skills, and the seed frames' updates made up.
BURSTS = (
    "agent.schedule={update_every_frames: 10, updates: 4, seed_frames: 25, catch_up: true, batches: "
    "{whole: {size: 4, length: 8}, skills: {size: 3, length: 4, stride: 4, start_every: 4, newest_steps: 30}}}",
)


@pytest.fixture(scope="module", autouse=True)
def _registered(registry_of_the_file: None) -> None:
    load_plugin(PLUGIN)


def jobs(root: Path, *overrides: str) -> Runs:
    return toy_jobs(root, suite="toy-early", task="line_left", agent="toy-early", overrides=overrides, plugin=PLUGIN)


def done(runs: Runs, root: Path, **options: Any) -> Runs:
    for job, directory in runs:
        assert run(root, job, directory, **options) == "done"
    return runs


@pytest.fixture(scope="module", params=[(), BURSTS], ids=["one batch", "bursts"])
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[str, ...], Runs]:
    root = tmp_path_factory.mktemp("reference")
    return request.param, done(jobs(root, *request.param), root)


def lengths(directory: RunDirectory) -> list[int]:
    frames = [0, *(row["frame"] for row in read_jsonl(directory.train_file))]
    return np.diff(frames).tolist()


def test_frames_are_those_that_were_played(reference: tuple[tuple[str, ...], Runs]) -> None:
    for _, directory in reference[1]:
        rows, played = read_jsonl(directory.train_file), lengths(directory)
        assert [row["episode"] for row in rows] == list(range(len(rows)))
        assert 1 <= min(played) < EPISODE_FRAMES
        assert max(played) <= EPISODE_FRAMES
        # A return of 1 is a termination; without one only the time limit ends an episode.
        assert all(length == EPISODE_FRAMES or row["return"] == 1 for length, row in zip(played, rows, strict=True))
    assert [row["frame"] for row in read_jsonl(reference[1][1][1].eval_file)] == [20, 40, 60, 80]


def test_snapshots_are_of_the_first_episode_end_at_or_after_the_threshold(tmp_path: Path) -> None:
    pretraining, _ = jobs(tmp_path)
    run(tmp_path, *pretraining)
    rows = read_jsonl(pretraining[1].train_file)
    ends = [row["frame"] for row in rows]
    kept = torch.load(snapshot_path(pretraining[1].path, 60), weights_only=True)["agent"]
    updates = rows[next(i for i, frame in enumerate(ends) if frame >= 60)]["updates"]
    assert kept["optimiser"]["state"][0]["step"] == updates


def test_a_termination_has_discount_0_and_the_time_limit_1(tmp_path: Path) -> None:
    pretraining, _ = jobs(tmp_path)
    run(tmp_path, *pretraining, stop=StopAt(110))
    ends = set()
    for path in pretraining[1].replay.glob("episode_*.npz"):
        discount = np.load(path)["discount"][:, 0]
        assert (discount[:-1] == 1).all()
        ends.add((len(discount) - 1 < EPISODE_FRAMES, float(discount[-1])))
    assert (True, 0.0) in ends
    assert (False, 1.0) in ends
    assert (True, 1.0) not in ends


# A fine-tuning asks at each of its 80 steps, at the steps of its evaluations and between the updates of a burst.
FEW, MORE = [0, 26, 28, 33, 48, 90], [1, 14, 27, 29, 41, 47, 60, 77, 111]


@pytest.mark.parametrize("questions", [*FEW, *(pytest.param(one, marks=pytest.mark.slow) for one in MORE)])
def test_run_half_stop_and_continue(reference: tuple[tuple[str, ...], Runs], tmp_path: Path, questions: int) -> None:
    overrides, expected = reference
    runs = jobs(tmp_path, *overrides)
    for (job, directory), (_, whole) in zip(runs, expected, strict=True):
        assert run(tmp_path, job, directory, stop=StopAt(questions)) == "interrupted"
        assert run(tmp_path, job, directory) == "done"
        assert_same_run(directory, whole)


def test_checkpoints_change_nothing(reference: tuple[tuple[str, ...], Runs], tmp_path: Path) -> None:
    overrides, expected = reference
    for (_, one), (_, other) in zip(
        done(jobs(tmp_path, *overrides), tmp_path, checkpoint_seconds=0.0), expected, strict=True
    ):
        assert_same_run(one, other)


def test_kill_9_at_random_moments(reference: tuple[tuple[str, ...], Runs], tmp_path: Path) -> None:
    overrides, expected = reference
    (_, pretraining), _ = jobs(tmp_path, *overrides)
    kill_until_done(tmp_path, pretraining, random.Random(0), most=3)
    assert_same_run(pretraining, expected[0][1])


@pytest.mark.parametrize(
    ("outcome", "options"),
    [("interrupted", {"stop": StopAt(90)}), pytest.param("done", {"env_workers": 2}, marks=pytest.mark.slow)],
)
def test_searches_continue_and_count_the_steps_of_each_episode(
    tmp_path: Path, outcome: str, options: dict[str, Any]
) -> None:
    played = []
    for name, given, expected in (("whole", {}, "done"), ("other", options, outcome)):
        root = tmp_path / name
        pretraining, (job, directory) = toy_jobs(
            root, suite="toy-early-search", task="line_left", agent="toy-early", plugin=PLUGIN
        )
        run(root, *pretraining)
        assert run(root, job, directory, **given) == expected
        assert run(root, job, directory) == "done"
        played.append(directory.eval_file.read_bytes())
        rows = read_jsonl(directory.eval_file)
        assert [len(row["steps"]) for row in rows] == [10, 2]
        for steps, found in ((s, f) for row in rows for s, f in zip(row["steps"], row["found"], strict=True)):
            assert found or steps == EPISODE_FRAMES
        assert any(steps < EPISODE_FRAMES for row in rows for steps in row["steps"])
    assert played[0] == played[1]


def test_agents_are_told_whether_episodes_end_early(tmp_path: Path) -> None:
    (job, _), _ = jobs(tmp_path)
    agent: Any = build_untrained_agent(job.spec, build_environment(job.spec), "cpu")
    assert agent.context.ends_early
    (other, _), _ = toy_jobs(tmp_path)
    agent = build_untrained_agent(other.spec, build_environment(other.spec), "cpu")
    assert not agent.context.ends_early


def test_windows_longer_than_every_episode_are_refused_before_the_run(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(
        tmp_path, overrides=("agent.schedule={batch_length: 22, seed_frames: 0, update_every_frames: 10}",)
    )
    message = r"agent 'toy' learns from episodes of at least 21 steps, and those of domain 'ball' .* have 20"
    with pytest.raises(UserError, match=message):
        run(tmp_path, job, directory)
    assert not directory.train_file.exists()


class Scheduled(SimpleNamespace):
    """As much of an agent as is looked at."""

    def __init__(self, batch_names: tuple[str, ...] = (), **settings: Any) -> None:
        super().__init__(batch_names=batch_names, schedule=Schedule(**settings))


def test_schedules_must_fit_the_agent_and_the_episodes(tmp_path: Path) -> None:
    (fixed, _), _ = toy_jobs(tmp_path)
    (early, _), _ = jobs(tmp_path)
    strides = {length: {"skills": Batch(size=1, length=length, stride=4)} for length in (6, 7)}
    check_schedule(fixed.spec, Scheduled(batch_length=21))
    check_schedule(fixed.spec, Scheduled(batch_length=22, update_every_frames=None))
    check_schedule(fixed.spec, Scheduled(("skills",), batch_length=99, batches=strides[6]))
    check_schedule(early.spec, Scheduled(batch_length=99))
    for scheduled in (Scheduled(batch_length=22), Scheduled(("skills",), batches=strides[7])):
        with pytest.raises(UserError, match="at least 21 steps"):
            check_schedule(fixed.spec, scheduled)
    with pytest.raises(UserError, match=r"learns from these batches: one without a name; .* asks for these: skills"):
        check_schedule(fixed.spec, Scheduled(batches=strides[6]))
    with pytest.raises(UserError, match=r"learns from these batches: model, skills; .* asks for these: skills"):
        check_schedule(fixed.spec, Scheduled(("skills", "model"), batches=strides[6]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"max_episode_frames": 40},
            r"an episode of ball_left had 20 frames, and suite toy-states@1 says .* all have 40",
        ),
        ({"max_episode_frames": 10}, r"says of domain 'ball' that none has more than 10"),
        ({"max_episode_frames": 10, "ends_early": True}, r"says of domain 'ball' that none has more than 10"),
        ({"max_episode_frames": 40, "ends_early": True}, None),
    ],
)
def test_episodes_that_are_not_as_the_suite_says_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str | None
) -> None:
    toy_plugin()
    suite = load_suite("toy-states")
    (job, directory), _ = toy_jobs(tmp_path)
    domains = tuple(domain.model_copy(update=changes) for domain in suite.domains)
    changed = suite.model_copy(update={"domains": domains})
    monkeypatch.setattr("urlbench.training.assembly.load_suite", lambda name: changed)
    if message is None:
        assert run(tmp_path, job, directory) == "done"
    else:
        with pytest.raises(UserError, match=message):
            run(tmp_path, job, directory)
