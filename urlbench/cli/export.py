"""`urlbench export`: results in the forms of other programs."""

from pathlib import Path
from typing import Annotated

import typer

from urlbench.cli.options import (
    MANY,
    DomainOption,
    GoalSetsOption,
    PluginOption,
    PresetOption,
    RunsOption,
    SuiteOption,
    TaskOption,
    load_plugins,
    words,
)


def export(
    program: Annotated[str, typer.Argument(metavar="PROGRAM", help="csv, tensorboard or wandb (offline)")],
    suite: SuiteOption,
    out: Annotated[Path, typer.Option("--out", help="A file for csv, else a folder.")],
    runs: RunsOption = Path("runs"),
    preset: PresetOption = "paper",
    agents: Annotated[list[str] | None, typer.Option("--agents", help=f"Only these agents. {MANY}")] = None,
    domains: DomainOption = None,
    tasks: TaskOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Only these seeds, and each of everybody.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Started from this one, such as 2M.")] = None,
    goal_sets: GoalSetsOption = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Export what there is.")] = False,
    plugin: PluginOption = None,
) -> None:
    """Write every value as one long CSV table, or every run with its curves for TensorBoard or W&B."""
    from urlbench.exports.export import export as write
    from urlbench.results.cells import collect
    from urlbench.results.selection import make_selection
    from urlbench.runs.plan import parse_frames, parse_seeds

    load_plugins(plugin)
    selection = make_selection(
        words(agents) or None,
        words(domains),
        words(tasks),
        parse_seeds(seeds) if seeds else None,
        parse_frames(snapshot) if snapshot else None,
        parse_seeds(goal_sets, "--goal-sets") if goal_sets else None,
    )
    written = write(collect(runs, suite, preset, selection), program, out, allow_partial=allow_partial)
    if len(written) == 1:
        print(f"written: {written[0]}")
    else:
        print(f"written: {len(written)} runs below {out}")
