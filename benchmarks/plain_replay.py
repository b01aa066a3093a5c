"""Replays with obviously right batches, for comparison: episodes in a list, and episodes in their files."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from urlbench.core.interfaces import Array, Batch
from urlbench.episodes.replay import aligned_empty

Episode = dict[str, Array]


class PlainReplay:
    """Whole episodes in a list, every array as it was added.

    Args:
        capacity_steps: as in `urlbench.episodes.replay.Replay`.
    """

    def __init__(self, capacity_steps: int) -> None:
        self.capacity_steps = capacity_steps
        self.kept: list[Episode] = []

    def add(self, episode: Episode) -> None:
        """Keep an episode, [T + 1, ...] of each key, and the longest tail of those before it that still fits."""
        self.kept.append(episode)
        while len(self.kept) > 1 and sum(len(one["reward"]) - 1 for one in self.kept) > self.capacity_steps:
            self.kept.pop(0)

    def sample(self, rng: np.random.Generator, batch: Batch) -> Episode:
        """A batch as `urlbench.episodes.replay.Replay.sample` gives it, with the same draws."""
        episodes = [episode for episode in self.kept if len(episode["reward"]) >= batch.length]
        return windows(rng, [len(one["reward"]) for one in episodes], episodes.__getitem__, batch)


class FileReplay:
    """The same from episode files, each read whole for each window: nothing is in memory.

    Args:
        files: the episodes.
        columns: keys of numbers, which are columns in the files.
    """

    def __init__(self, files: Sequence[Path], columns: Sequence[str] = ("reward", "discount")) -> None:
        self.files, self.columns = files, columns

    def read(self, index: int) -> Episode:
        """The episode in a file."""
        with np.load(self.files[index]) as file:
            return {key: file[key][:, 0] if key in self.columns else file[key] for key in file.files}

    def sample(self, rng: np.random.Generator, batch: Batch) -> Episode:
        """A batch as `PlainReplay.sample` gives it; all episodes must be long enough."""
        lengths = [int(path.stem.rpartition("_")[2]) + 1 for path in self.files]
        return windows(rng, lengths, self.read, batch)


def windows(rng: np.random.Generator, lengths: Sequence[int], read: Callable[[int], Episode], batch: Batch) -> Episode:
    """Draw windows, of episodes with `lengths` entries, and copy them one by one."""
    chosen = rng.integers(len(lengths), size=batch.size).tolist()
    starts = rng.integers([lengths[index] - batch.length + 1 for index in chosen]).tolist()
    found: Episode = {}
    for row, (index, start) in enumerate(zip(chosen, starts, strict=True)):
        for key, values in read(index).items():
            if key not in found:
                found[key] = aligned_empty((batch.size, batch.length, *values.shape[1:]), values.dtype)
            found[key][row] = values[start : start + batch.length]
    found["is_first"] = np.zeros((batch.size, batch.length), bool)
    found["is_first"][:, 0] = True
    return found
