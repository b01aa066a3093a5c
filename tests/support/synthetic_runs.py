"""Run directories of a toy suite, written as the worker writes them, for the tests of results and reports."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from urlbench.core.identity import config_hash, job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.types import Domain, Normaliser, Protocol, Suite, Task
from urlbench.runs.store import RunDirectory, RunStore, append_jsonl, write_atomic

TASKS = {"walker_walk": "walker", "walker_run": "walker", "arm_left": "arm"}


def _protocol(preset: str) -> Protocol:
    return Protocol(
        preset=preset,
        description=f"toy budgets, {preset}",
        pretrain_frames=1000,
        snapshots=(500, 1000),
        finetune_frames=200,
        eval_every_frames=100,
        eval_episodes=2,
    )


TOY = Suite(
    name="toy",
    version=1,
    description="three tasks without an environment",
    observation="states",
    action_repeat=1,
    domains=(
        Domain(name="walker", primal_task="walker_walk", max_episode_frames=10),
        Domain(name="arm", primal_task="arm_left", max_episode_frames=10),
    ),
    tasks=tuple(Task(name=task, domain=domain, description=task) for task, domain in TASKS.items()),
    protocols={preset: _protocol(preset) for preset in ("paper", "smoke")},
    score="normalised_return",
    normaliser=Normaliser(
        name="toy-expert",
        version=1,
        source="made up",
        references={"walker_walk": 100.0, "walker_run": 200.0, "arm_left": 50.0},
    ),
    environment="nowhere:none",
    packages=("mujoco",),
    requirements=("mujoco==3.3.0",),
)


def make_job(
    agent: str,
    task: str,
    seed: int,
    *,
    preset: str = "smoke",
    config: dict[str, Any] | None = None,
    mujoco: str = "3.3.0",
    snapshot: int = 1000,
    suite: str = "toy@1",
    pretrain: bool = False,
) -> Job:
    config = {"lr": 0.1} if config is None else config
    spec = JobSpec(
        suite=suite,
        observation="states",
        action_repeat=1,
        agent=agent,
        agent_config=config,
        protocol=TOY.protocols[preset],
        phase="pretrain" if pretrain else "finetune",
        domain=TASKS[task],
        task=task,
        seed=seed,
        snapshot=0 if pretrain else snapshot,
        versions={"mujoco": mujoco},
    )
    where = spec.domain if pretrain else task
    frames = f"/snapshot_{spec.snapshot}" if spec.snapshot else ""
    path = f"{suite}/{agent}-{config_hash(config)}/{preset}/{spec.phase}/{where}{frames}/seed_{seed}"
    return Job(id=job_id(spec), path=path, spec=spec)


def write_run(
    root: Path, job: Job, final: float = 50.0, *, done: bool = True, rows: list[dict[str, Any]] | None = None
) -> RunDirectory:
    """A run whose final mean return is `final`, reached in a straight line; `rows` replace its evaluations."""
    directory = RunStore(root).run_dir(job)
    directory.prepare(job)
    manifest = {
        "git": {"commit": "0123456789abcdef", "dirty": False},
        "packages": {"torch": "2.13.0", "mujoco": job.spec.versions["mujoco"]},
        "python": "3.11.9",
        "hardware": {"cpu": "Toy & Sons 100%", "cores": 2, "memory_gib": 8.0, "gpu": None},
    }
    write_atomic(directory.manifest_file, json.dumps(manifest))
    if rows is None:
        rows = [evaluation(100, final / 2), evaluation(200, final)]
    for row in rows:
        append_jsonl(directory.eval_file, row)
    if done:
        directory.finish(200)
        stamped = json.loads(directory.done_file.read_text()) | {"finished": "2024-05-06T07:08:09+00:00"}
        write_atomic(directory.done_file, json.dumps(stamped))
    return directory


def evaluation(frame: int, mean: float) -> dict[str, Any]:
    return {"frame": frame, "task": "any", "returns": [mean - 1.0, mean + 1.0], "mean": mean}


def rewrite_evaluations(directory: RunDirectory, content: str) -> None:
    """Replace eval.jsonl and let DONE agree with it, so that only the content is at fault."""
    directory.eval_file.write_text(content)
    finished = json.loads(directory.done_file.read_text())["finished"]
    directory.finish(200)
    stamped = json.loads(directory.done_file.read_text()) | {"finished": finished}
    write_atomic(directory.done_file, json.dumps(stamped))


def write_grid(root: Path, agents: list[str], seeds: int, *, preset: str = "smoke") -> dict[str, np.ndarray]:
    """Runs of all agents, tasks and seeds; the final returns, [seeds, tasks], by agent."""
    returns = {}
    for number, agent in enumerate(agents):
        values = 20.0 + 10.0 * np.arange(seeds * len(TASKS)).reshape(seeds, len(TASKS)) * (1 + 0.3 * number) % 97.0
        for seed in range(seeds):
            for column, task in enumerate(TASKS):
                snapshot = 0 if agent == "random" else 1000
                job = make_job(agent, task, seed, preset=preset, snapshot=snapshot)
                write_run(root, job, float(values[seed, column]))
        returns[agent] = values
    return returns
