"""Updates of agents with a world model against the published update's structure (`plain_update.py`).

    python benchmarks/update_speed.py --output benchmarks/results/update_speed.json
    python benchmarks/update_speed.py --quick

Each measurement is a process of its own with one thread, since the most memory that was ever taken is a process's; the
two kinds take turns. The plain one has glibc as it comes (see `kept_memory.py`), as the published code has.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple
from unittest import mock

# No torch here: a process starts with the peak memory of the one that has started it.
import comparing
import reporting

from urlbench.core.types import ObservationKind, Phase


class Case(NamedTuple):
    """What is measured.

    Attributes:
        updates: in a process, after one to warm up.
    """

    agent: str
    phase: Phase
    observation: ObservationKind
    preset: str
    updates: int

    def __str__(self) -> str:
        return f"{self.agent}, {self.phase}, {self.observation}, {self.preset}"


LEARNERS: tuple[tuple[str, Phase], ...] = (
    ("choreographer", "pretrain"),
    ("choreographer", "finetune"),
    ("dreamer-lbs", "pretrain"),
    ("dreamer-lbs", "finetune"),
)
CASES = (
    *(Case(*learner, "states", "small", 20) for learner in LEARNERS),
    Case("choreographer", "pretrain", "pixels", "small", 5),
    *(Case(*learner, "states", "paper", 2) for learner in LEARNERS),
    Case("choreographer", "pretrain", "pixels", "paper", 1),
)
KINDS = ("fast", "plain")


def child(case: Case, kind: str) -> dict[str, float]:
    """CPU seconds of an update, mean of some, and the most memory taken in GiB, less that of the imports."""
    import one_update
    from plain_update import plain_pieces
    from updates import Settings

    from urlbench.core import registry
    from urlbench.training import assembly

    baseline = one_update.peak_memory()
    with mock.patch.object(assembly, "keep_freed_memory") if kind == "plain" else nullcontext():
        assembly.set_up_torch("cpu", 1)
    spec = registry.load_agent(case.agent)
    with plain_pieces() if kind == "plain" else nullcontext():
        settings = Settings(
            preset=case.preset, observation=case.observation, updates=case.updates, seconds=0, threads=1
        )
        agent = one_update.build(spec, case.phase, settings)
        actor = agent.actor(evaluation=False, seed=1)
        batch = one_update.play(agent, actor, one_update.context(spec, settings))
        agent.update(batch)
        begin = time.process_time()
        for _ in range(case.updates):
            agent.update(batch)
        seconds = (time.process_time() - begin) / case.updates
    return {"seconds": seconds, "gib": (one_update.peak_memory() - baseline) / 2**30}


def measure(case: Case, repetitions: int) -> dict[str, list[dict[str, float]]]:
    """What processes of both kinds found; who goes first changes every time."""
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for repetition in range(repetitions):
        for kind in KINDS if repetition % 2 else KINDS[::-1]:
            command = [sys.executable, __file__, "--child", json.dumps(case), kind]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[kind].append(json.loads(done.stdout))
    return found


def rows(case: Case, found: dict[str, list[dict[str, float]]]) -> list[comparing.Row]:
    """Time and memory."""
    fast, plain = ([one["seconds"] for one in found[kind]] for kind in KINDS)
    time_row = comparing.row(f"update of {case}", fast, plain, unit="CPU s")
    fast, plain = ([one["gib"] for one in found[kind]] for kind in KINDS)
    taken = statistics.median(plain), statistics.median(fast)
    return [time_row, comparing.Row(f"its memory, {case}", *taken, "GiB", taken[0] / taken[1])]


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="World-model agents' updates against the published structure.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--preset", choices=("paper", "small"), help="only that one (default: both)")
    parser.add_argument("--agents", help="names, with commas between them (default: all)")
    parser.add_argument("--repetitions", type=int, default=1, help="processes of each kind (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="Dreamer from states in the preset small alone, once")
    parser.add_argument("--child", nargs=2, metavar=("CASE", "KIND"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        case, kind = given.child
        print(json.dumps(child(Case(*json.loads(case)), kind)))
        return
    if given.quick:
        given.preset, given.agents, given.repetitions = "small", "dreamer-lbs", 1
    names = {agent for agent, _ in LEARNERS} if given.agents is None else set(given.agents.split(","))
    machine, table, details = reporting.describe_machine(threads=1), list[comparing.Row](), {}
    for case in CASES:
        if case.agent in names and given.preset in (None, case.preset):
            print(case, file=sys.stderr, flush=True)
            details[str(case)] = found = measure(case, given.repetitions)
            table += rows(case, found)
    print(comparing.table(table))
    if given.output is not None:
        comparing.write(given.output, machine, table, repetitions=given.repetitions, found=details)


if __name__ == "__main__":
    main()
