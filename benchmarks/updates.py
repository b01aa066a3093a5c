"""Seconds and memory of one update of each agent.

    python benchmarks/updates.py --output updates.json
    python benchmarks/updates.py --show updates.json

Agents see what walker gives, filled with noise, and learn from batches of their own preset. Each phase of each agent is
measured in a process of its own (`one_update.py`), one after another. These are times; `bench.py` has ratios to plain
versions. With one thread, which is what `urlbench run` gives a worker, the time on the CPU is what an update takes on a
machine with nothing else to do.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# No torch here: a process starts with the peak memory of the one that has started it.
import reporting

from urlbench.core import registry
from urlbench.core.errors import unknown_name
from urlbench.core.types import ObservationKind, Phase, Spec

PHASES: tuple[Phase, ...] = ("pretrain", "finetune")
COLUMNS = (
    "agent",
    "phase",
    "parameters [M]",
    "batch",
    "update [CPU s]",
    "by the clock [s]",
    "updates",
    "memory [GiB]",
    "action [CPU ms]",
)


class Settings(Spec):
    """What is measured.

    Attributes:
        updates: at most, after the warm-up.
        seconds: after which no further update is begun.
        threads: of torch.
    """

    preset: str
    observation: ObservationKind
    updates: int
    seconds: float
    threads: int


class Measurement(Spec):
    """One agent in one phase.

    Attributes:
        parameters: that some optimiser of the phase trains; copies such as target networks are left out.
        batch: sequences and their steps.
        update_seconds: of each update, by the clock.
        cpu_seconds: of each update, all threads together.
        act_seconds: median of one action of the training actor, on the CPU.
        baseline_bytes: most memory that the process had taken after its imports.
        peak_bytes: most memory that it had taken at the end, after building, updates and actions.
    """

    agent: str
    phase: Phase
    parameters: int
    batch: tuple[int, int]
    update_seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]
    act_seconds: float
    baseline_bytes: int
    peak_bytes: int


class Report(Spec):
    """Everything that is written.

    Attributes:
        machine: see `reporting.describe_machine`.
    """

    machine: dict[str, Any]
    settings: Settings
    measurements: tuple[Measurement, ...]


def measure_each(agents: Sequence[str], settings: Settings) -> Iterator[Measurement]:
    """Each phase that each agent learns in, measured in a process of its own."""
    script = str(Path(__file__).with_name("one_update.py"))
    for agent in agents:
        for phase in PHASES:
            done = subprocess.run(
                [sys.executable, script, agent, phase, settings.model_dump_json()],
                env={**os.environ, "OMP_NUM_THREADS": str(settings.threads)},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            if done.stdout:
                yield Measurement.model_validate_json(done.stdout)


def table(report: Report) -> str:
    """The report's measurements in Markdown."""
    return reporting.markdown_table(COLUMNS, [_row(one) for one in report.measurements])


def _row(one: Measurement) -> tuple[str, ...]:
    return (
        one.agent,
        one.phase,
        f"{one.parameters / 1e6:.2f}",
        "×".join(map(str, one.batch)),
        reporting.spread(one.cpu_seconds, ".3g"),
        f"{statistics.median(one.update_seconds):.3g}",
        str(len(one.update_seconds)),
        f"{(one.peak_bytes - one.baseline_bytes) / 2**30:.2f}",
        f"{1000 * one.act_seconds:.2g}",
    )


def main() -> None:
    """Measure, or read what was measured; print a table."""
    parser = argparse.ArgumentParser(description="Seconds and memory of one update of each agent.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers, rewritten after each of them")
    parser.add_argument("--show", type=Path, help="print the table of this file and measure nothing")
    parser.add_argument("--agents", help="names, with commas between them (default: all)")
    parser.add_argument("--preset", choices=("paper", "small", "smoke"), default="paper", help="(%(default)s)")
    parser.add_argument("--observation", choices=("states", "pixels"), default="states", help="(%(default)s)")
    parser.add_argument("--updates", type=int, default=20, help="at most, after one to warm up (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="begin no further one after these (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (%(default)s)")
    given = parser.parse_args()
    if given.show is not None:
        print(table(Report.model_validate_json(given.show.read_text(encoding="utf-8"))))
        return
    known = registry.names("agent")
    agents = list(known) if given.agents is None else given.agents.split(",")
    for agent in agents:
        if agent not in known:
            parser.error(str(unknown_name("agent", agent, known, see="urlbench list agents")))
    report = Report(
        machine=reporting.describe_machine(given.threads),
        settings=Settings.model_validate({name: getattr(given, name) for name in Settings.model_fields}),
        measurements=(),
    )
    for measurement in measure_each(agents, report.settings):
        report = report.model_copy(update={"measurements": (*report.measurements, measurement)})
        print(f"{measurement.agent} {measurement.phase}", file=sys.stderr, flush=True)
        if given.output is not None:
            given.output.write_text(json.dumps(report.model_dump(), indent=1) + "\n", encoding="utf-8")
    print(table(report))


if __name__ == "__main__":
    main()
