"""`urlbench plan` and `urlbench run`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from urlbench.cli.cluster import submission
from urlbench.cli.options import (
    AgentOption,
    ClusterOption,
    ConfigOption,
    DataOption,
    DeviceOption,
    DomainOption,
    EnvWorkersOption,
    ExecutorOption,
    GoalSetsOption,
    JsonOption,
    OverrideOption,
    PhaseOption,
    PluginOption,
    PresetOption,
    RunsOption,
    RunsPerGpuOption,
    SeedOption,
    SnapshotsOption,
    SuiteOption,
    TaskOption,
    ThreadsOption,
    WorkersOption,
    plugin_paths,
    print_json,
    words,
)

if TYPE_CHECKING:
    from urlbench.runs.plan import PhaseChoice, PlanRequest


def plan(
    suite: SuiteOption,
    agent: AgentOption,
    seeds: SeedOption,
    domains: DomainOption = None,
    tasks: TaskOption = None,
    preset: PresetOption = "paper",
    phase: PhaseOption = "all",
    snapshots: SnapshotsOption = "last",
    goal_sets: GoalSetsOption = None,
    override: OverrideOption = None,
    config: ConfigOption = None,
    plugin: PluginOption = None,
    data: DataOption = Path("data"),
    runs: RunsOption = Path("runs"),
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    env_workers: EnvWorkersOption = 1,
    device: DeviceOption = "auto",
    runs_per_gpu: RunsPerGpuOption = None,
    executor: ExecutorOption = "local",
    cluster: ClusterOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `run` with the same options would do, and what it would cost; changes nothing."""
    from urlbench.local.cost import forecast, format_forecast
    from urlbench.local.executor import Executor, default_options
    from urlbench.local.run import check_folder, describe_request
    from urlbench.runs.plan import make_plan

    request = _request(
        suite, agent, seeds, domains, tasks, preset, phase, snapshots, goal_sets, override, config, plugin, data
    )
    made = make_plan(request)
    submit = submission(executor, cluster, workers, threads, device, env_workers, runs_per_gpu)
    options = default_options(workers, threads, device, env_workers=env_workers, runs_per_gpu=runs_per_gpu or 1)
    root = check_folder(runs)
    standing = Executor(made, root, options)
    standing.check_identities()
    result = forecast(root, standing.views)
    arrays = submit.arrays(made, root) if submit else []
    if as_json:
        jobs = [{"id": job.id, "path": job.path, "label": job.label} for job in made.jobs]
        totals = {"total_hours": result.total_hours, "total_bytes": result.total_bytes}
        print_json({**result.model_dump(mode="json"), **totals, "plan": jobs, "arrays": arrays})
    else:
        print(describe_request(request, made))
        print("\n".join([format_forecast(result, None if submit else options.workers), *arrays]))


def run(
    suite: SuiteOption,
    agent: AgentOption,
    seeds: SeedOption,
    domains: DomainOption = None,
    tasks: TaskOption = None,
    preset: PresetOption = "paper",
    phase: PhaseOption = "all",
    snapshots: SnapshotsOption = "last",
    goal_sets: GoalSetsOption = None,
    override: OverrideOption = None,
    config: ConfigOption = None,
    plugin: PluginOption = None,
    data: DataOption = Path("data"),
    runs: RunsOption = Path("runs"),
    workers: WorkersOption = None,
    threads: ThreadsOption = None,
    env_workers: EnvWorkersOption = 1,
    device: DeviceOption = "auto",
    rerun: Annotated[
        Literal["failed", "stale"] | None,
        typer.Option("--rerun", help="failed: run failed jobs again; stale: move runs of other versions aside."),
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop everything at the first failure.")] = False,
    runs_per_gpu: RunsPerGpuOption = None,
    executor: ExecutorOption = "local",
    cluster: ClusterOption = None,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="With --executor slurm: fill the queue up, and return when everything has ended."),
    ] = False,
) -> None:
    """Run everything that is not done yet; the same command again continues, or does nothing."""
    from urlbench.local.executor import default_options
    from urlbench.local.run import check_folder, describe_request, run_plan
    from urlbench.runs.plan import make_plan

    request = _request(
        suite, agent, seeds, domains, tasks, preset, phase, snapshots, goal_sets, override, config, plugin, data
    )
    submit = submission(
        *(executor, cluster, workers, threads, device, env_workers, runs_per_gpu), fail_fast=fail_fast, wait=wait
    )
    options = default_options(workers, threads, device, fail_fast, env_workers, runs_per_gpu or 1)
    root = check_folder(runs)
    made = make_plan(request)
    print(describe_request(request, made), flush=True)
    raise typer.Exit(submit(made, root, rerun) if submit else run_plan(made, root, options, rerun))


def _request(
    suite: str,
    agent: list[str],
    seeds: str,
    domains: list[str] | None,
    tasks: list[str] | None,
    preset: str,
    phase: "PhaseChoice",
    snapshots: str,
    goal_sets: str | None,
    override: list[str] | None,
    config: str | None,
    plugin: list[str] | None,
    data: Path,
) -> "PlanRequest":
    from urlbench.runs.plan import PlanRequest, parse_seeds

    return PlanRequest(
        suite=suite,
        agents=words(agent),
        domains=words(domains),
        tasks=words(tasks),
        seeds=parse_seeds(seeds),
        preset=preset,
        phase=phase,
        snapshots=snapshots,
        goal_sets=parse_seeds(goal_sets, "--goal-sets") if goal_sets else (),
        overrides=tuple(override or ()),
        config_file=config,
        plugins=plugin_paths(plugin),
        data=str(data.resolve()),
    )
