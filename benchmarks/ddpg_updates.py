"""Updates a second of the DDPG family, from states, against the pieces as they are written (`plain_ddpg.py`).

    python benchmarks/ddpg_updates.py --output benchmarks/results/ddpg_updates.json

Two agents of each kind learn from the same batches, one with the plain pieces, taking turns in one process with one
thread. Pretraining is measured, but of `ddpg`, which has none.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import comparing
import one_update
import reporting
from plain_ddpg import plain_pieces
from updates import Settings

from urlbench.core import registry
from urlbench.core.types import Phase
from urlbench.training.assembly import set_up_torch

AGENTS = ("ddpg", "aps", "apt", "cic", "diayn", "disagreement", "icm", "proto", "rnd", "smm")
UPDATES = {"paper": 1, "small": 20, "smoke": 20}  # of a repetition


def measure(agents: Sequence[str], preset: str, repetitions: int) -> Iterator[comparing.Row]:
    """Each agent's updates."""
    set_up_torch("cpu", 1)
    settings = Settings(preset=preset, observation="states", updates=1, seconds=0, threads=1)
    for name in agents:
        spec = registry.load_agent(name)
        phase: Phase = "pretrain" if spec.pretrains else "finetune"
        fast, plain = (one_update.build(spec, phase, settings) for _ in range(2))
        batch = one_update.play(fast, fast.actor(evaluation=False, seed=1), one_update.context(spec, settings))
        count = UPDATES[preset]

        def learn(agent=fast, batch=batch, count=count) -> None:  # type: ignore[no-untyped-def]
            for _ in range(count):
                agent.update(batch)

        def learn_plainly(agent=plain, learn=learn) -> None:  # type: ignore[no-untyped-def]
            with plain_pieces():
                learn(agent)

        seconds = comparing.take_turns(learn, learn_plainly, repetitions)
        yield comparing.row(f"update of {name}, {preset}, {phase}", *seconds, unit="updates/s", per_second=count)


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Updates a second of the DDPG family against the plain pieces.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--agents", default=",".join(AGENTS), help="names, with commas between them (default: all)")
    parser.add_argument("--preset", choices=tuple(UPDATES), default="paper", help="(%(default)s)")
    parser.add_argument("--repetitions", type=int, default=5, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    machine, rows = reporting.describe_machine(threads=1), []
    for row in measure(given.agents.split(","), given.preset, given.repetitions):
        print(row.what, file=sys.stderr, flush=True)
        rows.append(row)
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, repetitions=given.repetitions)


if __name__ == "__main__":
    main()
