"""`urlbench validate` and `urlbench report`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from urlbench.cli.options import (
    MANY,
    DomainOption,
    GoalSetsOption,
    JsonOption,
    PluginOption,
    PresetOption,
    RunsOption,
    SuiteOption,
    TaskOption,
    load_plugins,
    print_json,
    words,
)


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
        print_json([problem.model_dump(mode="json") for problem in problems])
    else:
        print("\n".join(map(str, problems)) if problems else "complete: no gaps, no damage, no mixtures")
    raise typer.Exit(3 if problems else 0)


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
