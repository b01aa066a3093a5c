"""Where a replay keeps its episodes: arrays that grow without being copied and are read by their rows."""

import mmap
import os
import tempfile
import weakref
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from urlbench.core.durable import explained
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array

_GROWTH_BYTES = 2**24  # of a file
_ROOM_FOR_RESETS = 1.05  # an episode has one entry more than steps

LARGEST_SHARE_OF_MEMORY = 1 / 16
"""A replay that may become larger than this share of the machine's memory is kept in a file, so that several runs fit.

The system keeps in memory what it has room for, as with all files, and puts the rest on disk in place of killing the
run. Smaller replays are worth no file: a few of them fit beside what updates need.
"""


class EntryFormat(NamedTuple):
    """What one key of an entry is.

    Attributes:
        shape: of an entry, or of one frame if `frames` of them are stacked along the first axis.
        frames: the latest entries that make up what is read; the first of an episode stands in for those before it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    frames: int = 1

    @property
    def read_shape(self) -> tuple[int, ...]:
        """The shape of what is read for an entry."""
        return self.shape if self.frames == 1 else (self.frames * self.shape[0], *self.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Bytes of an entry."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def is_stack(self, values: Array) -> bool:
        """Whether `values` [T, *read_shape] of an episode are stacks of its frames, and so follow from the newest."""
        stacks = values.reshape(len(values), self.frames, *self.shape)
        return bool((stacks[0] == stacks[0, -1]).all() and np.array_equal(stacks[1:, :-1], stacks[:-1, 1:]))

    def newest_frame(self, values: Array) -> Array:
        """Of stacks [T, *read_shape], what is stored: [T, *shape]."""
        return values.reshape(len(values), self.frames, *self.shape)[:, -1]


class GrowingArray:
    """An array that grows without being copied.

    In memory it is as large as it will ever be from the first row on: what was never written to takes no memory. A file
    grows, and is mapped anew.

    Args:
        entry: shape and type of a row.
        expected_rows: how many there may be; more are taken, too, by copying.
        in_file: map a file without a name, which is gone with the process, however that ends.

    Attributes:
        rows: [N, *shape], at least as many as were asked for; another array after each growth.
    """

    def __init__(self, entry: EntryFormat, expected_rows: int, *, in_file: bool) -> None:
        self._entry, self._expected_rows = entry, expected_rows
        self._file: IO[bytes] | None = None
        self.rows: Array = np.empty((0, *entry.shape), entry.dtype)
        if in_file:
            try:
                self._file = tempfile.TemporaryFile(prefix="urlbench-replay-")  # noqa: SIM115 - as long as the array
            except OSError as error:
                raise _no_room(error) from error
            weakref.finalize(self, self._file.close)

    def grow(self, rows: int) -> None:
        """Have at least `rows` rows, those that are there as they are.

        Raises:
            UserError: if there is no room for the file.
        """
        if rows <= len(self.rows):
            return
        if self._file is None:
            grown = np.empty(
                (max(rows, self._expected_rows, 2 * len(self.rows)), *self._entry.shape), self._entry.dtype
            )
            grown[: len(self.rows)] = self.rows
            self.rows = grown
            return
        size = -(-max(rows * self._entry.row_bytes, 1) // _GROWTH_BYTES) * _GROWTH_BYTES
        try:
            # Written to, since a mapped page that has no place on the disk when it is needed would end the process.
            self._file.seek(0, os.SEEK_END)
            self._file.write(bytes(size - self._file.tell()))
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from error
        capacity = size // max(self._entry.row_bytes, 1)
        mapping = mmap.mmap(self._file.fileno(), size)
        self.rows = np.ndarray((capacity, *self._entry.shape), self._entry.dtype, mapping)


def _no_room(error: OSError) -> UserError:
    return explained(
        error, Path(tempfile.gettempdir()), "continue with --rerun failed, or set TMPDIR to a folder with room"
    )


class EpisodeStorage:
    """Whole episodes, oldest first. A key has one array with a row per entry; rows of dropped episodes are used again.

    Args:
        entries: what the keys of an entry are.
        expected_steps: how many agent steps there may be at a time; more are taken, too.
    """

    def __init__(self, entries: Mapping[str, EntryFormat], expected_steps: int) -> None:
        self._entries = entries
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        expected_bytes = expected_steps * sum(entry.row_bytes for entry in entries.values())
        in_file = expected_bytes > LARGEST_SHARE_OF_MEMORY * memory
        rows = int(_ROOM_FOR_RESETS * expected_steps)
        self._arrays = {key: GrowingArray(entry, rows, in_file=in_file) for key, entry in entries.items()}
        self._episodes: deque[Array] = deque()  # the rows of each
        self._free = np.empty(0, np.intp)
        self._used_rows = 0
        self._index: _Index | None = None

    def __len__(self) -> int:
        return len(self._episodes)

    @property
    def bytes_held(self) -> int:
        """Bytes of all rows that were ever written to."""
        return self._used_rows * sum(entry.row_bytes for entry in self._entries.values())

    @property
    def lengths(self) -> Array:
        """Entries of each episode, int [E]."""
        return self._indexed().lengths

    def append(self, episode: Mapping[str, Array]) -> None:
        """Store an episode, [T, *read_shape] of each key; of stacks, the newest frames.

        Raises:
            UserError: if there is no room.
        """
        count = len(next(iter(episode.values())))
        reused, self._free = self._free[:count], self._free[count:]
        added = np.arange(self._used_rows, self._used_rows + count - len(reused))
        rows = np.concatenate([reused, added])
        self._used_rows += len(added)
        for key, entry in self._entries.items():
            array = self._arrays[key]
            array.grow(self._used_rows)
            array.rows[rows] = entry.newest_frame(episode[key])
        self._episodes.append(rows)
        self._index = None

    def drop_oldest(self) -> int:
        """Forget the oldest episode; returns its entries."""
        rows = self._episodes.popleft()
        self._free = np.concatenate([self._free, rows])
        self._index = None
        return len(rows)

    def read(self, episodes: Array, steps: Array, into: Mapping[str, Array]) -> None:
        """Copy entries of some episodes, with one gather per key.

        Args:
            episodes: which episode each row is of, int [B], in the order of `lengths`.
            steps: the entries of it, int [B, T].
            into: contiguous arrays [B, T, *read_shape] by key; other keys are not read.
        """
        index = self._indexed()
        firsts = index.firsts[episodes][:, None, None]
        rows = {
            frames: index.rows[firsts + np.maximum(steps[:, :, None] + np.arange(1 - frames, 1), 0)]  # [B, T, frames]
            for frames in {self._entries[key].frames for key in into}
        }
        for key, values in into.items():
            entry = self._entries[key]
            target = values.reshape(*rows[entry.frames].shape, *entry.shape)
            # The default mode, "raise", would gather into a copy first.
            np.take(self._arrays[key].rows, rows[entry.frames], 0, target, mode="clip")

    def _indexed(self) -> "_Index":
        if self._index is None:
            lengths = np.array([len(rows) for rows in self._episodes], np.intp)
            self._index = _Index(
                np.concatenate([self._free[:0], *self._episodes]), np.cumsum(lengths) - lengths, lengths
            )
        return self._index


class _Index(NamedTuple):
    """Where the entries of all episodes are.

    Attributes:
        rows: of every entry, oldest episode first.
        firsts: place in `rows` of each episode's first entry, [E].
        lengths: entries of each episode, [E].
    """

    rows: Array
    firsts: Array
    lengths: Array
