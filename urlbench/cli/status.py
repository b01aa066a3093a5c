"""`urlbench status` and `urlbench logs`."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from urlbench.cli.options import (
    JsonOption,
    RunAgentOption,
    RunPresetOption,
    RunsOption,
    RunSuiteOption,
    print_json,
    words,
)


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
    from urlbench.cli.overview import WATCH_SECONDS, format_overview, read_overview, uses_cluster

    while True:
        overview = read_overview(runs, suite, words(agent), preset)
        if as_json:
            print_json(overview.model_dump(mode="json"))
        else:
            print(("\x1b[H\x1b[2J" if watch and sys.stdout.isatty() else "") + format_overview(overview), flush=True)
        if not watch or not overview.active:
            return
        time.sleep(WATCH_SECONDS["cluster" if uses_cluster(runs) else "local"])


def logs(
    run_name: Annotated[str, typer.Argument(metavar="RUN", help="a job id, the beginning of one, or a run directory")],
    runs: RunsOption = Path("runs"),
    lines: Annotated[int, typer.Option("--lines", help="How many of the last lines.", min=1)] = 40,
) -> None:
    """Show where the log of a run is, and its end."""
    from urlbench.cli.overview import find_log, tail

    log = find_log(runs, run_name)
    print(f"{log}\n{tail(log, lines)}")
