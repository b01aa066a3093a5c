"""The loop of training: in which order it asks the agent, and when it updates, evaluates and keeps snapshots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import PLUGIN, StopAt, assert_same_run, equal, final_agent, run, toy_jobs, toy_plugin, with_protocol

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array, Schedule
from urlbench.episodes.replay import Replay
from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore, Status, read_jsonl
from urlbench.training.checkpoint import snapshot_path
from urlbench.training.evaluation import FinetuningEvaluation, LocalPlayer
from urlbench.training.learning import Surroundings
from urlbench.training.loop import TrainingLoop, updates_due
from urlbench.training.metrics import EpisodeMetrics


class ScriptedAgent(Agent):
    """Writes down what it is asked, in order."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.calls: list[str] = []

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        return ScriptedActor(self, "eval " if evaluation else "")

    def update(self, batch: Mapping[str, Array]) -> Mapping[str, float]:
        self.calls.append("update")
        return {"loss": float(len(self.calls))}

    def for_finetuning(self, context: AgentContext) -> Agent:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"calls": list(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = list(state["calls"])


class ScriptedActor(Actor):
    def __init__(self, agent: ScriptedAgent, prefix: str) -> None:
        self._agent, self._prefix = agent, prefix

    def _note(self, call: str) -> None:
        self._agent.calls.append(self._prefix + call)

    def begin_episode(self) -> None:
        self._note("begin")

    def act(self, observation: Array, step: int) -> Array:
        self._note(f"act {step}")
        return np.zeros(2, np.float32)

    def after_step(self, step: int) -> None:
        self._note(f"after {step}")

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class RecordingEnvironment:
    """Keeps the actions it is given."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self.actions: list[Array] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def step(self, action: Array) -> Any:
        self.actions.append(action)
        return self._environment.step(action)


def scripted_run(
    tmp_path: Path,
    phase: str,
    schedule: Schedule,
    *,
    repeat: int = 1,
    agent: type[ScriptedAgent] = ScriptedAgent,
    **protocol: object,
) -> tuple[list[str], RecordingEnvironment, RunDirectory]:
    """A loop of 20-frame episodes with a scripted agent."""
    jobs = toy_jobs(tmp_path)
    job, directory = with_protocol(jobs[0 if phase == "pretrain" else 1][0], tmp_path, **protocol)
    spec = job.spec.model_copy(update={"action_repeat": repeat})
    scripted = agent(schedule)
    make = toy_plugin().make_environment
    environment = RecordingEnvironment(make("ball_left", 0, repeat))
    replay = Replay(directory.replay, (4,), np.float32, 2, 1000, scripted.recorded)
    heartbeat = Heartbeat(directory, Status(state="running", phase=spec.phase))
    surroundings = Surroundings(directory, heartbeat, lambda: "", 1e9)
    evaluation = None
    if phase == "finetune":
        played = make("ball_left", 0, repeat)
        evaluation = FinetuningEvaluation(spec, played, LocalPlayer(played, None))
    TrainingLoop(job.id, spec, scripted, environment, evaluation, replay, surroundings).run()
    return scripted.calls, environment, directory


FINETUNE = {"finetune_frames": 40, "eval_every_frames": 20, "eval_episodes": 2}


def test_the_order_of_a_finetuning(tmp_path: Path) -> None:
    schedule = Schedule(update_every_frames=10, seed_frames=10, batch_size=1, batch_length=3)
    calls, _, directory = scripted_run(tmp_path, "finetune", schedule, **FINETUNE)
    first_episode = ["begin"]
    for step in range(20):
        first_episode += [f"act {step}"] + ([f"after {step + 1}"] if step < 19 else [])
    evaluation = []
    for step in range(40):
        evaluation += (["eval begin"] if step % 20 == 0 else []) + [f"eval act {step}"]
        evaluation += [f"eval after {step + 1}"] if step not in (19, 39) else []
    second_episode = ["begin"]
    tail = []
    for step in range(20, 40):
        # The update at frame 10 was skipped: there was no complete episode yet.
        tail += (
            [f"act {step}"] + (["update"] if step in (20, 30) else []) + ([f"after {step + 1}"] if step < 39 else [])
        )
    third_episode = ["begin"]
    assert calls == first_episode + second_episode + evaluation + tail + third_episode + evaluation
    rows = read_jsonl(directory.eval_file)
    assert [(row["frame"], row["task"], len(row["returns"])) for row in rows] == [
        (20, "ball_left", 2),
        (40, "ball_left", 2),
    ]
    assert rows[0]["mean"] == np.mean(rows[0]["returns"])
    assert [(row["frame"], row["episode"], row["updates"]) for row in read_jsonl(directory.train_file)] == [
        (20, 0, 0),
        (40, 1, 2),
    ]


def test_frames_are_steps_times_the_action_repeat(tmp_path: Path) -> None:
    schedule = Schedule(update_every_frames=10, seed_frames=0, batch_size=1, batch_length=3)
    calls, environment, directory = scripted_run(tmp_path, "finetune", schedule, repeat=2, **FINETUNE)
    assert [call for call in calls if call.startswith("act")] == [f"act {step}" for step in range(20)]
    assert calls.count("update") == 2
    assert [row["frame"] for row in read_jsonl(directory.eval_file)] == [20, 40]
    assert len(environment.actions) == 20


def test_no_evaluation_while_pretraining(tmp_path: Path) -> None:
    schedule = Schedule(update_every_frames=None, seed_frames=0, random_action_phases=())
    calls, _, directory = scripted_run(tmp_path, "pretrain", schedule)
    assert not any("eval" in call for call in calls)
    assert "update" not in calls
    assert directory.lengths()["eval.jsonl"] == 0
    assert not snapshot_path(directory.path, None).exists()


@pytest.mark.parametrize(("bound", "limit"), [("one", 1.0), ("action_dim", 2.0)])
def test_random_actions_at_the_start(tmp_path: Path, bound: Any, limit: float) -> None:
    schedule = Schedule(update_every_frames=None, seed_frames=45, seed_action_bound=bound)
    calls, environment, _ = scripted_run(tmp_path, "pretrain", schedule)
    start = np.abs(np.array(environment.actions[:45]))
    assert 0.9 * limit < start.max() <= limit
    assert not np.any(environment.actions[45:])
    assert [call for call in calls if call.startswith("act")] == [f"act {step}" for step in range(45, 100)]


def test_random_actions_only_in_the_phases_that_ask_for_them(tmp_path: Path) -> None:
    schedule = Schedule(update_every_frames=None, seed_frames=45)
    calls, environment, _ = scripted_run(tmp_path, "finetune", schedule, **FINETUNE)
    assert not np.any(environment.actions)
    assert "act 0" in calls


def test_nothing_is_rendered_for_an_agent_that_does_not_look(tmp_path: Path) -> None:
    """It sees arrays without a number, in the replay and in a continued run, too."""
    request = PlanRequest(
        suite="toy-pixels", agents=("random",), tasks=("ball_left",), seeds=(0,), preset="smoke", plugins=(str(PLUGIN),)
    )
    results = []
    for name, questions in (("whole", 10_000), ("cut", 25)):
        (job,) = make_plan(request).jobs
        directory = RunStore(tmp_path / name).run_dir(job)
        directory.prepare(job)
        assert job.spec.image is None
        left = iter(range(questions))
        outcome = run(
            tmp_path / name, job, directory, stop=lambda left=left: "" if next(left, None) is not None else "no"
        )
        assert outcome == ("done" if name == "whole" else "interrupted")
        assert run(tmp_path / name, job, directory) == "done"
        results.append(directory)
    assert_same_run(*results)
    assert [row["frame"] for row in read_jsonl(results[0].eval_file)] == [20, 40, 60, 80]


class CountingActor(ScriptedActor):
    """Records how often it was asked for something new, random actions included."""

    count = 0

    def begin_episode(self) -> None:
        self.count += 10

    def before_step(self, step: int) -> None:
        self.count += step % 2

    def recorded(self) -> Mapping[str, Array]:
        return {"count": np.array([self.count])}


@pytest.mark.parametrize("seed_frames", [0, 30])
def test_what_the_actor_records_is_kept_with_each_entry(tmp_path: Path, seed_frames: int) -> None:
    schedule = Schedule(update_every_frames=None, seed_frames=seed_frames)

    class CountingAgent(ScriptedAgent):
        recorded = {"count": (1,)}  # noqa: RUF012

        def actor(self, *, evaluation: bool, seed: int) -> Actor:
            return CountingActor(self, "")

    _, _, directory = scripted_run(tmp_path, "pretrain", schedule, agent=CountingAgent)
    counts = [np.load(path)["count"][:, 0].tolist() for path in sorted(directory.replay.glob("episode_*.npz"))]
    # Begun with 10 more and one more before every second step; the entry of a reset comes before any step.
    assert counts[0] == [10, *(10 + (step + 1) // 2 for step in range(20))]
    assert counts[1] == [30, *(30 + (step + 1) // 2 for step in range(20))]


@pytest.mark.parametrize(
    ("period", "repeat", "seed_frames", "expected"),
    [
        (10, 1, 0, [0, 10, 20, 30]),
        (10, 2, 0, [0, 10, 20, 30]),
        (10, 2, 12, [20, 30]),
        (10, 2, 20, [20, 30]),
        (3, 2, 0, [0, 4, 6, 10, 12, 16, 18, 22, 24, 28, 30, 34, 36]),
        (1, 2, 30, [30, 30, 32, 32, 34, 34, 36, 36, 38, 38]),
        (None, 1, 0, []),
    ],
)
def test_when_updates_are_due(period: int | None, repeat: int, seed_frames: int, expected: list[int]) -> None:
    schedule = Schedule(update_every_frames=period, seed_frames=seed_frames)
    frames = range(0, 40, repeat)
    assert [frame for frame in frames for _ in range(updates_due(frame, repeat, schedule, 0))] == expected


def test_the_published_number_of_updates() -> None:
    schedule = Schedule()
    assert sum(updates_due(frame, 1, schedule, 0) for frame in range(100_000)) == 9_600


def test_snapshots_are_of_the_first_episode_end_at_or_after_the_threshold(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    run(tmp_path, job, directory)
    # Updates every 3 frames from frame 45 on; episodes end at 20, 40, 60, 80, 100.
    for frames, updates in ((50, 5), (100, 19)):
        agent = torch.load(snapshot_path(directory.path, frames), weights_only=True)["agent"]
        assert agent["updates"] == updates


def test_evaluating_does_not_change_training(tmp_path: Path) -> None:
    pretraining, (job, directory) = toy_jobs(tmp_path)
    run(tmp_path, *pretraining)
    run(tmp_path, job, directory)
    other, other_directory = with_protocol(job, tmp_path, eval_episodes=1, eval_every_frames=80)
    run(tmp_path, other, other_directory)
    assert directory.train_file.read_bytes() == other_directory.train_file.read_bytes()
    assert equal(final_agent(directory), final_agent(other_directory))
    last, only = read_jsonl(directory.eval_file)[-1], read_jsonl(other_directory.eval_file)[-1]
    assert last["frame"] == only["frame"] == 80


def test_cells_that_were_visited_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = [tmp_path / name for name in ("without", "whole", "stopped")]
    (directory, job), *covered = [(pair[1], pair[0]) for pair, _ in map(toy_jobs, roots)]
    run(roots[0], job, directory)
    toys = toy_plugin().ToyEnvironment
    monkeypatch.setattr(toys, "cell", lambda toy: (int(toy._position[0] // 0.1), toy._frame // 15), raising=False)
    (whole, job), (stopped, other) = covered
    run(roots[1], job, whole)
    for questions in (7, 30):
        assert run(roots[2], other, stopped, stop=StopAt(questions)) == "interrupted"
    run(roots[2], other, stopped)
    rows = read_jsonl(whole.train_file)
    assert stopped.train_file.read_bytes() == whole.train_file.read_bytes()
    assert [{key: value for key, value in row.items() if "cells" not in key} for row in rows] == read_jsonl(
        directory.train_file
    )
    seen = 0
    for row in rows:
        assert max(seen, row["episode_cells"], 2) <= row["cells"] <= seen + row["episode_cells"]
        seen = row["cells"]
    assert seen < sum(row["episode_cells"] for row in rows)


class Lazy:
    """A value that is expensive to read."""

    reads = 0

    def __float__(self) -> float:
        Lazy.reads += 1
        return 3.0


def test_metrics_are_read_at_the_end_of_an_episode_only() -> None:
    metrics = EpisodeMetrics()
    weight = torch.ones((), requires_grad=True)
    metrics.add({"lazy": Lazy(), "tensor": weight * 2, "number": 1})
    metrics.add({"lazy": Lazy(), "tensor": weight * 4})
    assert Lazy.reads == 0
    assert not any(isinstance(value, torch.Tensor) and value.requires_grad for _, value in metrics._pending)
    restored = EpisodeMetrics()
    restored.load_state_dict(metrics.state_dict())
    assert restored.take_means("then") == {"lazy": 3.0, "tensor": 3.0, "number": 1.0}
    assert restored.take_means("then") == {}
    metrics.add({"tensor": torch.tensor(torch.inf)})
    with pytest.raises(UserError, match="the update's tensor became infinite or NaN"):
        metrics.take_means("then")
