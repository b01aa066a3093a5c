"""The command line. Nothing heavy is imported before a command needs it, so that help and lists come at once."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer

from urlbench import __version__
from urlbench.cli.baselines import app as baselines_app, import_results
from urlbench.cli.cluster import RunAgentOption, RunPresetOption, RunSuiteOption, cancel, retry, submission
from urlbench.cli.compare import compare
from urlbench.cli.data import app as data_app
from urlbench.cli.doctor import doctor
from urlbench.cli.export import export
from urlbench.cli.new import app as new_app
from urlbench.cli.options import (
    MANY,
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
    load_plugins,
    plugin_paths,
    words,
)
from urlbench.core.errors import IncompleteError, UserError, unknown_name

if TYPE_CHECKING:
    from urlbench.runs.plan import PhaseChoice, PlanRequest

app = typer.Typer(
    name="urlbench",
    help="Pretrain, fine-tune, evaluate and report agents of unsupervised reinforcement learning.",
    epilog="Exit codes: 0 complete, 1 failures, 2 usage, 3 incomplete.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # its own markup would swallow [default: ...]
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app)
app.add_typer(baselines_app)
app.command("import")(import_results)
app.command()(compare)
app.command()(doctor)
app.command()(export)
app.command()(cancel)
app.command()(retry)
app.add_typer(new_app)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False) -> None:
    if version:
        print(f"urlbench {__version__}")
        raise typer.Exit


@app.command("list")
def list_command(
    kind: Annotated[str, typer.Argument(help="suites, agents or tasks; nothing for suites and agents")] = "",
    as_json: JsonOption = False,
    plugin: PluginOption = None,
) -> None:
    """List suites, agents and tasks."""
    from urlbench.cli.listing import KINDS, format_rows, format_tasks, list_rows

    if kind and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS, see="urlbench list --help")
    load_plugins(plugin)
    if kind:
        rows = list_rows(kind)
        _print_json(rows) if as_json else print(format_tasks(rows) if kind == "tasks" else format_rows(rows))
        return
    lists = {one: list_rows(one) for one in ("suites", "agents")}
    if as_json:
        _print_json(lists)
    else:
        print("\n".join(f"{one}:\n{format_rows(rows)}" for one, rows in lists.items()))
        print("tasks: urlbench list tasks")


@app.command()
def show(
    kind: Annotated[str, typer.Argument(help="suite or agent")],
    name: Annotated[str, typer.Argument(help="its name")],
    as_json: JsonOption = False,
    plugin: PluginOption = None,
) -> None:
    """Show all about a suite (tasks, budgets, normaliser) or an agent (paper, configuration)."""
    from urlbench.cli.listing import describe, format_agent, format_suite

    load_plugins(plugin)
    description = describe(kind, name)
    if as_json:
        _print_json(description)
    else:
        print(format_suite(description) if kind == "suite" else format_agent(description))


@app.command()
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
        _print_json({**result.model_dump(mode="json"), **totals, "plan": jobs, "arrays": arrays})
    else:
        print(describe_request(request, made))
        print("\n".join([format_forecast(result, None if submit else options.workers), *arrays]))


@app.command()
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
) -> None:
    """Run everything that is not done yet; the same command again continues, or does nothing."""
    from urlbench.local.executor import default_options
    from urlbench.local.run import check_folder, describe_request, run_plan
    from urlbench.runs.plan import make_plan

    request = _request(
        suite, agent, seeds, domains, tasks, preset, phase, snapshots, goal_sets, override, config, plugin, data
    )
    submit = submission(executor, cluster, workers, threads, device, env_workers, runs_per_gpu, fail_fast=fail_fast)
    options = default_options(workers, threads, device, fail_fast, env_workers, runs_per_gpu or 1)
    root = check_folder(runs)
    made = make_plan(request)
    print(describe_request(request, made), flush=True)
    raise typer.Exit(submit(made, root, rerun) if submit else run_plan(made, root, options, rerun))


@app.command()
def status(
    runs: RunsOption = Path("runs"),
    suite: RunSuiteOption = None,
    agent: RunAgentOption = None,
    preset: RunPresetOption = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show again every two seconds (cluster: 30) until nothing runs or waits.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how all runs stand, as a task x seed grid, from their files and a cluster's queue."""
    from urlbench.cli.status import WATCH_SECONDS, format_overview, read_overview, uses_cluster

    while True:
        overview = read_overview(runs, suite, words(agent), preset)
        if as_json:
            _print_json(overview.model_dump(mode="json"))
        else:
            print(("\x1b[H\x1b[2J" if watch and sys.stdout.isatty() else "") + format_overview(overview), flush=True)
        if not watch or not overview.active:
            return
        time.sleep(WATCH_SECONDS["cluster" if uses_cluster(runs) else "local"])


@app.command()
def logs(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="a job id, the beginning of one, or a run directory")],
    runs: RunsOption = Path("runs"),
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.", min=1)] = 40,
) -> None:
    """Show where the log of a run is, and its end."""
    from urlbench.cli.status import find_log, tail

    log = find_log(runs, run_name)
    print(f"{log}\n{tail(log, lines)}")


@app.command()
def validate(
    runs: RunsOption = Path("runs"),
    suite: Annotated[str | None, typer.Option("--suite", help="Only this suite.")] = None,
    preset: Annotated[str | None, typer.Option("--preset", help="Only this preset.")] = None,
    agents: Annotated[list[str] | None, typer.Option("--agents", help=f"Expect these agents. {MANY}")] = None,
    domains: DomainOption = None,
    tasks: TaskOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Expect these seeds.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Started from this one, such as 2M.")] = None,
    goal_sets: GoalSetsOption = None,
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name every gap, duplicate, NaN, wrong frame count and mix of versions, with the command that mends it."""
    from urlbench.results.validation import validate as find_problems
    from urlbench.runs.plan import parse_frames, parse_seeds

    load_plugins(plugin)
    problems = find_problems(
        runs,
        suite,
        preset,
        words(agents),
        domains=words(domains),
        tasks=words(tasks),
        seeds=parse_seeds(seeds) if seeds else None,
        snapshot=parse_frames(snapshot) if snapshot else None,
        goal_sets=parse_seeds(goal_sets, "--goal-sets") if goal_sets else None,
    )
    if as_json:
        _print_json([problem.model_dump(mode="json") for problem in problems])
    else:
        print("\n".join(map(str, problems)) if problems else "complete: no gaps, no damage, no mixtures")
    raise typer.Exit(3 if problems else 0)


@app.command()
def report(
    suite: SuiteOption,
    runs: RunsOption = Path("runs"),
    preset: PresetOption = "paper",
    agents: Annotated[
        list[str] | None,
        typer.Option("--agents", help=f"Agents, baseline:NAME and baseline:NAME/AGENT, in this order. {MANY}"),
    ] = None,
    domains: DomainOption = None,
    tasks: TaskOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Expect these seeds of everybody.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Started from this one, such as 2M.")] = None,
    snapshots: Annotated[
        str | None, typer.Option("--snapshots", help="Show the score against pretraining: all, or such as 100k,2M.")
    ] = None,
    goal_sets: GoalSetsOption = None,
    ci: Annotated[
        Literal["stratified", "cluster"] | None,
        typer.Option("--ci", help="What the bootstrap of the intervals resamples [default: stratified]"),
    ] = None,
    reps: Annotated[int | None, typer.Option("--reps", help="Bootstrap repetitions [default: 50000]")] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help=f"md, html, latex, csv, png, pdf, svg [default: all]. {MANY}"),
    ] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Report gaps, stamped PARTIAL.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Where to [default: reports in the runs folder]")] = None,
    plugin: PluginOption = None,
) -> None:
    """Write tables and figures with intervals and where they come from; refuses incomplete results."""
    from urlbench.reports.files import FORMATS
    from urlbench.reports.report import make_report
    from urlbench.runs.plan import parse_frames, parse_seeds

    load_plugins(plugin)
    files = make_report(
        runs,
        suite,
        words(agents),
        preset,
        out,
        ci,
        reps,
        words(formats) or FORMATS,
        allow_partial,
        domains=words(domains),
        tasks=words(tasks),
        seeds=parse_seeds(seeds) if seeds else None,
        snapshot=parse_frames(snapshot) if snapshot else None,
        snapshots=snapshots,
        goal_sets=parse_seeds(goal_sets, "--goal-sets") if goal_sets else None,
        plugins=plugin or (),
    )
    print("report:")
    for file in files:
        print(f"  {file}")


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


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors that are the user's to solve are one line on stderr, without a traceback."""
    try:
        app(args=arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(3 if isinstance(error, IncompleteError) else 2)
    sys.exit(0)
