"""Seconds from the start of a command to its end, where it does next to nothing, against what it must not import.

    python benchmarks/command_start.py --output benchmarks/results/command_start.json

The plain version is the same command after `import torch`, which every command would begin with if the imports of
urlbench were not put off until something needs them. Both run as processes of their own, taking turns.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import comparing
import reporting

COMMANDS = (("--help",), ("list", "agents"), ("list", "tasks"))


def cpu_seconds(arguments: Sequence[str], *, first: str) -> float:
    """Seconds on the CPU of a process that runs `first` and then the command of urlbench."""
    code = f"import sys; {first}; from urlbench.cli.app import main; sys.argv[0] = 'urlbench'; main()"
    begin = _of_children()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    return _of_children() - begin


def _of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(arguments: Sequence[str], repetitions: int) -> comparing.Row:
    """One command."""
    both = [
        (cpu_seconds(arguments, first="pass"), cpu_seconds(arguments, first="import torch"))
        for _ in range(repetitions + 1)
    ]
    fast, plain = zip(*both[1:], strict=True)
    return comparing.row(f"urlbench {' '.join(arguments)}", fast, plain, unit="s")


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Seconds that commands take to start.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--repetitions", type=int, default=5, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    machine = reporting.describe_machine(threads=1)
    rows = [measure(arguments, given.repetitions) for arguments in COMMANDS]
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, repetitions=given.repetitions)


if __name__ == "__main__":
    main()
