"""Measures how long a batch of the replay takes, beside a list of episodes and beside their files.

Usage: python benchmarks/replay_batches.py [--rounds 15] [--output FILE.json] [--show FILE.json]

Episodes are noise, written by the replay as in a run. Batches of each are made in turn, with the same draws; the first
ones are compared. Counted is CPU time, since the clock also counts what else the machine does.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import comparing
import numpy as np
from plain_replay import FileReplay, PlainReplay
from reporting import describe_machine, markdown_table, spread

from urlbench.core.interfaces import Array, Batch, TimeStep
from urlbench.episodes import storage as replay_storage
from urlbench.episodes.replay import Replay

_ACTION_DIM = 6
_SECONDS_A_ROUND = 0.1
_ROUNDS_OF_FILES = 2


class Case(NamedTuple):
    """One kind of replay.

    Attributes:
        frame_shape: of an observation, or of one of its frames.
        batch: sequences and their steps.
        episodes: in the replay.
        steps: of each.
    """

    name: str
    frame_shape: tuple[int, ...]
    frame_stack: int
    batch: tuple[int, int]
    episodes: int
    steps: int

    def empty_replay(self, folder: Path, *, in_file: bool) -> Replay:
        """A replay that is kept in a file, or is not, however large it is."""
        replay_storage.LARGEST_SHARE_OF_MEMORY = 0 if in_file else 1
        shape = (self.frame_stack * self.frame_shape[0], *self.frame_shape[1:])
        dtype, capacity = (np.uint8 if self.images else np.float32), self.episodes * self.steps
        return Replay(folder, shape, dtype, _ACTION_DIM, capacity, frame_stack=self.frame_stack)

    @property
    def windows(self) -> Batch:
        """The batch as a replay is asked for it."""
        size, length = self.batch
        return Batch(size=size, length=length)

    @property
    def images(self) -> bool:
        """Whether observations are images."""
        return len(self.frame_shape) == 3

    def play(self, replay: Replay) -> None:
        """Add made-up episodes."""
        rng, latest = np.random.default_rng(0), deque[Array](maxlen=self.frame_stack)
        for _ in range(self.episodes):
            for step in range(self.steps + 1):
                frame = (
                    rng.integers(0, 256, self.frame_shape, np.uint8) if self.images else rng.random(self.frame_shape)
                )
                latest.extend([frame] * (1 if step else self.frame_stack))
                timestep = TimeStep(np.concatenate(latest), float(step), 1.0, step == 0, step == self.steps)
                replay.add(timestep, np.full(_ACTION_DIM, step) if step else None)


CASES = (
    Case("world model, states", (24,), 1, (50, 50), 500, 1000),
    Case("world model, images", (3, 64, 64), 1, (50, 50), 100, 500),
    Case("DDPG, states", (24,), 1, (1024, 4), 500, 1000),
    Case("DDPG, images", (3, 84, 84), 3, (256, 4), 40, 500),
)


class Sampled(Protocol):
    """What gives batches."""

    def sample(self, rng: np.random.Generator, batch: Batch) -> dict[str, Array]:
        """A batch."""


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Milliseconds of a batch, in each round, from the replay in memory and in a file, from a list, and from files."""
    with tempfile.TemporaryDirectory() as folder:
        replay = case.empty_replay(Path(folder), in_file=False)
        case.play(replay)
        mapped = case.empty_replay(Path(folder), in_file=True)
        mapped.load(case.episodes)
        files, plain = FileReplay(sorted(Path(folder).iterdir())), PlainReplay(replay.capacity_steps)
        for index in range(case.episodes):
            plain.add(files.read(index))
        places: dict[str, Sampled] = {"replay": replay, "mapped": mapped, "list": plain, "files": files}
        expected = plain.sample(np.random.default_rng(0), case.windows)
        for place in places.values():  # to warm up, too
            found = place.sample(np.random.default_rng(0), case.windows)
            assert expected.keys() == found.keys()
            assert all(np.array_equal(values, found[key]) for key, values in expected.items())
        milliseconds: dict[str, list[float]] = {name: [] for name in places}
        for number in range(rounds):
            for name, place in places.items():
                if name != "files" or number < _ROUNDS_OF_FILES:
                    milliseconds[name].append(1000 * _seconds_a_batch(place, case, number))
    whole = sum(values.nbytes for episode in plain.kept for values in episode.values())
    return case._asdict() | {"bytes": replay.bytes_held, "bytes_of_list": whole, "milliseconds": milliseconds}


def _seconds_a_batch(place: Sampled, case: Case, seed: int) -> float:
    rng, batches, began = np.random.default_rng(seed), 0, time.process_time()
    while not batches or time.process_time() - began < _SECONDS_A_ROUND:
        place.sample(rng, case.windows)
        batches += 1
    return (time.process_time() - began) / batches


def table(result: dict[str, Any]) -> str:
    """The result in Markdown."""
    rows = []
    for case in result["cases"]:
        spent = case["milliseconds"]
        median = {name: statistics.median(values) for name, values in spent.items()}
        rows.append(
            [
                case["name"],
                "×".join(map(str, case["batch"])),
                f"{case['episodes']}×{case['steps']}",
                spread(spent["replay"], ".3g"),
                f"{1000 / median['replay']:,.0f}",
                *(f"{median[name]:.3g}" for name in ("mapped", "list", "files")),
                f"{median['list'] / median['replay']:.1f}×",
                f"{median['files'] / median['replay']:,.0f}×",
                f"{case['bytes'] / 2**20:.0f}",
                f"{case['bytes_of_list'] / 2**20:.0f}",
            ]
        )
    columns = (
        "replay",
        "batch",
        "episodes",
        "batch [CPU ms]",
        "batches/s",
        "in a file [ms]",
        "list [ms]",
        "files [ms]",
    )
    return markdown_table([*columns, "than the list", "than files", "memory [MiB]", "list [MiB]"], rows)


def rows(cases: Sequence[dict[str, Any]]) -> list[comparing.Row]:
    """The comparisons with a list of episodes and with their files."""
    found = []
    for case in cases:
        seconds = {name: [one / 1000 for one in values] for name, values in case["milliseconds"].items()}
        for name, plain in (("list", "a list of episodes"), ("files", "their files")):
            fast = seconds["replay"][: len(seconds[name])]
            found.append(comparing.row(f"replay, {case['name']}: {plain}", fast, seconds[name], unit="ms", scale=1000))
    return found


def main() -> None:
    """Measure, print the table, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="Measure batches of the replay.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--show", type=Path, help="print the table of a JSON file and measure nothing")
    options = parser.parse_args()
    if options.show is not None:
        result = json.loads(options.show.read_text(encoding="utf-8"))
    else:
        machine = describe_machine(threads=1)
        cases = [measure(case, options.rounds) for case in CASES]
        result = {"machine": machine, "cases": cases, "rows": [row._asdict() for row in rows(cases)]}
    print(table(result))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
