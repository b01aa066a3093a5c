"""What bfloat16 products change in an agent's losses, and what they save: against float32, from the same start.

    python benchmarks/precision_effect.py --output benchmarks/results/precision_effect.json
    python benchmarks/precision_effect.py --show benchmarks/results/precision_effect.json

Three copies of an agent learn from the same batches of noise, taking turns in one process with one thread: in float32,
in bfloat16, and in float32 from parameters that differ in their last bit. The third shows how fast differences grow.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import comparing
import numpy as np
import one_update
import reporting
import torch
from updates import Settings

from urlbench.agents.common.learner import Learner
from urlbench.agents.common.optimiser import Optimiser
from urlbench.core import registry
from urlbench.core.interfaces import Agent, Array, Precision
from urlbench.core.precision import check_effect, products_in
from urlbench.core.types import Phase
from urlbench.training.assembly import set_up_torch

# Agent, preset, updates; the first update warms up and is not timed.
MEASURED = (
    ("ddpg", "small", 100),
    ("cic", "small", 100),
    ("dreamer-lbs", "small", 50),
    ("choreographer", "small", 50),
    ("ddpg", "paper", 4),
    ("choreographer", "paper", 2),
)
TIME_COLUMNS = ("agent, preset, phase", "float32 [updates/s]", "bfloat16 [updates/s]", "times as fast")
COLUMNS = ("agent", "preset", "loss", "updates", "first", "median", "largest", "last bit: median", "largest ")


class Differences(NamedTuple):
    """How far a loss is from the float32 agent's, relative to it, in every update.

    Attributes:
        bfloat16: with products in bfloat16.
        last_bit: in float32, from parameters that are each the next larger number.
    """

    agent: str
    preset: str
    loss: str
    bfloat16: tuple[float, ...]
    last_bit: tuple[float, ...]


def measure(name: str, preset: str, updates: int) -> tuple[list[Differences], comparing.Row]:
    """The differences of all losses, and the time of updates."""
    spec = registry.load_agent(name)
    phase: Phase = "pretrain" if spec.pretrains else "finetune"
    settings = Settings(preset=preset, observation="states", updates=updates, seconds=0, threads=1)
    exact, lower, nudged = (one_update.build(spec, phase, settings) for _ in range(3))
    nudge(nudged)
    where, rng = one_update.context(spec, settings), np.random.default_rng(one_update.SEED)
    replay = one_update.filled_replay(exact, exact.actor(evaluation=False, seed=one_update.SEED), where, rng)
    losses: dict[str, list[Mapping[str, float]]] = {"float32": [], "bfloat16": [], "last_bit": []}
    seconds: dict[str, list[float]] = {version: [] for version in losses}
    turns: list[tuple[str, Agent, Precision]] = [
        ("float32", exact, "float32"),
        ("bfloat16", lower, "bfloat16"),
        ("last_bit", nudged, "float32"),
    ]
    for update in range(updates):
        batch = replay.sample(rng, exact.schedule.sampled[""])
        for version, agent, precision in turns if update % 2 else reversed(turns):
            with products_in(precision):
                begin = time.process_time()
                losses[version].append(learn(agent, batch))
                seconds[version].append(time.process_time() - begin)
    differences = [
        Differences(name, preset, loss, *(relative(losses, version, loss) for version in ("bfloat16", "last_bit")))
        for loss in losses["float32"][0]
    ]
    what = f"{name}, {preset}, {phase}"
    return differences, comparing.row(
        what, seconds["bfloat16"][1:], seconds["float32"][1:], unit="updates/s", per_second=1
    )


def nudge(agent: Agent) -> None:
    """Make every number that an optimiser trains the next larger one."""
    assert isinstance(agent, Learner), f"{type(agent).__name__} has no components to nudge"
    optimisers = [component for component in agent.components.values() if isinstance(component, Optimiser)]
    for parameter in {id(one): one for optimiser in optimisers for one in optimiser.parameters}.values():
        parameter.data = parameter.data.nextafter(torch.tensor(torch.inf))


def learn(agent: Agent, batch: Mapping[str, Array]) -> dict[str, float]:
    """The losses of an update."""
    return {name: float(value) for name, value in agent.update(batch).items() if name.endswith("loss")}


def relative(losses: Mapping[str, Sequence[Mapping[str, float]]], version: str, loss: str) -> tuple[float, ...]:
    """|loss - float32's| / |float32's| in every update; 0 where both are 0."""
    pairs = [(one[loss], other[loss]) for one, other in zip(losses["float32"], losses[version], strict=True)]
    return tuple(0.0 if one == other else abs(other - one) / max(abs(one), 1e-30) for one, other in pairs)


def tables(differences: Sequence[Differences], rows: Sequence[comparing.Row]) -> str:
    """What the documentation shows."""
    cells = [
        (
            *(one.agent, one.preset, one.loss.removesuffix("_loss"), str(len(one.bfloat16)), f"{one.bfloat16[0]:.0e}"),
            *(f"{of(each):.0e}" for each in (one.bfloat16, one.last_bit) for of in (statistics.median, max)),
        )
        for one in differences
    ]
    times = [(one.what, *(f"{number:.3g}" for number in (one.plain or 0, one.fast, one.ratio or 0))) for one in rows]
    return f"{reporting.markdown_table(TIME_COLUMNS, times)}\n\n{reporting.markdown_table(COLUMNS, cells)}"


def main() -> None:
    """Measure, print tables, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="What bfloat16 products change and save.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--show", type=Path, help="print the tables of such a file and measure nothing")
    parser.add_argument("--agents", help="names, with commas between them (default: all that are measured)")
    parser.add_argument("--presets", default="small,paper", help="(%(default)s)")
    parser.add_argument("--updates", type=int, help="at most so many (default: 2 to 100, by size)")
    given = parser.parse_args()
    if given.show is not None:
        found = json.loads(given.show.read_text(encoding="utf-8"))
        differences = [Differences(**one) for one in found["settings"]["differences"]]
        print(tables(differences, [comparing.Row(**row) for row in found["rows"]]))
        return
    set_up_torch("cpu", 1)
    check_effect("bfloat16", "cpu")
    machine, differences, rows = reporting.describe_machine(threads=1), list[Differences](), list[comparing.Row]()
    for name, preset, updates in MEASURED:
        if preset in given.presets.split(",") and (given.agents is None or name in given.agents.split(",")):
            print(f"{name}, {preset}", file=sys.stderr, flush=True)
            found_differences, row = measure(name, preset, min(updates, given.updates or updates))
            differences += found_differences
            rows.append(row)
    print(tables(differences, rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, differences=[one._asdict() for one in differences])


if __name__ == "__main__":
    main()
