"""Fine-tunings that start from a training on another task: its weights, and perhaps its episodes, relabelled."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_starts  # noqa: F401 - registers its suites
from toy_runs import PLUGIN, StopAt, assert_same_run, equal, final_agent, kill_until_done, run, toy_plugin

from urlbench.core import registry
from urlbench.core.durable import read_jsonl
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array
from urlbench.core.jobs import Job
from urlbench.core.types import Domain, Protocol, Suite, Task, Transfer
from urlbench.episodes.datasets import episode_files
from urlbench.episodes.format import read_arrays
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training.checkpoint import snapshot_path

RIGHT = 1.0  # the place of ball_right


def jobs_of(root: Path, task: str, **choices: Any) -> list[tuple[Job, RunDirectory]]:
    """The jobs of a request for one task, all prepared."""
    defaults = {"suite": "toy-transfer", "agents": ("toy",), "tasks": (task,), "plugins": (str(PLUGIN),)}
    plan = make_plan(PlanRequest(**(defaults | {"seeds": (0,), "preset": "smoke"} | choices)))
    store = RunStore(root)
    for job in plan.jobs:
        store.run_dir(job).prepare(job)
    return [(job, store.run_dir(job)) for job in plan.jobs]


def schedule(**changes: int) -> tuple[str, ...]:
    """Overrides to the toy agent's schedule, with changes."""
    usual: dict[str, Any] = toy_plugin().ToyConfig().schedule.model_dump(mode="json")
    return (f"agent.schedule={json.dumps(usual | changes)}",)


def trained(root: Path, task: str, **choices: Any) -> tuple[RunDirectory, Job, RunDirectory]:
    """The training on the source, done, and the fine-tuning, prepared."""
    (source, kept), (job, directory) = jobs_of(root, task, **choices)
    assert run(root, source, kept) == "done"
    return kept, job, directory


def episodes(folder: Path) -> list[dict[str, Array]]:
    return [read_arrays(path.read_bytes(), path.name) for path in episode_files(folder)]


def test_the_source_is_trained_on_its_rewards_and_named_by_its_task(tmp_path: Path) -> None:
    (source, kept), (job, _) = jobs_of(tmp_path, "ball_right")
    assert (source.spec.task, source.spec.rewarded, source.spec.keeps_episodes) == ("ball_left", True, True)
    assert source.path.split("/")[3:] == ["pretrain", "ball_left", "seed_0"]
    assert source.label == "toy pretrain ball_left seed 0"
    assert (job.spec.parent, job.spec.snapshot) == (source.id, 100)
    run(tmp_path, source, kept)
    assert not kept.eval_file.exists() or not kept.eval_file.read_bytes()
    # Its agent is a fine-tuning agent that started from nothing, which here halves what it starts from.
    (cautious, other), _ = jobs_of(tmp_path, "ball_right", agents=("toy-cautious",))
    run(tmp_path, cautious, other)
    assert not equal(final_agent(kept), final_agent(other))


@pytest.mark.parametrize("task", ["ball_right", "cube_far"])
def test_the_fine_tuning_goes_on_with_what_was_learned(tmp_path: Path, task: str) -> None:
    kept, job, directory = trained(tmp_path, task)
    run(tmp_path, job, directory, stop=StopAt(8))
    manifest = json.loads(directory.manifest_file.read_text())
    assert manifest["parent"]["id"] == job.spec.parent
    learned = final_agent(kept)
    assert learned["updates"] > 0
    assert run(tmp_path, job, directory) == "done"
    # Optimiser and counters are the source's, too.
    own_updates = read_jsonl(directory.train_file)[-1]["updates"]
    assert final_agent(directory)["updates"] == learned["updates"] + own_updates


def test_with_an_empty_replay_nothing_is_kept(tmp_path: Path) -> None:
    kept, job, directory = trained(tmp_path, "cube_far")
    assert not kept.episodes.exists()
    run(tmp_path, job, directory, stop=StopAt(3))
    assert episodes(directory.replay) == []


@pytest.mark.parametrize(("snapshots", "number"), [("last", 5), ("50", 3)])
def test_the_replay_starts_with_the_source_s_episodes_and_the_task_s_rewards(
    tmp_path: Path, snapshots: str, number: int
) -> None:
    kept, job, directory = trained(tmp_path, "ball_right", snapshots=snapshots)
    played = episodes(kept.episodes)
    assert len(played) == 5
    run(tmp_path, job, directory, stop=StopAt(number))  # once before each of them, and then before the first step
    relabelled = episodes(directory.replay)
    assert len(relabelled) == number
    for was, now in zip(played[:number], relabelled, strict=True):
        for key in ("observation", "action", "discount", "offset"):
            np.testing.assert_array_equal(was[key], now[key])
        expected = np.exp(-np.abs(was["physics"][:, 0] - RIGHT)).astype(np.float32)
        assert now["reward"][0] == 0
        np.testing.assert_array_equal(now["reward"][1:, 0], expected[1:])
        assert (now["reward"][1:] != was["reward"][1:]).all()


def test_it_learns_from_the_relabelled_episodes(tmp_path: Path) -> None:
    """Before the fine-tuning has an episode of its own."""
    _, job, directory = trained(tmp_path, "ball_right", overrides=schedule(seed_frames=0))
    run(tmp_path, job, directory)
    assert read_jsonl(directory.train_file)[0]["updates"] > 0


def test_no_more_is_taken_than_the_replay_holds(tmp_path: Path) -> None:
    kept, job, directory = trained(tmp_path, "ball_right", overrides=schedule(replay_capacity_steps=25))
    run(tmp_path, job, directory, stop=StopAt(2))
    assert [len(one["reward"]) - 1 for one in episodes(directory.replay)] == [10, 10]
    np.testing.assert_array_equal(
        [one["action"] for one in episodes(directory.replay)], [one["action"] for one in episodes(kept.episodes)[3:]]
    )


@pytest.mark.parametrize("stops", [(2,), (7, 12), (1, 1, 30, 5)])
def test_a_stopped_transfer_continues_bit_for_bit(tmp_path: Path, stops: tuple[int, ...]) -> None:
    _, whole_job, whole = trained(tmp_path / "whole", "ball_right")
    assert run(tmp_path / "whole", whole_job, whole) == "done"
    _, job, directory = trained(tmp_path / "cut", "ball_right")
    for questions in stops:
        assert run(tmp_path / "cut", job, directory, stop=StopAt(questions)) == "interrupted"
    assert run(tmp_path / "cut", job, directory) == "done"
    assert_same_run(directory, whole)


@pytest.mark.slow
def test_a_killed_transfer_continues_bit_for_bit(tmp_path: Path) -> None:
    slow = {"overrides": ("agent.pause_seconds=0.002",), "preset": "small"}
    for root in (tmp_path / "whole", tmp_path / "killed"):
        jobs_of(root, "ball_right", **slow)
    whole, killed = (
        sorted(RunStore(root).directories(), key=lambda one: "finetune" in str(one.path))
        for root in (tmp_path / "whole", tmp_path / "killed")
    )
    rng, kills = random.Random(0), 0
    for expected, directory in zip(whole, killed, strict=True):
        assert run(tmp_path / "whole", expected.read_job(tmp_path / "whole"), expected) == "done"
        kills += kill_until_done(tmp_path / "killed", directory, rng)[0]
        assert_same_run(directory, expected)
    assert kills > 1
    assert len(episodes(killed[0].episodes)) == len(json.loads(killed[0].episodes_file.read_text()))


def remove_an_episode(source: RunDirectory) -> None:
    episode_files(source.episodes)[2].unlink()


def damage_an_episode(source: RunDirectory) -> None:
    path = episode_files(source.episodes)[2]
    path.write_bytes(path.read_bytes()[:-1])


def remove_all_episodes(source: RunDirectory) -> None:
    shutil.rmtree(source.episodes)


def edit_the_list(source: RunDirectory) -> None:
    source.episodes_file.write_text("[]")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            remove_an_episode,
            r"episode_000002_10.npz of the source cannot be read: No such file .* to train on the sour",
        ),
        (damage_an_episode, r"episode_000002_10.npz of the source is not what was recorded: its SHA-256 is another"),
        (remove_all_episodes, r"episode_000000_10.npz of the source cannot be read: No such file"),
        (edit_the_list, r"episodes.json was changed after the run ended: its SHA-256 is not the one in DONE"),
    ],
)
def test_missing_or_damaged_episodes_of_the_source_are_refused(
    tmp_path: Path, damage: Callable[[RunDirectory], None], message: str
) -> None:
    kept, job, directory = trained(tmp_path, "ball_right")
    damage(kept)
    with pytest.raises(UserError, match=message):
        run(tmp_path, job, directory)
    status = directory.read_status()
    assert status is not None
    assert status.state == "failed"


def test_the_source_of_another_task_is_refused(tmp_path: Path) -> None:
    kept, job, directory = trained(tmp_path, "cube_far")
    other, _, _ = trained(tmp_path, "ball_right")
    shutil.rmtree(kept.path)
    shutil.copytree(other.path, kept.path)
    with pytest.raises(UserError, match=r"holds another pretraining .* it differs in domain, task\); put"):
        run(tmp_path, job, directory)


def test_an_environment_without_physics_cannot_be_relabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = type(toy_plugin().make_environment("ball_left", 0, 2))
    monkeypatch.delattr(environment, "set_physics_state")
    (source, kept), _ = jobs_of(tmp_path, "ball_right")
    with pytest.raises(UserError, match=r"ToyEnvironment does not tell the state of its physics, .* initial_replay be"):
        run(tmp_path, source, kept)


STATES = registry.load_suite("urlb-states")
WALKER = Suite(
    name="walker-transfer",
    version=1,
    description="from standing to walking",
    observation="states",
    action_repeat=2,
    domains=(Domain(name="walker", max_episode_frames=1000),),
    tasks=(
        Task(
            name="walker_walk",
            domain="walker",
            description="go on from standing",
            transfer=Transfer(source="walker_stand", initial_replay="relabelled"),
        ),
    ),
    protocols={
        "smoke": Protocol(
            preset="smoke",
            description="tiny",
            pretrain_frames=3000,
            snapshots=(3000,),
            finetune_frames=2000,
            eval_every_frames=1000,
            eval_episodes=1,
        )
    },
    score="normalised_return",
    normaliser=STATES.normaliser,
    environment=STATES.environment,
    packages=STATES.packages,
)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["ddpg", "dreamer"])
def test_a_walker_that_can_stand_goes_on_to_walk(tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SUITES", dict(registry._SUITES))
    registry.register_suite(WALKER)
    kept, job, directory = trained(tmp_path, "walker_walk", suite="walker-transfer", agents=(agent,), plugins=())
    assert run(tmp_path, job, directory, stop=StopAt(4)) == "interrupted"
    relabelled = episodes(directory.replay)
    assert len(relabelled) == 3
    # What the walker earns for the same actions, played from the same starts without leaving the task.
    walking = registry.load_attribute(WALKER.environment)("walker_walk", job.spec.seed, 2)
    for was, now in zip(episodes(kept.episodes), relabelled, strict=True):
        walking.reset()
        earned = [walking.step(action).reward for action in was["action"][1:]]
        np.testing.assert_allclose(now["reward"][1:, 0], earned, rtol=0, atol=1e-5)
        assert np.abs(now["reward"] - was["reward"]).max() > 0.1
    assert run(tmp_path, job, directory) == "done"
    assert len(read_jsonl(directory.eval_file)) == 2
    assert snapshot_path(directory.path, None).exists()
