import hashlib
import json
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import PLUGIN, assert_same_run, equal, final_agent, run, run_both, toy_jobs

from urlbench import worker
from urlbench.checkpoint import snapshot_path
from urlbench.errors import UserError
from urlbench.evaluation import FinetuningEvaluation, LocalPlayer
from urlbench.heartbeat import Heartbeat
from urlbench.identity import job_id
from urlbench.interfaces import Actor, Agent, AgentContext, Array, Schedule
from urlbench.plan import PlanRequest, make_plan
from urlbench.registry import load_plugin
from urlbench.replay import Replay
from urlbench.runner import Surroundings, TrainingLoop, updates_due
from urlbench.store import RunDirectory, RunStore, Status, read_jsonl
from urlbench.training_metrics import EpisodeMetrics
from urlbench.types import Job, Protocol


def toy() -> Any:
    load_plugin(str(PLUGIN))
    return sys.modules["urlbench_plugin_toy_plugin"]


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


def with_protocol(job: Job, directory: RunDirectory, root: Path, **changes: object) -> tuple[Job, RunDirectory]:
    """The same job with another protocol, prepared beside it."""
    values = job.spec.protocol.model_dump() | changes
    return with_spec(job, root, protocol=Protocol.model_validate(values))


def with_spec(job: Job, root: Path, **changes: object) -> tuple[Job, RunDirectory]:
    spec = job.spec.model_copy(update=changes)
    other = job.model_copy(update={"spec": spec, "id": job_id(spec), "path": job.path + "_other"})
    directory = RunStore(root).run_dir(other)
    directory.prepare(other)
    return other, directory


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
    job, directory = with_protocol(*jobs[0 if phase == "pretrain" else 1], tmp_path, **protocol)
    spec = job.spec.model_copy(update={"action_repeat": repeat})
    scripted = agent(schedule)
    make = toy().make_environment
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
    assert [frame for frame in frames for _ in range(updates_due(frame, repeat, schedule))] == expected


def test_the_published_number_of_updates() -> None:
    schedule = Schedule()
    assert sum(updates_due(frame, 1, schedule) for frame in range(100_000)) == 9_600


def test_snapshots_are_of_the_first_episode_end_at_or_after_the_threshold(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    run(tmp_path, job, directory)
    # Updates every 3 frames from frame 45 on; episodes end at 20, 40, 60, 80, 100.
    for frames, updates in ((50, 5), (100, 19)):
        agent = torch.load(snapshot_path(directory.path, frames), weights_only=True)["agent"]
        assert agent["updates"] == updates


def test_the_end_of_the_budget_ends_the_run_and_keeps_the_agent(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    job, directory = with_protocol(job, directory, tmp_path, pretrain_frames=90, snapshots=(50, 90))
    assert run(tmp_path, job, directory) == "done"
    assert json.loads(directory.done_file.read_text())["frames"] == 90
    assert final_agent(directory)["updates"] == 15


def test_a_finetuning_starts_from_its_snapshot(tmp_path: Path) -> None:
    pretraining, finetuning = run_both(tmp_path, overrides=("agent.schedule.update_every_frames=null",))
    assert equal(final_agent(pretraining)["model"], final_agent(finetuning)["model"])
    other = run_both(tmp_path, seed=3, overrides=("agent.schedule.update_every_frames=null",))
    assert not equal(final_agent(pretraining)["model"], final_agent(other[1])["model"])
    manifest = json.loads(finetuning.manifest_file.read_text())
    assert manifest["parent"]["path"].endswith("pretrain/ball/seed_0")
    sidecar = json.loads(snapshot_path(pretraining.path, 100).with_suffix(".json").read_text())
    assert manifest["parent"]["snapshot_sha256"] == sidecar["sha256"]
    assert {"git", "packages", "python", "hardware", "command"} <= manifest.keys()
    assert manifest["plugins"] == {str(PLUGIN): hashlib.sha256(PLUGIN.read_bytes()).hexdigest()}


def test_evaluating_does_not_change_training(tmp_path: Path) -> None:
    pretraining, (job, directory) = toy_jobs(tmp_path)
    run(tmp_path, *pretraining)
    run(tmp_path, job, directory)
    other, other_directory = with_protocol(job, directory, tmp_path, eval_episodes=1, eval_every_frames=80)
    run(tmp_path, other, other_directory)
    assert directory.train_file.read_bytes() == other_directory.train_file.read_bytes()
    assert equal(final_agent(directory), final_agent(other_directory))
    last, only = read_jsonl(directory.eval_file)[-1], read_jsonl(other_directory.eval_file)[-1]
    assert last["frame"] == only["frame"] == 80


def test_a_run_that_is_done_is_left_alone(tmp_path: Path) -> None:
    _, directory = run_both(tmp_path)
    _, (job, _) = toy_jobs(tmp_path)
    names = sorted(path.name for path in directory.path.iterdir())
    before = {path: path.stat().st_mtime_ns for path in directory.path.iterdir() if path.name != "lock"}
    assert run(tmp_path, job, directory) == "done"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert names == [
        *("DONE", "attempts.jsonl", "eval.jsonl", "lock", "manifest.json", "snapshots", "spec.json"),
        *("status.json", "train.jsonl"),
    ]
    directory.eval_file.write_bytes(directory.eval_file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"eval.jsonl was changed after the run ended"):
        run(tmp_path, job, directory)


def test_a_failure_is_recorded_and_repeats(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path, agent="toy-fail", seed=1)
    for attempt in (1, 2):
        with pytest.raises(ValueError, match="fails on purpose"):
            run(tmp_path, job, directory)
        status = directory.read_status()
        assert status is not None
        assert (status.state, status.attempt) == ("failed", attempt)
        assert status.message == "ValueError: the toy agent fails on purpose"
    reasons = [row["reason"] for row in read_jsonl(directory.attempts_file) if "reason" in row]
    assert reasons == ["ValueError: the toy agent fails on purpose"] * 2
    (job, directory), _ = toy_jobs(tmp_path, agent="toy-fail", seed=0)
    assert run(tmp_path, job, directory) == "done"


def test_the_status_says_that_a_run_is_running_while_it_is(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    states: list[tuple[str, int]] = []

    def look() -> str:
        status = json.loads(directory.status_file.read_text())
        states.append((status["state"], status["attempt"]))
        return ""

    run(tmp_path, job, directory, stop=look)
    assert set(states[1:]) == {("running", 1)}


def test_nan_in_a_metric_fails_the_run(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path, overrides=("agent.nan_update=3",))
    message = "the update's loss became infinite or NaN in the episode that ended at frame 60"
    with pytest.raises(UserError, match=message):
        run(tmp_path, job, directory)
    status = directory.read_status()
    assert status is not None
    assert message in status.message
    assert len(read_jsonl(directory.train_file)) == 2


def test_nan_in_a_return_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = toy().ToyEnvironment
    original = environment.step
    monkeypatch.setattr(environment, "step", lambda self, action: original(self, action)._replace(reward=np.nan))
    (job, directory), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="the return of the episode that ended at frame 20 is nan"):
        run(tmp_path, job, directory)


def test_a_parent_that_is_not_there_is_not_replaced(tmp_path: Path) -> None:
    pretraining, finetuning = toy_jobs(tmp_path)
    with pytest.raises(UserError, match=r"its pretraining .*pretrain/ball/seed_0 is not finished"):
        run(tmp_path, *finetuning)
    run(tmp_path, *pretraining)
    other = with_spec(finetuning[0], tmp_path, parent="0123456789abcdef")
    with pytest.raises(UserError, match=r"holds another pretraining than .*, not 0123456789abcdef"):
        run(tmp_path, *other)
    snapshot_path(pretraining[1].path, 100).unlink()
    with pytest.raises(UserError, match=r"snapshot_100.pt does not exist"):
        run(tmp_path, *finetuning)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match=r"planned with numpy 0.1 and .* is installed; install numpy==0.1"):
        run(tmp_path, *with_spec(job, tmp_path, versions={"numpy": "0.1"}))


def test_another_version_of_the_suite_is_refused(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="is of suite toy-states@7 and toy-states@1 is installed"):
        run(tmp_path, *with_spec(job, tmp_path, suite="toy-states@7"))


def test_budgets_must_fit_the_action_repeat(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="pretrain_frames 100 is not a multiple of the action repeat 3"):
        run(tmp_path, *with_spec(job, tmp_path, action_repeat=3))


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_the_worker_runs_records_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (_, directory), _ = toy_jobs(tmp_path)
    command = [str(directory.path), "--runs", str(tmp_path)]
    with directory.lock():
        assert worker.main(command) == worker.EXIT_FAILED
    refusal = capsys.readouterr().err
    assert "is being run by process" in refusal
    assert refusal.count("\n") == 1
    status = directory.read_status()
    assert status is not None
    assert status.state == "queued"
    assert worker.main(command) == worker.EXIT_DONE
    assert worker.main([str(tmp_path / "nowhere"), "--runs", str(tmp_path)]) == worker.EXIT_FAILED
    (_, failing), _ = toy_jobs(tmp_path, agent="toy-fail", seed=1)
    assert worker.main([str(failing.path), "--runs", str(tmp_path)]) == worker.EXIT_FAILED
    assert "Traceback" in capsys.readouterr().err


def test_the_seed_and_only_the_seed_changes_a_run(tmp_path: Path) -> None:
    for one, other in zip(run_both(tmp_path / "a", seed=5), run_both(tmp_path / "b", seed=5), strict=True):
        assert_same_run(one, other)


def test_the_status_tells_speed_over_the_recent_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, directory) = toy_jobs(tmp_path)
    heartbeat = Heartbeat(directory, Status(state="running", phase="finetune", budget=80))
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    frame, speeds = 0, []
    for second in range(80):
        now, frame = 100.0 + second, frame + (10 if second < 40 else 50)
        heartbeat.beat(frame)
        stored = json.loads(directory.status_file.read_text())
        speeds.append((stored["progress"], stored["per_second"]))
    assert speeds[0] == (10, None)
    assert speeds[1] == speeds[0]
    assert speeds[30] == (310, 10.0)
    assert speeds[78][1] == pytest.approx(50.0)


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
