"""Bursts of updates, updates that are made up for, and several batches at a time."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import StopAt, assert_same_run, run, run_both, toy_jobs

from urlbench.core.config import agent_changes, plain_values, resolve_config
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, AgentSpec, Array, Batch, Schedule, TimeStep
from urlbench.core.types import Spec
from urlbench.episodes.replay import Replay
from urlbench.runs.store import read_jsonl
from urlbench.training.learning import LearningLoop
from urlbench.training.loop import updates_due

torch.set_num_threads(1)
BURSTS = "agent.schedule={update_every_frames: 20, updates: 6, seed_frames: 30, catch_up: true, batch_size: 4, "
BURSTS += "batch_length: 5}"


def due(schedule: Schedule, frames: int, repeat: int = 1, *, first_possible: int = 0) -> dict[int, int]:
    """How many updates are due at each frame where there are any, if all of them are made from `first_possible` on."""
    made: dict[int, int] = {}
    for frame in range(first_possible, frames, repeat):
        if number := updates_due(frame, repeat, schedule, sum(made.values())):
            made[frame] = number
    return made


def test_bursts_come_with_the_period() -> None:
    assert due(Schedule(update_every_frames=500, updates=10, seed_frames=600), 2100) == {1000: 10, 1500: 10, 2000: 10}
    assert due(Schedule(update_every_frames=5, updates=2, seed_frames=0), 20, repeat=2) == {0: 2, 6: 2, 10: 2, 16: 2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # TD-MPC: as many updates as steps, those of the seed frames at once (Hansen et al. 2022).
        ({"update_every_frames": 500, "updates": 500, "seed_frames": 5000}, {5000: 5000, 5500: 500, 6000: 500}),
        # SkiMo in the kitchen: 10 + 100 after the first 500 frames that follow the warm-up (Shi et al. 2022).
        ({"update_every_frames": 500, "updates": 10, "seed_frames": 5500}, {5500: 110, 6000: 10}),
        ({"update_every_frames": 7, "updates": 1, "seed_frames": 5990}, {5990: 855, 5992: 1, 5999: 1}),
        ({"update_every_frames": 500, "updates": 3, "seed_frames": 0}, {500 * n: 3 for n in range(1, 13)}),
    ],
)
def test_agents_that_catch_up_make_the_updates_of_their_seed_frames(
    settings: dict[str, Any], expected: dict[int, int]
) -> None:
    schedule = Schedule(catch_up=True, **settings)
    assert due(schedule, 6001) == expected
    # Nor is any lost if there is nothing to sample for long.
    assert sum(due(schedule, 6001, first_possible=5999).values()) == sum(expected.values())


def test_updates_that_were_impossible_are_made_up_for(tmp_path: Path) -> None:
    """The first episode ends at frame 20, after the seed frames; before it there is nothing to learn from."""
    schedule = "agent.schedule={update_every_frames: 2, seed_frames: 4, batch_size: 2, batch_length: 3"
    for catches, updates in ((False, [0, 10, 20, 30, 40]), (True, [0, 19, 29, 39, 49])):
        root = tmp_path / str(catches)
        (job, directory), _ = toy_jobs(root, overrides=(f"{schedule}, catch_up: {str(catches).lower()}}}",))
        run(root, job, directory)
        # The update of frame 20 comes in the episode after the one that ended there.
        assert [row["updates"] for row in read_jsonl(directory.train_file)] == updates


def test_a_stop_amid_a_burst_keeps_what_it_has_done(tmp_path: Path) -> None:
    expected = run_both(tmp_path / "whole", overrides=(BURSTS,))
    kept = set()
    for questions in range(28, 52):
        runs = toy_jobs(tmp_path / str(questions), overrides=(BURSTS,))
        job, directory = runs[0]
        assert run(tmp_path / str(questions), job, directory, stop=StopAt(questions)) == "interrupted"
        kept |= {path.stem for path in directory.checkpoints.glob("*.pt")}
        assert run(tmp_path / str(questions), job, directory) == "done"
        assert_same_run(directory, expected[0])
    # At frame 30 the six updates of frame 20, and at frame 40 its own.
    for frame in (30, 40):
        assert {f"checkpoint_00000000{frame}_{made:010d}" for made in range(1, 6)} <= kept
        assert {f"checkpoint_00000000{frame}", f"checkpoint_00000000{frame + 1}"} <= kept


def test_nothing_is_evaluated_twice_if_a_run_goes_on_amid_a_burst(tmp_path: Path) -> None:
    expected = run_both(tmp_path / "whole", overrides=(BURSTS,))
    pretraining, (job, directory) = toy_jobs(tmp_path, overrides=(BURSTS,))
    run(tmp_path, *pretraining)
    # It asks at the steps of both evaluations, too: the second one is at frame 40, where the burst is.
    for questions in itertools.count(40 + 2 * 60 + 2):
        assert run(tmp_path, job, directory, stop=StopAt(questions)) == "interrupted"
        if "_" in max(directory.checkpoints.glob("*.pt")).stem.removeprefix("checkpoint_"):
            break
        directory.remove_progress()
    assert [row["frame"] for row in read_jsonl(directory.eval_file)] == [20, 40]
    assert run(tmp_path, job, directory) == "done"
    assert_same_run(directory, expected[1])


class Keeper(Agent):
    """Keeps the batches it is given."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.given = schedule, list[Mapping[str, Any]]()

    def update(self, batch: Mapping[str, Any]) -> Mapping[str, float]:
        self.given.append(batch)
        return {}

    actor = for_finetuning = state_dict = load_state_dict = None  # type: ignore[assignment]


def one_update(schedule: Schedule) -> Mapping[str, Any]:
    """What an agent is given by a loop whose replay holds an episode of 30 steps."""
    replay = Replay(None, (1,), np.float32, 1, 100)
    for t in range(31):
        step = TimeStep(np.array([t]), float(t), 1.0, t == 0, t == 30)
        replay.add(step, np.zeros(1, np.float32) if t else None)
    agent = Keeper(schedule)

    class Loop(LearningLoop):
        progress = 0

        def __init__(self) -> None:
            self._agent, self._replay, self._schedule, self._updates = agent, replay, schedule, 0
            self._streams = {"replay": np.random.default_rng(0)}
            self._metrics = type("Nothing", (), {"add": lambda self, metrics: None})()  # type: ignore[assignment]

    Loop()._update()
    return agent.given[0]


def test_named_batches_are_drawn_in_the_order_of_their_names() -> None:
    model, skills = Batch(size=3, length=4), Batch(size=2, length=3, stride=10, start_every=10)
    one, other = (
        one_update(Schedule(batches=batches))
        for batches in ({"model": model, "skills": skills}, {"skills": skills, "model": model})
    )
    assert list(one) == list(other) == ["model", "skills"]
    for name in one:
        assert all(np.array_equal(one[name][key], other[name][key]) for key in one[name])
    assert one["model"]["reward"].shape == (3, 4)
    observation: Array = one["skills"]["observation"][:, :, 0]
    assert {tuple(window) for window in observation.tolist()} <= {(0, 10, 20), (10, 20, 30)}
    np.testing.assert_array_equal(one["skills"]["reward"], np.where(observation > 0, 10 * observation - 45, 0))


def test_one_batch_is_given_without_a_name() -> None:
    named = one_update(Schedule(batches={"model": Batch(size=3, length=4)}))["model"]
    unnamed = one_update(Schedule(batch_size=3, batch_length=4))
    assert named.keys() == unnamed.keys()
    assert all(np.array_equal(named[key], unnamed[key]) for key in named)


class Config(Spec):
    schedule: Schedule = Schedule()


SPEC = AgentSpec(
    name="painter", description="", paper="", observations=("states",), pretrains=True, config=Config,
    build=lambda context, config: None, presets={},  # type: ignore[arg-type, return-value]
)  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{updates: 10, update_every_frames: null}", "updates and catch_up ask for updates, and update_every_frames"),
        ("{catch_up: true, update_every_frames: null}", "ask for updates, and update_every_frames null for none"),
        ("{updates: 0}", "schedule.updates: Input should be greater than 0"),
        ("{batches: {model: {size: 3}}}", "schedule.batches.model.length: Field required"),
        (
            "{batches: {model: {size: 3, length: 2, stride: 0}}}",
            "schedule.batches.model.stride: Input should be greater",
        ),
        ("{batches: {model: {size: 3, length: 2, strid: 2}}}", "schedule.batches.model.strid: Extra inputs are not"),
        (
            "{batches: {model: {size: 3, length: 2, newest_steps: 500}}, replay_capacity_steps: 400}",
            "batch 'model' is of the newest_steps 500, and the replay holds replay_capacity_steps 400",
        ),
    ],
)
def test_settings_that_do_not_fit_are_one_sentence(settings: str, message: str) -> None:
    changes = agent_changes(("painter",), (f"agent.schedule={settings}",))
    with pytest.raises(UserError, match=message) as refusal:
        resolve_config(SPEC, "paper", changes["painter"])
    assert "\n" not in str(refusal.value)


def test_settings_of_later_are_hashed_where_they_are_used() -> None:
    plain = plain_values(Config())["schedule"]
    assert not plain.keys() & {"updates", "catch_up", "batches"}
    used = plain_values(Config(schedule=Schedule(updates=2, batches={"model": Batch(size=3, length=4)})))["schedule"]
    batch = {"size": 3, "length": 4, "stride": 1, "start_every": 1, "newest_steps": None}
    assert used == plain | {"updates": 2, "batches": {"model": batch}}
