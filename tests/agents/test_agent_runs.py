"""Every agent in whole runs, from the plan to the last file, on suites that take milliseconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toy_runs import PLUGIN, assert_same_run, run

from urlbench.core import registry
from urlbench.core.jobs import Job
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore

torch.set_num_threads(1)

AGENTS = sorted(registry.names("agent"))
# One of each kind of state that a run holds; the others go through the same code.
FAST = ("aps", "choreographer", "dreamer-aps", "random")
agents = pytest.mark.parametrize(
    "agent", [pytest.param(agent, marks=[] if agent in FAST else [pytest.mark.slow]) for agent in AGENTS]
)
# So many updates and skills that each stop falls into the middle of something.
DDPG = {"update_every_steps": 3, "seed_frames": 25, "batch_size": 8, "pixel_batch_size": 4, "conv_channels": 4}
WORLD_MODEL = {
    "schedule.update_every_frames": 12,
    "schedule.seed_frames": 25,
    "schedule.batch_size": 3,
    "schedule.batch_length": 6,
    "world_model.conv_depth": 4,
}
OF_AGENT = {
    "diayn": {"skill_steps": 7},
    "cic": {"skill_steps": 7},
    "aps": {"skill_steps": 7, "task_frames": 30, "task_samples": 24},
    "dreamer-diayn": {"skill_steps": 7},
    "dreamer-aps": {"skill_steps": 7, "task_states": 36},
}


class StopEvery:
    """Asks to stop at every n-th question."""

    def __init__(self, questions: int) -> None:
        self.questions, self.asked = questions, 0

    def __call__(self) -> str:
        self.asked += 1
        return "" if self.asked % self.questions else "stopped by the test"


def overrides(agent: str) -> tuple[str, ...]:
    fields = registry.load_agent(agent).config.model_fields
    settings = (WORLD_MODEL if "world_model" in fields else DDPG if "nstep" in fields else {}) | OF_AGENT.get(agent, {})
    return tuple(f"agent.{key}={value}" for key, value in settings.items())


def jobs_of(root: Path, suite: str, agent: str) -> Iterator[tuple[Job, RunDirectory]]:
    request = PlanRequest(
        suite=suite,
        agents=(agent,),
        tasks=("ball_left",),
        seeds=(0,),
        preset="smoke",
        overrides=overrides(agent),
        plugins=(str(PLUGIN),),
    )
    store = RunStore(root)
    for job in make_plan(request).jobs:
        directory = store.run_dir(job)
        directory.prepare(job)
        yield job, directory


@agents
def test_a_stopped_run_continues_bit_for_bit(agent: str, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    for (job, expected), (_, directory) in zip(
        jobs_of(whole, "toy-states", agent), jobs_of(stopped, "toy-states", agent), strict=True
    ):
        assert run(whole, job, expected) == "done"
        # A run that is stopped inside an evaluation takes it from its start, so later attempts must get further.
        attempts = next(n for n in range(20) if run(stopped, job, directory, stop=StopEvery(70 + 30 * n)) == "done")
        assert attempts >= 1
        assert_same_run(directory, expected)


@agents
@pytest.mark.parametrize("suite", ["toy-pixels", "toy-search"])
def test_sees_and_searches(suite: str, agent: str, tmp_path: Path) -> None:
    jobs = list(jobs_of(tmp_path, suite, agent))
    for job, directory in jobs:
        assert run(tmp_path, job, directory) == "done"
    assert jobs[-1][1].eval_file.read_text(encoding="utf-8").count("\n") >= 1
