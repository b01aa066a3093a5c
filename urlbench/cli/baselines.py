"""`urlbench baselines`, and `urlbench import`: scores to compare with."""

import json
from pathlib import Path
from typing import Annotated

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
from urlbench.core.errors import UserError

app = typer.Typer(
    name="baselines",
    help="Published scores that come with urlbench, and your own results in one file each.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="see: urlbench baselines list")]


@app.command("list")
def list_command(folder: BaselinesOption = Path("baselines"), as_json: JsonOption = False) -> None:
    """List published sources, and the frozen and imported baselines in the folder."""
    from urlbench.baselines.listing import published_rows, stored_rows
    from urlbench.cli.listing import format_rows

    rows = [*published_rows(), *stored_rows(folder)]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print(format_rows([{**row, "agents": _shortened(row["agents"])} for row in rows]))
        print("all about one: urlbench baselines show NAME, or NAME/AGENT")


@app.command()
def show(name: NameArgument, folder: BaselinesOption = Path("baselines"), as_json: JsonOption = False) -> None:
    """Show the scores of a baseline, where they come from, and where other sources say something else."""
    from urlbench.baselines.catalogue import PREFIX, source_names
    from urlbench.baselines.library import find_frozen
    from urlbench.baselines.listing import describe_published, format_frozen, format_published

    name = name.removeprefix(PREFIX)
    if name.partition("/")[0] in source_names():
        description = describe_published(name)
        print(json.dumps(description, indent=2, ensure_ascii=False) if as_json else format_published(description))
        return
    frozen, agents = find_frozen(name, folder)
    chosen = frozen.model_copy(update={"agents": tuple(agents)})
    print(
        json.dumps(chosen.model_dump(mode="json"), indent=2, ensure_ascii=False)
        if as_json
        else format_frozen(frozen, agents)
    )


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="default: everything")] = None,
    folder: BaselinesOption = Path("baselines"),
    plugin: PluginOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check hashes, counts and sums of stored baselines. Exit code 1 if anything is wrong."""
    from urlbench.baselines.library import stored_names
    from urlbench.baselines.verification import verify_published, verify_stored

    load_plugins(plugin)
    checks = [verify_stored(name, folder) for name in names or stored_names(folder)]
    if not names:
        checks = [*verify_published(), *checks]
    if as_json:
        print(json.dumps([check.model_dump(mode="json") for check in checks], indent=2))
    else:
        for check in checks:
            print(f"{check.result:<8} {check.name}: {check.detail}")
    raise typer.Exit(1 if any(check.result == "failed" for check in checks) else 0)


@app.command()
def freeze(
    name: Annotated[str, typer.Argument(metavar="NAME", help="what to call it")],
    suite: SuiteOption,
    agents: Annotated[list[str] | None, typer.Option("--agents", help=f"These agents [default: all]. {MANY}")] = None,
    runs: RunsOption = Path("runs"),
    preset: PresetOption = "paper",
    domains: DomainOption = None,
    tasks: TaskOption = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Expect these seeds of everybody.")] = None,
    snapshot: Annotated[str | None, typer.Option("--snapshot", help="Started from this one, such as 2M.")] = None,
    goal_sets: GoalSetsOption = None,
    folder: BaselinesOption = Path("baselines"),
    plugin: PluginOption = None,
) -> None:
    """Keep complete results in one file, with versions and hashes, to compare with later or elsewhere."""
    from urlbench.baselines.frozen import freeze as freeze_results
    from urlbench.baselines.library import check_name, store
    from urlbench.results.cells import collect
    from urlbench.results.selection import make_selection
    from urlbench.runs.plan import parse_frames, parse_seeds

    load_plugins(plugin)
    check_name(name)
    selection = make_selection(
        words(agents),
        words(domains),
        words(tasks),
        parse_seeds(seeds) if seeds else None,
        parse_frames(snapshot) if snapshot else None,
        parse_seeds(goal_sets, "--goal-sets") if goal_sets else None,
    )
    results = collect(runs, suite, preset, selection)
    frozen = freeze_results(results, name)
    path = store(frozen, folder)
    print(
        f"{path}: {results.suite.full_name}, preset {preset}, {results.n_usable} runs of "
        f"{', '.join(agent.label for agent in frozen.agents)}"
    )
    budgets = "" if preset == "paper" else f" --preset {preset}"
    print(f"compare with it: urlbench compare AGENT --suite {results.suite.name}{budgets} --against baseline:{name}")


@app.command()
def export(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="A folder, or the new file.")],
    folder: BaselinesOption = Path("baselines"),
) -> None:
    """Copy a frozen or imported baseline, checked, to hand it on."""
    from urlbench.baselines.library import export as export_baseline

    print(export_baseline(name, folder, out))


@app.command("import")
def import_command(
    file: Annotated[Path, typer.Argument(help="a file that `freeze` or `export` wrote")],
    folder: BaselinesOption = Path("baselines"),
) -> None:
    """Take a frozen baseline from elsewhere into the folder, after checking it."""
    from urlbench.baselines.library import read_frozen, store

    print(store(read_frozen(file), folder))


def import_results(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="one value a row, with a header")],
    suite: SuiteOption,
    name: Annotated[str | None, typer.Option("--name", help="what to call it [default: that of the file]")] = None,
    preset: PresetOption = "paper",
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="COLUMN=FIELD, if they differ; see docs/baselines.md. Repeatable."),
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE that holds for all rows. Repeatable.")
    ] = None,
    folder: BaselinesOption = Path("baselines"),
    plugin: PluginOption = None,
) -> None:
    """Take results that other code made as a baseline, after a full check; nothing is kept of a file with a fault."""
    from urlbench.baselines.foreign import import_csv
    from urlbench.baselines.library import store

    load_plugins(plugin)
    mapping = {field: column for column, field in _pairs(columns, "--map", "COLUMN=FIELD")}
    frozen = import_csv(
        file, name or file.stem, suite, preset, mapping, dict(_pairs(constants, "--set", "FIELD=VALUE"))
    )
    path = store(frozen, folder)
    for agent in frozen.agents:
        start = f"snapshot {agent.snapshot}" if agent.snapshot else "no pretraining"
        print(f"{frozen.name}/{agent.label}: {len(agent.runs)} results of other code, {start}")
    print(f"{path}: {frozen.suite}, preset {frozen.preset}, {len(frozen.tasks)} tasks")


def _pairs(values: list[str] | None, option: str, form: str) -> list[tuple[str, str]]:
    """The two sides of each `a=b`; the last sign of equality divides a column's name from the field."""
    pairs = []
    for value in values or ():
        left, sign, right = value.rpartition("=") if option == "--map" else value.partition("=")
        if not (left and sign and right):
            raise UserError(f"cannot read {option} {value!r}; write {form}.")
        pairs.append((left, right))
    sides = [pair[1] if option == "--map" else pair[0] for pair in pairs]
    twice = sorted({side for side in sides if sides.count(side) > 1})
    if twice:
        raise UserError(f"{option} gives {twice[0]!r} twice; leave one away.")
    return pairs


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[:length].rpartition(",")[0] + ", ..."
