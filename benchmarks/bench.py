"""All measurements against plain versions, one after the other: what `make bench` runs.

    python benchmarks/bench.py            # hours on a busy core; records in benchmarks/results
    python benchmarks/bench.py --quick    # minutes; few repetitions in small sizes, nothing is kept
    python benchmarks/bench.py --show     # the table of what was recorded

Each script is a process of its own with one thread, and writes a JSON file with a list of `rows` (`comparing.Row`).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import comparing

FOLDER = Path(__file__).parent


class Script(NamedTuple):
    """A benchmark.

    Attributes:
        name: of the script and of its record.
        quick: arguments for a quick pass.
    """

    name: str
    quick: Sequence[str]


SCRIPTS = (
    Script("ddpg_updates", ("--preset", "small", "--repetitions", "2")),
    Script("acting_time", ("--presets", "small", "--actions", "50", "--repetitions", "3")),
    Script("update_speed", ("--quick",)),
    Script("replay_batches", ("--rounds", "3")),
    Script("kept_memory", ("--preset", "small", "--updates", "5", "--repetitions", "2")),
    Script("environments", ("--state-steps", "500", "--pixel-steps", "10", "--repetitions", "2")),
    Script("report_time", ("--repetitions", "2000")),
    Script("command_start", ("--repetitions", "2")),
)


def rows_of(path: Path) -> list[comparing.Row]:
    """The comparisons in a benchmark's record.

    Raises:
        ValueError: if it has none, or they are of another form.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = found.get("rows") if isinstance(found, dict) else None
    if not rows:
        raise ValueError(f"{path} holds no `rows`; a benchmark writes them as `comparing.write` does.")
    for row in rows:
        if row.keys() != set(comparing.Row._fields):
            raise ValueError(f"{path}: a row has the keys {sorted(row)} instead of {sorted(comparing.Row._fields)}.")
    return [comparing.Row(**row) for row in rows]


def measure(script: Script, output: Path, *, quick: bool) -> None:
    """Run a benchmark that records into `output`."""
    # Relative, since a record holds its command.
    command = [sys.executable, f"{script.name}.py", "--output", os.path.relpath(output, FOLDER)]
    subprocess.run(
        [*command, *(script.quick if quick else ())],
        cwd=FOLDER,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )


def recorded(folder: Path) -> str:
    """The table of all records in a folder; those that are not there are left out."""
    paths = [folder / f"{script.name}.json" for script in SCRIPTS]
    return comparing.table([row for path in paths if path.exists() for row in rows_of(path)])


def main() -> None:
    """Measure, or read what was measured; print a table."""
    parser = argparse.ArgumentParser(description="All measurements against plain versions.")
    parser.add_argument("--quick", action="store_true", help="small sizes, few repetitions, no records")
    parser.add_argument("--show", action="store_true", help="print the table of the records and measure nothing")
    parser.add_argument("--only", help="names of scripts, with commas between them (default: all)")
    given = parser.parse_args()
    names = [script.name for script in SCRIPTS]
    chosen = names if given.only is None else given.only.split(",")
    if unknown := sorted(set(chosen) - set(names)):
        parser.error(f"unknown scripts {', '.join(unknown)}; there are {', '.join(names)}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if given.quick else FOLDER / "results"
        for script in SCRIPTS:
            if script.name in chosen and not given.show:
                print(f"{script.name} ...", file=sys.stderr, flush=True)
                measure(script, folder / f"{script.name}.json", quick=given.quick)
        print(recorded(folder))


if __name__ == "__main__":
    main()
