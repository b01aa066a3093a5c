"""Searches for goals: their rows, what counts as found, and that nothing but the job decides the results."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import urlbench
from toy_runs import PLUGIN, StopAt, run
from toy_search import pretrained_search, search_jobs

from urlbench.agents.random import RandomAgent, RandomConfig
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentContext, Array, GoalEnvironment, TimeStep
from urlbench.core.jobs import Job
from urlbench.core.seeding import derive_seed
from urlbench.core.types import Protocol, Search
from urlbench.episodes.replay import aligned
from urlbench.runs.store import RunDirectory, read_jsonl
from urlbench.training.assembly import build_agent, build_environment, check_budgets
from urlbench.training.evaluation import Episode, Outcome, play_episode
from urlbench.training.job import run_job
from urlbench.training.search import blocks_of, keep_whole_rows

ROOT = Path(__file__).parents[2]
torch.set_num_threads(1)
pytestmark = pytest.mark.usefixtures("toy_suites")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, RunDirectory]:
    """12 episodes of each of 4 goals."""
    root = tmp_path_factory.mktemp("reference")
    job, directory = pretrained_search(root, preset="paper")
    assert run(root, job, directory) == "done"
    return job, directory


def with_protocol(job: Job, **changes: Any) -> Job:
    """The job with other rules; its id stays, so it is for looking only."""
    protocol = Protocol.model_validate(job.spec.protocol.model_dump() | changes)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"protocol": protocol})})


# --- What a search writes ---------------------------------------------------------------------------


def test_rows_are_blocks_of_ten_episodes_of_a_goal_in_order(reference: tuple[Job, RunDirectory]) -> None:
    _, directory = reference
    rows = read_jsonl(directory.eval_file)
    assert [(row["task"], row["goal"], row["first_episode"], len(row["found"])) for row in rows] == [
        ("line_find", goal, first, episodes) for goal in range(4) for first, episodes in ((0, 10), (10, 2))
    ]
    for row in rows:
        lists = [row[name] for name in ("found", "returns", "max_rewards", "steps")]
        assert {len(values) for values in lists} == {len(row["found"])}
        assert [{type(value) for value in values} for values in lists] == [{bool}, {float}, {float}, {int}]


def test_a_search_that_is_done_says_so_in_episodes(reference: tuple[Job, RunDirectory]) -> None:
    job, directory = reference
    done = json.loads(directory.done_file.read_text())
    assert done["episodes"] == 48
    assert "frames" not in done
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.progress, status.budget, status.unit) == ("done", 48, 48, "episodes")
    manifest = json.loads(directory.manifest_file.read_text())
    assert manifest["parent"]["id"] == job.spec.parent
    assert sorted(path.name for path in directory.path.iterdir()) == [
        *("DONE", "attempts.jsonl", "eval.jsonl", "lock", "manifest.json", "spec.json", "status.json"),
    ]


@pytest.mark.parametrize("preset", ["paper", "paper-released-code"])
def test_every_episode_is_what_playing_it_alone_gives(tmp_path: Path, preset: str) -> None:
    job, directory = pretrained_search(tmp_path, preset=preset, seeds=(3,))
    run(tmp_path, job, directory)
    rows = read_jsonl(directory.eval_file)
    rules = job.spec.protocol.search
    assert rules is not None
    environment: GoalEnvironment = build_environment(job.spec)  # type: ignore[assignment]
    agent, _ = build_agent(job, environment, tmp_path, "cpu")
    for goal, episode in ((3, 11), (0, 0), (2, 7)):
        row = next(row for row in rows if row["goal"] == goal and 0 <= episode - row["first_episode"] < 10)
        place = episode - row["first_episode"]
        names = ("zero_shot", "line_find", 3, goal, episode)
        actor = agent.search_actor(
            seed=derive_seed(3, *names, "actor"), skill_steps=3, sample=preset == "paper-released-code"
        )
        environment.reseed(derive_seed(3, *names, "environment") % 2**32)
        environment.set_goal(goal)
        timestep, rewards = environment.reset(), list[float]()
        actor.begin_episode()
        while not timestep.is_last and not (rules.stop_when_found and any(reward >= 1 for reward in rewards)):
            step = 10 * episode + len(rewards)
            timestep = environment.step(actor.act(aligned(timestep.observation), step).copy())
            rewards.append(timestep.reward)
            actor.after_step(step + 1)
        found = max(rewards) >= 1.0 if preset == "paper" else sum(rewards) > 1.0
        assert (row["found"][place], row["returns"][place]) == (found, sum(rewards))
        assert (row["max_rewards"][place], row["steps"][place]) == (max(rewards), len(rewards))


def test_an_episode_ends_when_it_has_found_its_goal(reference: tuple[Job, RunDirectory], tmp_path: Path) -> None:
    rows = read_jsonl(reference[1].eval_file)
    found = np.concatenate([row["found"] for row in rows])
    steps = np.concatenate([row["steps"] for row in rows])
    highest = np.concatenate([row["max_rewards"] for row in rows])
    assert found.any()
    assert not found.all()
    assert (steps[~found] == 10).all()
    assert (steps[found] < 10).any()
    assert (found == (highest >= 1.0)).all()
    job, directory = pretrained_search(tmp_path, preset="paper-released-code")
    run(tmp_path, job, directory)
    assert {step for row in read_jsonl(directory.eval_file) for step in row["steps"]} == {10}


class ScriptedEnvironment:
    """Gives the rewards it is told to."""

    def __init__(self, rewards: list[float]) -> None:
        self.left = list(rewards)

    def reseed(self, seed: int) -> None:
        """Nothing is random."""

    def reset(self) -> TimeStep:
        return TimeStep(np.zeros(4, np.float32), 0.0, 1.0, True, False)

    def step(self, action: Array) -> TimeStep:
        reward = self.left.pop(0)
        return TimeStep(np.zeros(4, np.float32), reward, 1.0, False, not self.left)


def play_rewards(rewards: list[float], rules: Search) -> Outcome:
    agent = RandomAgent(AgentContext("states", (4,), 2, 1, 0), RandomConfig())
    return play_episode(ScriptedEnvironment(rewards), agent, Episode(0, 0, 0), rules, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "rewards", "found"),
    [
        ({"criterion": "step_reward", "found_reward": 1.0}, [0.0, 1.0, 0.0], True),
        ({"criterion": "step_reward", "found_reward": 1.0}, [0.9, 0.9, 0.9], False),
        ({"criterion": "episode_return", "found_reward": 1.0}, [0.5, 0.5, 0.0], False),
        ({"criterion": "episode_return", "found_reward": 1.0}, [0.5, 0.5, 0.5], True),
        ({"criterion": "episode_return", "found_reward": 1.0}, [0.5, 2.0, -2.0], False),
    ],
)
def test_when_a_goal_counts_as_found(rules: dict[str, Any], rewards: list[float], found: bool) -> None:
    outcome = play_rewards(rewards, Search(**rules))
    assert outcome.found == found
    assert (outcome.total, outcome.max_reward, outcome.steps) == (sum(rewards), max(rewards), 3)


def test_both_lists_hold_what_was_seen_until_the_goal_was_found() -> None:
    rules = Search(found_reward=1.0, stop_when_found=True)
    assert play_rewards([0.5, 1.5, 7.0], rules) == Outcome(2.0, 1.5, 2, True)


# --- Which goals, which pretraining -----------------------------------------------------------------


def test_a_seed_searches_the_goal_set_of_its_number(tmp_path: Path) -> None:
    jobs = [job for job, _ in search_jobs(tmp_path, seeds=(1, 2)) if job.spec.phase == "search"]
    assert [(job.spec.seed, job.spec.goal_set) for job in jobs] == [(1, 1), (2, 2)]
    assert jobs[0].path.endswith("search/line_find/snapshot_100/goal_set_1/seed_1")


def test_any_seed_searches_any_goal_set_that_is_asked_for(tmp_path: Path) -> None:
    made = search_jobs(tmp_path, seeds=(1,), goal_sets=(0, 4))
    (pretraining, _), *searches = made
    assert pretraining.spec.goal_set == 1
    assert [job.path.split("/")[-2:] for job, _ in searches] == [["goal_set_0", "seed_1"], ["goal_set_4", "seed_1"]]
    for job, directory in made:
        assert run(tmp_path, job, directory) == "done"
    first, second = (directory.eval_file.read_bytes() for _, directory in searches)
    assert first != second


def test_the_agents_of_another_suite_are_evaluated(tmp_path: Path) -> None:
    made = search_jobs(tmp_path, suite="toy-search", tasks=("ball_left", "ball_right"))
    (pretraining, directory), *searches = made
    assert pretraining.spec.suite == "toy-states@1"
    assert pretraining.path.startswith("toy-states@1/")
    for job, directory in made:
        assert run(tmp_path, job, directory) == "done"
    for job, directory in searches:
        assert job.spec.suite == "toy-search@1"
        (row,) = read_jsonl(directory.eval_file)
        assert (row["task"], row["goal"], row["first_episode"], len(row["found"])) == (job.spec.task, 0, 0, 3)
    assert searches[0][1].eval_file.read_bytes() != searches[1][1].eval_file.read_bytes()


def test_an_agent_that_does_not_pretrain_is_built_afresh(tmp_path: Path) -> None:
    job, directory = pretrained_search(tmp_path, agents=("random",))
    assert (job.spec.parent, job.spec.snapshot) == (None, 0)
    assert run(tmp_path, job, directory) == "done"
    assert len(read_jsonl(directory.eval_file)) == 4


def test_a_search_needs_its_pretraining(tmp_path: Path) -> None:
    _, evaluation = search_jobs(tmp_path)
    with pytest.raises(UserError, match="is not finished; run it first"):
        run(tmp_path, *evaluation)


def test_searching_changes_no_weights(tmp_path: Path) -> None:
    job, directory = pretrained_search(tmp_path)
    snapshots = {path: path.read_bytes() for path in tmp_path.rglob("snapshot_*.pt")}
    run(tmp_path, job, directory)
    assert snapshots
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pt")} == snapshots


def test_agents_search_from_the_same_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[list[float]]] = {}
    for agent in ("toy", "random"):
        job, directory = pretrained_search(tmp_path, agents=(agent,), preset="smoke")
        environment = type(build_environment(job.spec))
        original, starts = environment.reset, seen.setdefault(agent, [])

        def reset(self: Any, original: Any = original, starts: list[list[float]] = starts) -> Any:
            timestep = original(self)
            starts.append(timestep.observation.tolist())
            return timestep

        with monkeypatch.context() as patch:
            patch.setattr(environment, "reset", reset)
            run(tmp_path, job, directory)
    assert len(seen["toy"]) == 12
    assert seen["toy"] == seen["random"]
    assert len({tuple(start) for start in seen["toy"]}) == 12


def test_episodes_must_be_whole_numbers_of_steps(tmp_path: Path) -> None:
    _, (job, _) = search_jobs(tmp_path)
    spec = with_protocol(job, pretrain_frames=300, snapshots=(300,)).spec
    with pytest.raises(UserError, match="max_episode_frames 20 is not a multiple of the action repeat 3"):
        check_budgets(spec.model_copy(update={"action_repeat": 3}))
    check_budgets(job.spec)


def test_rewards_that_are_not_numbers_fail_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, directory = pretrained_search(tmp_path)
    environment = type(build_environment(job.spec))
    original = environment.step

    def step(self: Any, action: Any) -> Any:
        timestep = original(self, action)
        return timestep._replace(reward=np.nan) if self._goal == 1 else timestep

    monkeypatch.setattr(environment, "step", step)
    with pytest.raises(UserError, match=r"goal 1 of line_find gave the returns \[nan, nan, nan\] from episode 0 on"):
        run(tmp_path, job, directory)
    assert [row["goal"] for row in read_jsonl(directory.eval_file)] == [0]


# --- Going on after an interruption -----------------------------------------------------------------


def continued(reference: tuple[Job, RunDirectory], root: Path) -> tuple[Job, RunDirectory]:
    """The search of the reference, in another folder, not started."""
    job, directory = pretrained_search(root, preset="paper")
    assert job == reference[0]
    return job, directory


@pytest.mark.parametrize("questions", [0, 1, 60, 170, 230])
def test_stop_and_continue(reference: tuple[Job, RunDirectory], tmp_path: Path, questions: int) -> None:
    job, directory = continued(reference, tmp_path)
    assert run(tmp_path, job, directory, stop=StopAt(questions)) == "interrupted"
    rows = read_jsonl(directory.eval_file)
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.message) == ("interrupted", "stopped by the test")
    assert status.progress == sum(len(row["found"]) for row in rows) < 48
    assert not directory.checkpoints.exists()
    assert run(tmp_path, job, directory) == "done"
    start = [row for row in read_jsonl(directory.attempts_file) if "started" in row][-1]
    assert start["from_progress"] == status.progress
    assert directory.eval_file.read_bytes() == reference[1].eval_file.read_bytes()


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda lines: [*lines[:5], lines[5][: len(lines[5]) // 2]], 5),
        (lambda lines: [*lines[:5], lines[5].rstrip(b"\n")], 5),
        (lambda lines: [*lines[:3], lines[4], lines[3]], 3),
        (lambda lines: [b'{"task": "line_find"}\n', *lines[1:]], 0),
        (lambda lines: [lines[0], b"[]\n"], 1),
        (lambda lines: [*lines, lines[-1]], 8),
    ],
)
def test_whole_rows_in_order_stay_and_the_rest_is_played_again(
    reference: tuple[Job, RunDirectory], tmp_path: Path, damage: Callable[[list[bytes]], list[bytes]], kept: int
) -> None:
    job, directory = continued(reference, tmp_path)
    lines = reference[1].eval_file.read_bytes().splitlines(keepends=True)
    directory.eval_file.write_bytes(b"".join(damage(lines)))
    assert run(tmp_path, job, directory) == "done"
    start = [row for row in read_jsonl(directory.attempts_file) if "started" in row][-1]
    assert start["from_progress"] == sum(block.episodes for block in blocks_of(job.spec)[:kept])
    assert f"eval.jsonl line {kept + 1} is not whole" in start["notes"][0]
    assert directory.eval_file.read_bytes() == reference[1].eval_file.read_bytes()


def test_nothing_is_noticed_where_nothing_is_wrong(reference: tuple[Job, RunDirectory]) -> None:
    job, directory = reference
    before = directory.eval_file.read_bytes()
    assert keep_whole_rows(directory, job.spec) == (8, [])
    assert directory.eval_file.read_bytes() == before
    others = with_protocol(job, eval_episodes=13)
    assert blocks_of(others.spec)[:3] == [(0, 0, 10), (0, 10, 3), (1, 0, 10)]


def test_a_search_that_is_done_is_left_alone(reference: tuple[Job, RunDirectory]) -> None:
    job, directory = reference
    before = directory.eval_file.stat().st_mtime_ns
    root = directory.path.parents[len(Path(job.path).parts) - 1]
    assert run_job(job, directory, runs_root=root) == "done"
    assert directory.eval_file.stat().st_mtime_ns == before


# --- From the command line, to the report -----------------------------------------------------------


@pytest.mark.slow
def test_a_search_in_several_processes_from_the_command_line(
    tmp_path: Path, reference: tuple[Job, RunDirectory]
) -> None:
    what = ["--suite", "toy-goals", "--plugin", str(PLUGIN), "--preset", "paper"]
    output = urlbench(tmp_path, "run", *what, "--agent", "toy", "--seeds", "0-0", "--env-workers", "2")
    assert "evaluations in 2 processes each" in output
    assert "2 of 2 jobs are done" in output
    assert (tmp_path / "runs" / reference[0].path / "eval.jsonl").read_bytes() == reference[1].eval_file.read_bytes()
    assert "nothing to do" in urlbench(tmp_path, "run", *what, "--agent", "toy", "--seeds", "0-0")


@pytest.mark.slow
def test_reaching_from_the_command_line_to_the_report(tmp_path: Path) -> None:
    what = ["--suite", "metaworld-reach-states", "--preset", "smoke", "--seeds", "1-1"]
    agents = ["--agent", "choreographer", "--agent", "random"]
    assert "3 of 3 jobs are done" in urlbench(tmp_path, "run", *what, *agents, "--device", "cpu")
    urlbench(tmp_path, "report", *what, "--agents", "choreographer,random", "--format", "md", "--out", "report")
    (report,) = (tmp_path / "report").rglob("*.md")
    assert "REDUCED BUDGET" in report.read_text()

    # The same search in several processes.
    (search,) = (tmp_path / "runs").glob("metaworld-reach-states@1/choreographer-*/smoke/search/reach/*/*/seed_1")
    directory = RunDirectory(search)
    expected = directory.eval_file.read_bytes()
    assert len(read_jsonl(directory.eval_file)) == 3
    directory.done_file.unlink()
    directory.eval_file.unlink()
    assert run(tmp_path / "runs", directory.read_job(tmp_path / "runs"), directory, env_workers=2) == "done"
    assert directory.eval_file.read_bytes() == expected


@pytest.mark.slow
def test_searching_sparse_jaco_from_the_command_line_to_the_report(tmp_path: Path) -> None:
    what = ["--suite", "jaco-sparse", "--preset", "smoke", "--seeds", "1-1", "--tasks", "jaco_reach_top_left"]
    urlbench(tmp_path, "run", *what, "--agent", "random", "--device", "cpu")
    urlbench(tmp_path, "report", *what, "--agents", "random", "--format", "md", "--out", "report")
    assert list((tmp_path / "report").rglob("*.md"))
