"""Run directories of searches for goals, written as the worker writes them, for the tests of results and reports.

Suite `toy-reach` has goal sets and two presets of whole sets; `toy-sparse` one goal a task, pretrained in `toy`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_runs import TASKS, TOY

from urlbench.core.identity import job_id
from urlbench.core.interfaces import Array
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.types import Domain, GoalSets, Protocol, Search, Suite, Task
from urlbench.runs.plan import run_path
from urlbench.runs.store import RunDirectory, RunStore, append_jsonl, write_atomic

GOALS, EPISODES, ROW_EPISODES = 5, 12, 10
REACHABLE = {0: 4, 1: 5, 2: 3}


def _protocols(*presets: str, **rules: Any) -> dict[str, Protocol]:
    return {
        preset: Protocol(
            preset=preset,
            description=f"toy budgets, {preset}",
            pretrain_frames=1000,
            snapshots=(500, 1000),
            eval_episodes=EPISODES,
            search=Search(**rules | ({"criterion": "episode_return"} if "released" in preset else {})),
        )
        for preset in presets
    }


REACH = Suite(
    name="toy-reach",
    version=1,
    description="goals without an environment",
    observation="states",
    action_repeat=1,
    domains=(Domain(name="arm", primal_task="arm_reach", max_episode_frames=10),),
    tasks=(Task(name="arm_reach", domain="arm", description="reach"),),
    protocols=_protocols("paper", "paper-released-code", "smoke", goals=GOALS, found_reward=1.0),
    score="goals_found",
    normaliser=None,
    environment="nowhere:none",
    packages=("mujoco",),
    goal_sets=GoalSets(goals=GOALS, reachable=REACHABLE, source="a controller that was made up"),
)
SPARSE = TOY.model_copy(
    update={
        "name": "toy-sparse",
        "protocols": _protocols("paper", "paper-released-code", "smoke", found_reward=0.5),
        "score": "goals_found",
        "normaliser": None,
        "pretrained_in": "toy",
    }
)
SUITES = {suite.name: suite for suite in (TOY, REACH, SPARSE)}
DOMAINS = {"arm_reach": "arm", **TASKS}


def make_job(
    agent: str,
    seed: int,
    *,
    task: str = "arm_reach",
    suite: Suite = REACH,
    preset: str = "smoke",
    goal_set: int | None = None,
    snapshot: int | None = None,
    pretraining: Job | None = None,
    **changes: Any,
) -> Job:
    """A search; by default on the goal set of its seed, and from nothing if the agent is called random."""
    if goal_set is None and suite.goal_sets is not None:
        goal_set = seed
    spec = JobSpec(
        suite=suite.full_name,
        observation="states",
        action_repeat=1,
        agent=agent,
        agent_config={"lr": 0.1},
        protocol=suite.protocols[preset],
        phase="search",
        domain=DOMAINS[task],
        task=task,
        seed=seed,
        goal_set=goal_set,
        snapshot=(0 if agent == "random" else 1000) if snapshot is None else snapshot,
        parent=pretraining.id if pretraining else None,
        versions={"mujoco": "3.3.0"},
    ).model_copy(update=changes)
    return Job(id=job_id(spec), path=run_path(spec), spec=spec)


def make_pretraining(job: Job, suite: Suite, preset: str = "smoke", **changes: Any) -> Job:
    """The pretraining that `job` could start from."""
    spec = job.spec.model_copy(
        update={
            "suite": suite.full_name,
            "protocol": suite.protocols[preset],
            "phase": "pretrain",
            "task": suite.domain(job.spec.domain).primal_task,
            "snapshot": 0,
            "parent": None,
            **changes,
        }
    )
    return Job(id=job_id(spec), path=run_path(spec), spec=spec)


def rows_of(job: Job, found: Array) -> list[dict[str, Any]]:
    """The lines of eval.jsonl if the episodes found their goals as `found` [goals, episodes] says."""
    return [
        {
            "task": job.spec.task,
            "goal": goal,
            "first_episode": first,
            "found": [bool(one) for one in row[first : first + ROW_EPISODES]],
            "returns": [3.5 if one else 0.2 for one in row[first : first + ROW_EPISODES]],
            "max_rewards": [1.0 if one else 0.1 for one in row[first : first + ROW_EPISODES]],
            "steps": [10] * len(row[first : first + ROW_EPISODES]),
        }
        for goal, row in enumerate(found)
        for first in range(0, len(row), ROW_EPISODES)
    ]


def found_by(job: Job, *, seed: int = 0, chance: float = 0.3) -> Array:
    """Which episodes find their goal, [goals, episodes]: some goals easily, others never."""
    rules = job.spec.protocol.search
    assert rules is not None
    rng = np.random.default_rng([seed, job.spec.seed, job.spec.goal_set or 0])
    chances = np.clip(rng.normal(chance, 0.3, (rules.goals, 1)), 0, 1)
    return rng.random((rules.goals, job.spec.protocol.eval_episodes)) < chances


def write_search(root: Path, job: Job, found: Array | None = None, *, content: str | None = None) -> RunDirectory:
    """A run that is done; `content` replaces its eval.jsonl, and DONE agrees with it."""
    directory = RunStore(root).run_dir(job)
    directory.prepare(job)
    manifest = {
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "packages": {"mujoco": "3.3.0"},
        "python": "3.11.9",
        "hardware": {"cpu": "Toy", "cores": 2},
    }
    write_atomic(directory.manifest_file, json.dumps(manifest))
    if content is None and job.spec.phase == "search":
        for row in rows_of(job, found_by(job) if found is None else found):
            append_jsonl(directory.eval_file, row)
    elif content is not None:
        directory.eval_file.write_text(content)
    directory.finish(0)
    stamped = json.loads(directory.done_file.read_text()) | {"finished": "2024-05-06T07:08:09+00:00"}
    write_atomic(directory.done_file, json.dumps(stamped))
    return directory


def write_searches(root: Path, agents: list[str], seeds: int, **choices: Any) -> None:
    """The searches of all agents and seeds, in suites without goal sets on every task; later agents find more."""
    suite = choices.get("suite", REACH)
    for number, agent in enumerate(agents):
        for seed in range(seeds):
            for task in [task.name for task in suite.tasks]:
                job = make_job(agent, seed, task=task, **choices)
                write_search(root, job, found_by(job, seed=number, chance=0.2 + 0.25 * number))
