"""Evaluation episodes depend on nothing but themselves, in this process or in others."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import finish, started, wait_until
from toy_judged import PLUGINS
from toy_runs import PLUGIN, Hold, assert_same_run, run, run_both, toy_jobs
from toy_search import pretrained_search

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array, Environment, Schedule
from urlbench.core.jobs import Job
from urlbench.core.registry import load_plugin
from urlbench.core.types import Search
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl
from urlbench.training import worker
from urlbench.training.assembly import build_environment
from urlbench.training.evaluation import Episode, FinetuningEvaluation, LocalPlayer, one_thread, play_episode
from urlbench.training.evaluation_pool import ProcessPlayer, open_player

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def _registered(registry_of_the_file: None) -> None:
    for plugin in PLUGINS:
        load_plugin(plugin)


class RecordingAgent(Agent):
    """Writes down what its actors are asked, in order."""

    schedule = Schedule(update_every_frames=None)

    def __init__(self) -> None:
        self.calls: list[str] = []

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        self.calls.append(f"actor {'evaluation' if evaluation else 'training'} {seed}")
        return RecordingActor(self.calls)

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        self.calls.append(f"search {seed} {skill_steps} {sample}")
        return RecordingActor(self.calls)

    def update(self, batch: Mapping[str, Array]) -> Mapping[str, float]:
        raise NotImplementedError

    def for_finetuning(self, context: AgentContext) -> Agent:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


class RecordingActor(Actor):
    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def begin_evaluation(self, seed: int) -> None:
        self._calls.append(f"shared {seed}")

    def begin_episode(self) -> None:
        self._calls.append("begin")

    def act(self, observation: Array, step: int) -> Array:
        self._calls.append(f"act {step}")
        return np.full(2, 0.5, np.float32)

    def after_step(self, step: int) -> None:
        self._calls.append(f"after {step}")

    def state_dict(self) -> dict[str, Any]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


def nothing() -> None:
    """A tick that never asks for anything."""


def search_job() -> Job:
    request = PlanRequest(suite="toy-goals", agents=("random",), seeds=(0,), preset="smoke", plugins=(str(PLUGIN),))
    return make_plan(request).jobs[0]


# --- One episode ------------------------------------------------------------------------------------


def test_the_order_of_an_episode_and_its_counter() -> None:
    environment, agent = build_environment(search_job().spec), RecordingAgent()
    ticks: list[int] = []
    rules = Search(found_reward=100.0, skill_steps=7, actions="sampled")
    outcome = play_episode(environment, agent, Episode(5, 11, 70, 2), rules, lambda: ticks.append(len(agent.calls)))
    expected = ["search 11 7 True", "begin"]
    for step in range(70, 80):
        expected += [f"act {step}"] + ([f"after {step + 1}"] if step < 79 else [])
    assert agent.calls == expected
    assert len(ticks) == outcome.steps == 10
    play_episode(environment, agent, Episode(5, 12, 0, 2), None, nothing)
    assert agent.calls[len(expected)] == "actor evaluation 12"


def test_the_episodes_before_do_not_matter() -> None:
    job, agent = search_job(), RecordingAgent()
    episodes = [Episode(seed, 0, 0, goal) for goal in range(3) for seed in (4, 5)]
    alone = [play_episode(build_environment(job.spec), agent, episode, None, nothing) for episode in episodes]
    assert len(set(alone)) > 1
    environment = build_environment(job.spec)
    for order in (episodes, episodes[::-1]):
        together = {repr(episode): play_episode(environment, agent, episode, None, nothing) for episode in order}
        assert [together[repr(episode)] for episode in episodes] == alone


def test_an_evaluation_takes_the_next_start_states_of_one_stream(tmp_path: Path) -> None:
    _, (job, _) = toy_jobs(tmp_path)
    starts: list[list[float]] = []

    class Watched:
        def __init__(self, environment: Environment) -> None:
            self._environment = environment

        def __getattr__(self, name: str) -> Any:
            return getattr(self._environment, name)

        def reset(self) -> Any:
            timestep = self._environment.reset()
            starts.append(timestep.observation.tolist())
            return timestep

    environment: Any = Watched(build_environment(job.spec))
    rest: Any = build_environment(job.spec)
    evaluation = FinetuningEvaluation(job.spec, rest, LocalPlayer(environment, None))
    agent = RecordingAgent()
    first = evaluation.play(agent, 20, nothing)
    between = evaluation.random_state()
    second = evaluation.play(agent, 40, nothing)
    fresh = build_environment(job.spec)
    assert starts == [fresh.reset().observation.tolist() for _ in range(6)]
    evaluation.set_random_state(between)
    assert evaluation.play(agent, 40, nothing) == second != first
    made = [call for call in agent.calls if call.startswith("actor")]
    shared = [call for call in agent.calls if call.startswith("shared")]
    assert len(shared) == 9
    assert len(set(shared[:3])) == len(set(shared[3:])) == 1, "its episodes share what a repeated one draws again"
    assert shared[2] != shared[3]
    assert len(set(made)) == 6, "each episode of each evaluation has a stream of its own, and a repeated one the same"
    assert [call for call in agent.calls if call.startswith("act ")][:60] == [f"act {step}" for step in range(60)]


def test_whoever_stops_an_evaluation_does_so_at_once() -> None:
    job, agent = search_job(), RecordingAgent()

    def tick() -> None:
        if "act 3" in agent.calls:
            raise InterruptedError

    player = LocalPlayer(build_environment(job.spec), None)
    with pytest.raises(InterruptedError):
        list(player.play(agent, [[Episode(0, 0, 0, 0)]], tick))
    assert agent.calls[-1] == "after 4"


def test_episodes_are_played_with_one_thread() -> None:
    torch.set_num_threads(2)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_one_process_is_this_one() -> None:
    job = search_job()
    environment = build_environment(job.spec)
    with open_player(job, environment, "cpu", 1) as player:
        assert isinstance(player, LocalPlayer)


# --- How an episode went -------------------------------------------------------------------------------


def judged_job(suite: str) -> Job:
    request = PlanRequest(
        suite=suite, agents=("random",), tasks=("ball_left",), seeds=(0,), preset="smoke", plugins=PLUGINS
    )
    return make_plan(request).jobs[0]


class Telling:
    """An environment that tells what it is made to."""

    def __init__(self, environment: Any, told: Mapping[str, float]) -> None:
        self._environment, self._told = environment, told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def outcome(self) -> Mapping[str, float]:
        return self._told


def played(suite: str, told: Mapping[str, float]) -> dict[str, list[float]]:
    spec = judged_job(suite).spec
    environment: Any = Telling(build_environment(spec), told)
    evaluation = FinetuningEvaluation(spec, environment, LocalPlayer(environment, None))
    return evaluation.play(RecordingAgent(), 20, nothing)


def test_an_evaluation_keeps_what_the_environment_tells_where_the_score_needs_it() -> None:
    both = {"success": 1.0, "completed": 3.0}
    assert (
        list(played("toy-success", both)) == list(played("toy-subtasks", both)) == ["returns", "success", "completed"]
    )
    assert played("toy-success", {"success": 1.0})["success"] == [1, 1, 1]
    assert played("toy-subtasks", {"completed": 4.0})["completed"] == [4, 4, 4]
    assert list(played("toy-states", both)) == list(played("toy-floors", both)) == ["returns"]


@pytest.mark.parametrize(
    ("suite", "told", "words"),
    [
        ("toy-success", {"completed": 1.0}, "does not tell 'success' of an episode"),
        ("toy-success", {"success": 0.5}, "ended with success 0.5, where only whole numbers from 0 to 1 can be"),
        ("toy-subtasks", {"completed": 5.0}, "ended with completed 5.0, where only whole numbers from 0 to 4 can be"),
        ("toy-subtasks", {"completed": float("nan")}, "ended with completed nan"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(suite: str, told: Mapping[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        played(suite, told)


# --- Several processes ------------------------------------------------------------------------------


@pytest.mark.slow
def test_processes_tell_how_their_episodes_went(tmp_path: Path) -> None:
    rows = []
    for workers in (1, 2):
        job = judged_job("toy-subtasks")
        directory = RunStore(tmp_path / str(workers)).run_dir(job)
        directory.prepare(job)
        assert run(tmp_path / str(workers), job, directory, env_workers=workers) == "done"
        rows.append(directory.eval_file.read_bytes())
    assert rows[0] == rows[1]
    assert b'"completed":' in rows[0]


@pytest.mark.slow
def test_processes_play_the_same_episodes(tmp_path: Path) -> None:
    expected = run_both(tmp_path / "one")[1]
    pretraining, finetuning = toy_jobs(tmp_path / "two")
    run(tmp_path / "two", *pretraining)
    assert run(tmp_path / "two", *finetuning, env_workers=2) == "done"
    assert_same_run(finetuning[1], expected)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_processes_search_the_same_goals(tmp_path: Path, workers: int) -> None:
    folders = []
    for count in (1, workers):
        root = tmp_path / str(count)
        job, directory = pretrained_search(root, preset="paper")
        assert run(root, job, directory, env_workers=count) == "done"
        folders.append(directory)
    assert folders[0].eval_file.read_bytes() == folders[1].eval_file.read_bytes()
    assert len(read_jsonl(folders[1].eval_file)) == 8


@pytest.mark.slow
def test_a_failure_in_a_process_is_the_failure_of_the_job(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job, directory = pretrained_search(tmp_path, overrides=("agent.fail_act=7",))
    with pytest.raises(ValueError, match="the toy actor fails on purpose") as failure:
        run(tmp_path, job, directory, env_workers=2)
    assert "in an evaluation process:" in failure.value.__notes__[0]
    assert 'raise ValueError("the toy actor fails on purpose")' in failure.value.__notes__[0]
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.message) == ("failed", "ValueError: the toy actor fails on purpose")


@pytest.mark.slow
def test_a_failure_at_the_start_of_a_process_is_told(tmp_path: Path) -> None:
    job, _ = pretrained_search(tmp_path)
    spec = job.spec.model_copy(update={"agent_config": {"unknown": 1}})
    player = ProcessPlayer(spec, job.plugins, "cpu", 2)
    try:
        with pytest.raises(ValueError, match="unknown"):
            list(player.play(RecordingAgent(), [[Episode(0, 0, 0, 0)]], nothing))
    finally:
        player.close()


def test_a_process_that_is_killed_is_named_as_the_reason(tmp_path: Path) -> None:
    job, _ = pretrained_search(tmp_path)
    player = ProcessPlayer(job.spec, job.plugins, "cpu", 2)

    def kill() -> None:
        os.kill(player._workers[0].process.pid or 0, signal.SIGKILL)

    try:
        with pytest.raises(UserError, match="an evaluation process was ended by SIGKILL, perhaps for lack of memory"):
            list(player.play(RecordingAgent(), [[Episode(0, 0, 0, 0)]], kill))
    finally:
        player.close()


# Ten episodes of ten steps at the most; all rows need more than two processes do before they wait.
ACTIONS_OF_A_ROW = 100


def playing(directory: RunDirectory, root: Path, hold: Hold, env_workers: int) -> AbstractContextManager[Any]:
    """A worker that plays evaluations in so many processes, until the hold."""
    command = [sys.executable, "-m", "urlbench.training.worker", str(directory.path), "--runs", str(root)]
    return started([*command, "--env-workers", str(env_workers)], env={**os.environ, **hold.environment})


def wait_for_row(directory: RunDirectory, hold: Hold, process: Any) -> None:
    """Until a row is written and a process that plays waits."""
    hold.wait(process)
    wait_until(lambda: directory.eval_file.exists() and directory.eval_file.stat().st_size, "a row", process)


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def wait_for_end(pids: set[int]) -> None:
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the processes end")


@pytest.mark.slow
def test_a_request_to_stop_ends_the_processes_at_once_and_the_rest_is_played_later(tmp_path: Path) -> None:
    whole, expected = pretrained_search(tmp_path / "whole", preset="paper")
    run(tmp_path / "whole", whole, expected)
    job, directory = pretrained_search(tmp_path, preset="paper")
    hold = Hold(tmp_path / "hold", ACTIONS_OF_A_ROW)
    with playing(directory, tmp_path, hold, env_workers=2) as process:
        wait_for_row(directory, hold, process)
        processes = children(process.pid)
        assert len(processes) >= 2
        process.send_signal(signal.SIGTERM)
        output = finish(process)
    # The one that waits has not been let go, so it was ended.
    assert process.returncode == worker.EXIT_INTERRUPTED, output
    wait_for_end(processes)
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.message) == ("interrupted", "stopped by SIGTERM")
    assert 0 < status.progress < 48
    assert run(tmp_path, job, directory) == "done"
    assert directory.eval_file.read_bytes() == expected.eval_file.read_bytes()


@pytest.mark.slow
def test_kill_9_leaves_no_process_and_loses_nothing(tmp_path: Path) -> None:
    whole, expected = pretrained_search(tmp_path / "whole", preset="paper")
    run(tmp_path / "whole", whole, expected)
    job, directory = pretrained_search(tmp_path, preset="paper")
    for env_workers in (2, 1):
        hold = Hold(tmp_path / f"hold {env_workers}", ACTIONS_OF_A_ROW)
        with playing(directory, tmp_path, hold, env_workers) as process:
            wait_for_row(directory, hold, process)
            processes = children(process.pid)
            process.kill()
        hold.let_go()
        wait_for_end(processes)
    assert run(tmp_path, job, directory, env_workers=2) == "done"
    assert directory.eval_file.read_bytes() == expected.eval_file.read_bytes()


@pytest.mark.slow
def test_processes_play_the_same_episodes_of_the_real_walker(tmp_path: Path) -> None:
    request = PlanRequest(
        suite="urlb-states",
        agents=("choreographer",),
        tasks=("walker_stand",),
        seeds=(0,),
        preset="smoke",
        overrides=("agent.schedule.update_every_frames=500",),
    )
    results = []
    for workers in (1, 2):
        store = RunStore(tmp_path / str(workers))
        for job in make_plan(request).jobs:
            store.run_dir(job).prepare(job)
            assert run(store.root, job, store.run_dir(job), env_workers=workers) == "done"
        results.append(store.run_dir(job))
    assert_same_run(*results)
    assert [len(row["returns"]) for row in read_jsonl(results[0].eval_file)] == [2, 2]
