"""`urlbench retry --failed`: which jobs a folder's failed runs are, and what waits for them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from urlbench.cli.cluster import submission
from urlbench.cli.options import (
    ClusterOption,
    DeviceOption,
    EnvWorkersOption,
    RunAgentOption,
    RunPresetOption,
    RunsOption,
    RunsPerGpuOption,
    RunSuiteOption,
    ThreadsOption,
    WorkersOption,
    words,
)
from urlbench.core.errors import UserError

if TYPE_CHECKING:
    from urlbench.cli.overview import Overview
    from urlbench.core.jobs import Plan
    from urlbench.slurm.profile import Profile


def retry(
    failed: Annotated[
        bool, typer.Option("--failed", help="Runs that have failed, and those that wait for them.")
    ] = False,
    runs: RunsOption = Path("runs"),
    suite: RunSuiteOption = None,
    agent: RunAgentOption = None,
    preset: RunPresetOption = None,
    executor: Annotated[
        Literal["local", "slurm"] | None,
        typer.Option("--executor", help="Where [default: on the cluster if they were submitted to it]"),
    ] = None,
    cluster: ClusterOption = None,
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    env_workers: EnvWorkersOption = 1,
    device: DeviceOption = "auto",
    runs_per_gpu: RunsPerGpuOption = None,
) -> None:
    """Run again what has failed, without naming it."""
    from urlbench.cli.overview import read_overview
    from urlbench.core.registry import load_plugin, load_suite
    from urlbench.core.requirements import check_requirements
    from urlbench.local.executor import default_options
    from urlbench.local.run import run_plan

    if not failed:
        raise UserError("say what to run again: urlbench retry --failed")
    plan = failed_jobs(runs, read_overview(runs, suite, words(agent), preset))
    if not plan.jobs:
        print("nothing to do: no run has failed")
        raise typer.Exit(0)
    for plugin in dict.fromkeys(plugin for job in plan.jobs for plugin in job.plugins):
        load_plugin(plugin)
    for suite_name in dict.fromkeys(job.spec.suite.partition("@")[0] for job in plan.jobs):
        check_requirements(load_suite(suite_name))
    root = runs.resolve()
    stored = last_profile(root, plan) if executor != "local" else None
    chosen = executor or ("local" if cluster is None and stored is None else "slurm")
    submit = submission(chosen, cluster, workers, threads, device, env_workers, runs_per_gpu, stored=stored)
    if submit is not None:
        raise typer.Exit(submit(plan, root, "failed"))
    options = default_options(workers, threads, device, env_workers=env_workers, runs_per_gpu=runs_per_gpu or 1)
    raise typer.Exit(run_plan(plan, root, options, "failed"))


def failed_jobs(root: Path, overview: "Overview") -> "Plan":
    """The failed runs among those of `overview`, and those not done that start from them."""
    from urlbench.core.jobs import Plan
    from urlbench.runs.store import RunDirectory

    failed = {run.id for run in overview.runs if run.state == "failed"}
    jobs = [RunDirectory(root / run.path).read_job(root) for run in overview.runs if run.state != "done"]
    chosen = [job for job in jobs if job.id in failed or job.spec.parent in failed]
    return Plan(jobs=tuple(sorted(chosen, key=lambda job: job.spec.phase != "pretrain")))


def last_profile(root: Path, plan: "Plan") -> "Profile | None":
    """The cluster profile with which the first of these jobs was last submitted; None if none ever was."""
    from urlbench.cli.overview import uses_cluster

    if not uses_cluster(root):
        return None
    from urlbench.slurm.records import Records, latest_places

    places = latest_places(Records(root).all())
    return next((places[job.path][0].profile for job in plan.jobs if job.path in places), None)
