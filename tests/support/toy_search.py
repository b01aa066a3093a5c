"""Running toy searches for goals, for tests."""

from pathlib import Path
from typing import Any

from toy_runs import PLUGIN, run

from urlbench.core.jobs import Job
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore


def search_jobs(root: Path, **choices: Any) -> list[tuple[Job, RunDirectory]]:
    """The jobs of a request (default: toy-goals, seed 0, smoke), all prepared."""
    defaults = {"suite": "toy-goals", "agents": ("toy",), "seeds": (0,), "preset": "smoke", "plugins": (str(PLUGIN),)}
    store, jobs = RunStore(root), make_plan(PlanRequest(**(defaults | choices))).jobs
    for job in jobs:
        store.run_dir(job).prepare(job)
    return [(job, store.run_dir(job)) for job in jobs]


def pretrained_search(root: Path, **choices: Any) -> tuple[Job, RunDirectory]:
    """The one evaluation of a request, its pretraining done."""
    *pretrainings, evaluation = search_jobs(root, **choices)
    for job, directory in pretrainings:
        assert job.spec.phase == "pretrain"
        assert run(root, job, directory) == "done"
    assert evaluation[0].spec.phase == "search"
    return evaluation
