"""Replay of whole episodes: in `replay_storage` for sampling, and on disk as one file an episode.

Source: the episode replay of DreamerV2 as used by Choreographer: an episode is chosen uniformly, then a window of it;
only complete episodes are sampled. Where episodes may end early, those shorter than a window are padded; theirs are
dropped. Files have ExORL's format (`episode_{index:06d}_{length}.npz`).
"""

import io
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from urlbench.core.durable import explained, remove_temporaries, write_atomic
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array, Batch, Environment, PhysicsEnvironment, StackedEnvironment, TimeStep
from urlbench.episodes.storage import EntryFormat, EpisodeStorage

_ALIGNMENT = 64
_FILE_NAME = re.compile(r"episode_(\d{6,})_(\d+)\.npz")


def aligned_empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An uninitialised array that starts at a multiple of 64 bytes.

    Some matrix kernels order their sums by where their input starts in memory; runs are bit-equal only if that is
    the same in each process.
    """
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.__array_interface__["data"][0] % _ALIGNMENT
    return buffer[start : start + size].view(kind).reshape(shape)


def aligned(array: Array) -> Array:
    """A copy of `array` that starts at a multiple of 64 bytes."""
    copy = aligned_empty(array.shape, array.dtype)
    np.copyto(copy, array)
    return copy


def frames_in_stack(environment: Environment) -> int:
    """How many frames an observation is made of, as a replay is told."""
    return environment.frame_stack if isinstance(environment, StackedEnvironment) else 1


class Replay:
    """Episodes of entries (observation, action that led to it, reward, discount, and what the agent records).

    The reset is an entry, too.

    Args:
        folder: where finished episodes are written; None to keep them in memory only.
        observation_shape: [O] or [C, H, W].
        observation_dtype: float32 or uint8.
        action_dim: A.
        capacity_steps: agent steps kept for sampling; the oldest episodes are dropped beyond it. Their files stay,
            because an older checkpoint may need them.
        recorded: shapes of the float32 arrays that the agent has kept with each entry, by name.
        frame_stack: frames that each observation is a stack of, along the first axis: each is kept once.
        ends_early: episodes may be shorter than a window, which is then padded; else such episodes are not sampled.

    Attributes:
        episodes: number of finished episodes so far, dropped ones included.
        steps: agent steps (entries without the resets) that can be sampled.
    """

    def __init__(
        self,
        folder: Path | None,
        observation_shape: tuple[int, ...],
        observation_dtype: npt.DTypeLike,
        action_dim: int,
        capacity_steps: int,
        recorded: Mapping[str, tuple[int, ...]] | None = None,
        frame_stack: int = 1,
        *,
        ends_early: bool = False,
    ) -> None:
        self.folder, self.capacity_steps, self.ends_early = folder, capacity_steps, ends_early
        self.episodes, self.steps = 0, 0
        self._shapes: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {
            "observation": (observation_shape, np.dtype(observation_dtype)),
            "action": ((action_dim,), np.dtype(np.float32)),
            "reward": ((), np.dtype(np.float32)),
            "discount": ((), np.dtype(np.float32)),
        }
        assert recorded is None or not recorded.keys() & {*self._shapes, "is_first", "mask"}, "these names are taken"
        self._shapes |= {key: (shape, np.dtype(np.float32)) for key, shape in (recorded or {}).items()}
        entries = {key: EntryFormat(shape, dtype) for key, (shape, dtype) in self._shapes.items()}
        frame_shape = (observation_shape[0] // frame_stack, *observation_shape[1:])
        self._observation = EntryFormat(frame_shape, np.dtype(observation_dtype), frame_stack)
        assert self._observation.read_shape == observation_shape, f"{observation_shape} is not {frame_stack} frames"
        self._storage = EpisodeStorage(entries | {"observation": self._observation}, capacity_steps)
        self._open: dict[str, list[Any]] | None = None
        self._sampled: dict[tuple[int, int | None], Array] = {}  # what `_candidates` has found

    def add(self, timestep: TimeStep, action: Array | None = None, recorded: Mapping[str, Array] | None = None) -> None:
        """Append an entry; a reset starts an episode and a last step ends it, which writes its file.

        Args:
            timestep: what the environment returned.
            action: float32 [A], the one that led there; None, stored as zeros, at a reset.
            recorded: what the agent has kept with this entry.

        Raises:
            UserError: if the file cannot be written.
        """
        if timestep.is_first:
            assert action is None, "no action leads to a reset"
            action = np.zeros(self._shapes["action"][0], np.float32)
            self._open = {key: [] for key in self._shapes}
        assert self._open is not None, "the first entry of an episode must be a reset"
        assert action is not None, "an action leads to every entry but a reset"
        entry = {
            "observation": timestep.observation,
            "action": action,
            "reward": timestep.reward,
            "discount": timestep.discount,
            **(recorded or {}),
        }
        assert entry.keys() == self._shapes.keys(), f"an entry of {sorted(entry)}, the replay holds {[*self._shapes]}"
        for key, (shape, dtype) in self._shapes.items():
            stored = np.array(entry[key], dtype)
            assert stored.shape == shape, f"{key} has shape {stored.shape}, the replay holds {shape}"
            self._open[key].append(stored)
        if timestep.is_last:
            episode = {key: np.stack(values) for key, values in self._open.items()}
            self._open = None
            assert self._observation.is_stack(episode["observation"]), "the environment does not stack its frames"
            self._write(episode)
            self._keep(episode)
            self.episodes += 1

    def _keep(self, episode: dict[str, Array]) -> None:
        length = _length(episode)
        while len(self._storage) and self.steps + length > self.capacity_steps:
            self.steps -= self._storage.drop_oldest() - 1
        self._storage.append(episode)
        self.steps += length
        self._sampled.clear()

    @property
    def bytes_held(self) -> int:
        """Memory that the episodes take, of the process or of its file."""
        return self._storage.bytes_held

    def can_sample(self, batch: Batch) -> bool:
        """True once a complete episode can be sampled."""
        return len(self._candidates(batch)) > 0

    def never_sampled(self, batch: Batch) -> int:
        """How many of the episodes are shorter than the windows, and so left out."""
        return 0 if self.ends_early else int(np.sum(self._storage.lengths <= batch.least_steps))

    def _candidates(self, batch: Batch) -> Array:
        """Places of the episodes that can be sampled, oldest first."""
        key = (batch.least_steps, batch.newest_steps)
        if key not in self._sampled:
            lengths = self._storage.lengths
            places = np.arange(len(lengths)) if self.ends_early else np.flatnonzero(lengths > batch.least_steps)
            if batch.newest_steps is not None:
                newer_steps = np.cumsum((lengths[places] - 1)[::-1])[::-1] - (lengths[places] - 1)
                places = places[newer_steps < batch.newest_steps]
            self._sampled[key] = places
        return self._sampled[key]

    def sample(self, rng: np.random.Generator, batch: Batch) -> dict[str, Array]:
        """Windows of consecutive entries: the episode uniform, then the start uniform over all that fit.

        Args:
            rng: the stream to draw from.
            batch: how many, how long and of what; drawn with replacement.

        Returns:
            `observation` [B, T, ...], `action` [B, T, A], `reward` and `discount` [B, T] float32, and `is_first`
            [B, T] bool, True at each window's first entry and nowhere else, wherever in its episode that is; and
            what the agent recorded, [B, T, ...] float32. If episodes end early also `mask` [B, T] bool: an episode
            that is shorter than a window gives one that starts with it and is padded with zeros, where `mask` is
            False.

        Raises:
            ValueError: if no complete episode is long enough.
        """
        episodes = self._candidates(batch)
        if not len(episodes):
            raise ValueError(f"no complete episode has {batch.length} entries; ask can_sample first")
        chosen = episodes[rng.integers(len(episodes), size=batch.size)]
        last = self._storage.lengths[chosen] - 1
        starts = rng.integers(np.maximum(last - batch.least_steps, 0) // batch.start_every + 1) * batch.start_every
        steps = starts[:, None] + batch.stride * np.arange(batch.length)
        values = self._read(chosen, np.minimum(steps, last[:, None]), tuple(self._shapes))
        if batch.stride > 1:
            self._accumulate(values, chosen, steps, batch.stride)
        values["is_first"] = np.zeros(steps.shape, bool)
        values["is_first"][:, 0] = True
        if self.ends_early:
            # The last entry of an episode is the first one at or beyond its last step.
            values["mask"] = steps < last[:, None] + batch.stride
            for key in self._shapes:
                values[key][~values["mask"]] = 0
        return values

    def _read(self, episodes: Array, steps: Array, keys: Sequence[str]) -> dict[str, Array]:
        """Entries of each key, [B, T, ...], at `steps` [B, T] of `episodes` [B]."""
        values = {key: aligned_empty((*steps.shape, *self._shapes[key][0]), self._shapes[key][1]) for key in keys}
        self._storage.read(episodes, steps, values)
        return values

    def _accumulate(self, values: dict[str, Array], episodes: Array, steps: Array, stride: int) -> None:
        """Make the rewards and discounts of entries at `steps` [B, T] those of all steps since the entry before."""
        every = steps[:, :, None] + np.arange(1 - stride, 1)
        last = self._storage.lengths[episodes][:, None, None] - 1
        there = (every >= 0) & (every <= last)
        read = self._read(episodes, np.clip(every, 0, last).reshape(len(steps), -1), ("reward", "discount"))
        reward, discount = (read[key].reshape(every.shape) for key in ("reward", "discount"))
        np.sum(reward, -1, out=values["reward"], where=there)
        np.prod(discount, -1, out=values["discount"], where=there)

    # --- on disk ---

    def _write(self, episode: dict[str, Array]) -> None:
        if self.folder is None:
            return
        # Rewards and discounts are columns in this format.
        columns: dict[str, Any] = {
            key: values[:, None] if values.ndim == 1 else values for key, values in episode.items()
        }
        buffer = io.BytesIO()
        if self._shapes["observation"][1] == np.uint8:
            np.savez_compressed(buffer, **columns)
        else:
            np.savez(buffer, **columns)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise explained(error, self.folder) from error
        write_atomic(self.folder / f"episode_{self.episodes:06d}_{_length(episode)}.npz", buffer.getvalue())

    def load(self, episodes: int) -> None:
        """Take the first `episodes` episodes from disk, as if they had just been added; deletes nothing.

        Raises:
            UserError: naming the file that is missing or damaged.
        """
        assert self.folder is not None, "a replay without a folder has nothing to load"
        assert self.episodes == 0, "load fills a new replay"
        files = self._files()
        newest, steps = episodes, 0
        # What adding them one by one would have kept: the longest tail within the capacity.
        while newest > 0 and newest - 1 in files:
            steps += files[newest - 1][1]
            if steps > self.capacity_steps and newest < episodes:
                break
            newest -= 1
        if newest > 0 and newest - 1 not in files:
            raise UserError(f"episode {newest - 1} is missing in {self.folder}")
        for index in range(newest, episodes):
            self._keep(self._read_file(*files[index]))
        self.episodes = episodes

    def add_file(self, content: bytes, path: Path, length: int, reward: Array | None = None) -> None:
        """Take the episode in a file's content, as if it had just been added.

        Args:
            content: of the file; arrays of other keys than the replay's are left out.
            path: for messages.
            length: agent steps of the episode (T).
            reward: takes the place of the rewards in the file, [T + 1] float32; None leaves them.

        Raises:
            UserError: if the content is damaged or does not fit, or if the replay's own file cannot be written.
        """
        episode = self._parse(content, path, length)
        if reward is not None:
            episode["reward"] = reward
        self._write(episode)
        self._keep(episode)
        self.episodes += 1

    def discard_newer(self) -> None:
        """Delete the files of episodes beyond those loaded, and leftovers: they will be played again."""
        assert self.folder is not None, "a replay without a folder has no files"
        remove_temporaries(self.folder)
        for index, (path, _) in self._files().items():
            if index >= self.episodes:
                path.unlink()

    def _files(self) -> dict[int, tuple[Path, int]]:
        """Path and length of each episode file by index."""
        assert self.folder is not None
        found = {}
        for path in self.folder.glob("episode_*.npz"):
            if match := _FILE_NAME.fullmatch(path.name):
                found[int(match[1])] = (path, int(match[2]))
        return found

    def _read_file(self, path: Path, length: int) -> dict[str, Array]:
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"the replay file {path} is damaged ({error})") from error
        return self._parse(content, path, length)

    def _parse(self, content: bytes, path: Path, length: int) -> dict[str, Array]:
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                episode = {key: file[key] for key in self._shapes}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"the replay file {path} is damaged ({error})") from error
        for key, (shape, dtype) in self._shapes.items():
            expected = (length + 1, *(shape or (1,)))
            if episode[key].shape != expected or episode[key].dtype != dtype:
                found = f"{episode[key].dtype} {list(episode[key].shape)}"
                raise UserError(f"the replay file {path} is damaged: {key} is {found}, not {dtype} {list(expected)}")
            episode[key] = episode[key].reshape(length + 1, *shape)
        if not self._observation.is_stack(episode["observation"]):
            raise UserError(f"the replay file {path} is damaged: its observations are no stacks of frames")
        return episode


class PhysicsReplay(Replay):
    """A replay whose files also hold the physics, `physics` [T + 1, P] float64, as those of ExORL do.

    Args:
        folder: where finished episodes are written.
        environment: whose physics belong to the entries: each is added before the environment moves on.
        capacity_steps: agent steps kept for sampling.
        recorded: as in `Replay`.
        ends_early: as in `Replay`.
    """

    def __init__(
        self,
        folder: Path,
        environment: PhysicsEnvironment,
        capacity_steps: int,
        recorded: Mapping[str, tuple[int, ...]] | None = None,
        *,
        ends_early: bool = False,
    ) -> None:
        super().__init__(
            folder,
            environment.observation_shape,
            environment.observation_dtype,
            environment.action_dim,
            capacity_steps,
            recorded,
            frames_in_stack(environment),
            ends_early=ends_early,
        )
        self._state: Callable[[], Array] = environment.physics_state
        self._states: list[Array] = []

    def add(self, timestep: TimeStep, action: Array | None = None, recorded: Mapping[str, Array] | None = None) -> None:
        """Append an entry and the state the physics are in."""
        if timestep.is_first:
            self._states = []
        self._states.append(self._state())
        super().add(timestep, action, recorded)

    def _write(self, episode: dict[str, Array]) -> None:
        super()._write({**episode, "physics": np.stack(self._states)})


def _length(episode: dict[str, Array]) -> int:
    """Agent steps of an episode: its entries without the reset."""
    return len(episode["reward"]) - 1
