"""Where the time of a world-model agent's update goes: CPU seconds and floating-point operations of its parts.

    python benchmarks/update_parts.py --output benchmarks/results/update_parts.json
    python benchmarks/update_parts.py --agent dreamer-lbs --phase finetune --presets small
    python benchmarks/update_parts.py --observation pixels --output benchmarks/results/update_parts-pixels.json

A part's time is without that of the parts inside of it; a step of an optimiser includes the backward pass. Operations
are those of matrix products and convolutions, two a multiply-add, as `torch.utils.flop_counter` counts them.
"""

import argparse
import collections
import functools
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest import mock

import one_update
from reporting import describe_machine, markdown_table
from torch.utils.flop_counter import FlopCounterMode
from updates import Settings

from urlbench.agents.common import actor_critic, knn_entropy
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.networks import ConvDecoder, ConvEncoder
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.rssm import RSSM
from urlbench.agents.common.world_model import WorldModel
from urlbench.core import registry
from urlbench.core.types import ObservationKind, Phase
from urlbench.training.assembly import set_up_torch

UPDATES = {"smoke": 20, "small": 20, "paper": 2}


class Part(NamedTuple):
    """What one part takes in an update.

    Attributes:
        gflop: 1e9 floating-point operations of its products.
    """

    seconds: float
    gflop: float


class Stopwatch:
    """Says of each part how much of a counter went by in it, and not in the parts inside."""

    def __init__(self, read: Callable[[], float]) -> None:
        self.spent: dict[str, float] = collections.defaultdict(float)
        self._read, self._open, self._last = read, list[str](), 0.0

    def _turn(self) -> None:
        now = self._read()
        if self._open:
            self.spent[self._open[-1]] += now - self._last
        self._last = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done inside counts for `name`."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()


@contextmanager
def watched(agent: Learner, watch: Stopwatch) -> Iterator[None]:
    """Inside, the parts of the agent's updates are told to `watch`."""
    names = {id(component): name.replace("_", " ") for name, component in agent.components.items()}

    def counted(function: Callable[..., Any], label: str) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with watch.part(label.format(names.get(id(args[0]), "") if args else "").strip()):
                return function(*args, **kwargs)

        return wrapper

    places: tuple[tuple[Any, str, str], ...] = (
        (type(agent), "update", "all else"),
        (WorldModel, "loss", "world model's loss but for the filter"),
        (RSSM, "observe", "filter"),
        (ConvEncoder, "forward", "encoder of images"),
        (ConvDecoder, "forward", "decoder of images"),
        (Draws, "_index", "draws of latents"),
        (actor_critic, "imagine", "imagination"),
        (actor_critic.ActorCritic, "learn", "rewards, values and losses: {}"),
        (knn_entropy, "nearest_distances", "distances to neighbours"),
        (Optimiser, "step", "step: {}"),
    )
    with ExitStack() as stack:
        for place, name, label in places:
            stack.enter_context(mock.patch.object(place, name, counted(getattr(place, name), label)))
        yield


def measure(name: str, phase: Phase, observation: ObservationKind, preset: str) -> dict[str, Part]:
    """The parts of an update, on noise."""
    settings = Settings(preset=preset, observation=observation, updates=1, seconds=0, threads=1)
    spec = registry.load_agent(name)
    agent = one_update.build(spec, phase, settings)
    assert isinstance(agent, Learner), f"{name} has no components"
    batch = one_update.play(agent, agent.actor(evaluation=False, seed=1), agent.context)
    one_update.settle(agent, batch)
    with FlopCounterMode(display=False) as counter:
        operations = Stopwatch(lambda: float(counter.get_total_flops()))
        with watched(agent, operations):
            agent.update(batch)
    seconds, updates = Stopwatch(time.process_time), UPDATES[preset]
    with watched(agent, seconds):
        for _ in range(updates):
            agent.update(batch)
    return {
        key: Part(value / updates, operations.spent[key] / 1e9)
        for key, value in sorted(seconds.spent.items(), key=lambda item: -item[1])
    }


def table(found: dict[str, dict[str, Part]]) -> str:
    """Parts by presets, the slowest of the first preset first."""
    header = ["part"]
    for preset in found:
        header += [f"{preset} [CPU s]", "GFLOP", "GFLOP/s"]
    totals = {
        preset: Part(sum(part.seconds for part in parts.values()), sum(part.gflop for part in parts.values()))
        for preset, parts in found.items()
    }
    rows = []
    for name in [*next(iter(found.values())), "**all**"]:
        row = [name]
        for preset, parts in found.items():
            part = parts.get(name, totals[preset])
            row += [f"{part.seconds:.3g}", f"{part.gflop:.3g}", f"{part.gflop / part.seconds:.0f}"]
        rows.append(row)
    return markdown_table(header, rows)


def main() -> None:
    """Measure, print the table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="Where the time of an update goes.")
    parser.add_argument("--agent", default="choreographer", help="with a world model (%(default)s)")
    parser.add_argument("--phase", choices=get_args(Phase), default="pretrain", help="(%(default)s)")
    parser.add_argument("--observation", choices=get_args(ObservationKind), default="states", help="(%(default)s)")
    parser.add_argument("--presets", default="paper,small", help="with commas between them (%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    given = parser.parse_args()
    machine = describe_machine(threads=1)
    set_up_torch("cpu", 1)
    found = {
        preset: measure(given.agent, given.phase, given.observation, preset) for preset in given.presets.split(",")
    }
    print(table(found))
    if given.output is not None:
        parts = {preset: {key: part._asdict() for key, part in parts.items()} for preset, parts in found.items()}
        result = {"machine": machine, "agent": given.agent, "phase": given.phase, "parts": parts}
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
