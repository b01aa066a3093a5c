"""Time of one action of a training actor, from states, against acting with the modules (`plain_acting.py`).

    python benchmarks/acting_time.py --output benchmarks/results/acting_time.json

Two agents of each kind act, one by its modules, taking turns in one process with one thread.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import comparing
import numpy as np
import one_update
import reporting
from plain_acting import plain_actors
from updates import Settings

from urlbench.agents.common.finetuning import Finetuning
from urlbench.core import registry
from urlbench.core.interfaces import Actor
from urlbench.core.types import Phase
from urlbench.training.assembly import set_up_torch

LEARNERS: tuple[tuple[str, Phase], ...] = (
    ("ddpg", "finetune"),
    ("diayn", "pretrain"),
    ("dreamer", "finetune"),
    ("dreamer-diayn", "finetune"),
    ("choreographer", "pretrain"),
    ("choreographer", "finetune"),
)


def prepared(name: str, phase: Phase, preset: str) -> Actor:
    """A training actor in an episode, its agent past the search for a skill."""
    settings = Settings(preset=preset, observation="states", updates=1, seconds=0, threads=1)
    agent = one_update.build(registry.load_agent(name), phase, settings)
    if isinstance(agent, Finetuning):
        one_update.settle(agent, one_update.play(agent, agent.actor(evaluation=False, seed=1), agent.context))
    actor = agent.actor(evaluation=False, seed=1)
    actor.begin_episode()
    return actor


def measure(preset: str, actions: int, repetitions: int) -> Iterator[comparing.Row]:
    """Each actor's actions."""
    set_up_torch("cpu", 1)
    observation = np.random.default_rng(0).normal(size=one_update.STATE_DIM).astype(np.float32)
    for name, phase in LEARNERS:
        fast = prepared(name, phase, preset)
        with plain_actors():
            plain = prepared(name, phase, preset)

        def act(actor=fast, plainly=False) -> None:  # type: ignore[no-untyped-def]
            with plain_actors() if plainly else nullcontext():
                for _ in range(actions):
                    actor.act(observation, one_update.LATE_STEP)

        def act_plainly(actor=plain, act=act) -> None:  # type: ignore[no-untyped-def]
            act(actor, plainly=True)

        seconds = comparing.take_turns(act, act_plainly, repetitions)
        yield comparing.row(f"action of {name}, {preset}, {phase}", *seconds, unit="ms", scale=1000 / actions)


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Time of an action against acting with the modules.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--presets", default="paper,small", help="with commas between them (%(default)s)")
    parser.add_argument("--actions", type=int, default=200, help="of a repetition (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    machine, rows = reporting.describe_machine(threads=1), []
    for preset in given.presets.split(","):
        for row in measure(preset, given.actions, given.repetitions):
            print(row.what, file=sys.stderr, flush=True)
            rows.append(row)
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, repetitions=given.repetitions, actions=given.actions)


if __name__ == "__main__":
    main()
