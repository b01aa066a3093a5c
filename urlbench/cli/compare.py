"""`urlbench compare`: is an agent better than others, by how much, how sure is that, and where?"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from urlbench.cli.options import (
    MANY,
    BaselinesOption,
    DomainOption,
    GoalSetsOption,
    JsonOption,
    PluginOption,
    PresetOption,
    RunsOption,
    SuiteOption,
    TaskOption,
    load_plugins,
    words,
)


def compare(
    new: Annotated[str, typer.Argument(metavar="NEW", help="an agent with runs, or baseline:NAME/AGENT")],
    suite: SuiteOption,
    against: Annotated[
        list[str], typer.Option("--against", help=f"AGENT, baseline:NAME or baseline:NAME/AGENT. {MANY}")
    ],
    runs: RunsOption = Path("runs"),
    preset: PresetOption = "paper",
    domains: DomainOption = None,
    tasks: TaskOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Only these seeds of agents with runs.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Started from this one, such as 2M.")] = None,
    goal_sets: GoalSetsOption = None,
    ci: Annotated[
        Literal["stratified", "cluster"], typer.Option("--ci", help="What the bootstrap of the intervals resamples.")
    ] = "stratified",
    reps: Annotated[int | None, typer.Option("--reps", help="Bootstrap repetitions [default: 50000]", min=100)] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the same into files in this folder.")] = None,
    formats: Annotated[
        list[str] | None, typer.Option("--format", help=f"md, latex, csv, json [default: all], with --out. {MANY}")
    ] = None,
    folder: BaselinesOption = Path("baselines"),
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare an agent with others, with frozen baselines or with published scores, on one screen."""
    import json

    from urlbench.reports.comparison_command import compare_all
    from urlbench.results.selection import make_selection
    from urlbench.runs.plan import parse_frames, parse_seeds

    load_plugins(plugin)
    selection = make_selection(
        None,
        words(domains),
        words(tasks),
        parse_seeds(seeds) if seeds else None,
        parse_frames(snapshot) if snapshot else None,
        parse_seeds(goal_sets, "--goal-sets") if goal_sets else None,
    )
    comparisons, registered, command = compare_all(
        new, words(against), suite, preset, runs, selection, folder, ci=ci, reps=reps, plugins=plugin or ()
    )
    if as_json:
        from urlbench.reports.comparison_report import as_json as plain

        print(json.dumps(plain(comparisons, registered, command), indent=2, ensure_ascii=False))
    else:
        from rich.console import Console

        from urlbench.reports.comparison_screen import show

        show(comparisons, Console(soft_wrap=False))
    if out is not None:
        from urlbench.reports.comparison_report import FORMATS, write_comparison

        for file in write_comparison(comparisons, registered, command, out, words(formats) or FORMATS):
            print(file)
