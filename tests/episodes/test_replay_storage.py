"""The replay's arrays give what a list of episodes gives, and hold no more than they must."""

import json
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from processes import run_program

from urlbench.agents.common.world_model import to_tensors
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array, Batch, TimeStep
from urlbench.core.types import ImageFormat
from urlbench.episodes import storage as replay_storage
from urlbench.episodes.replay import PhysicsReplay, Replay, frames_in_stack
from urlbench.episodes.storage import EntryFormat, EpisodeStorage, GrowingArray
from urlbench.suites.image_environment import ImageEnvironment

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
RECORDED = {"skill": (3,)}
Episode = dict[str, Array]


@pytest.fixture
def plain_replay(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_replay

    return plain_replay


@pytest.fixture(params=["memory", "file"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    if request.param == "file":
        monkeypatch.setattr(replay_storage, "LARGEST_SHARE_OF_MEMORY", 0)
    return str(request.param)


def stacked(frames: Array, count: int) -> Array:
    """Observations as an environment makes them of its pictures [T, C, H, W]: the list of the latest, joined."""
    latest, made = [frames[0]] * count, []
    for frame in frames:
        latest = [*latest[1:], frame] if made else latest
        made.append(np.concatenate(latest))
    return np.stack(made)


def made_up(rng: np.random.Generator, steps: int, frame_stack: int | None) -> Episode:
    """An episode from states, or from pixels if there is a stack; its reset has no action and no reward."""
    if frame_stack is None:
        observation: Array = rng.normal(size=(steps + 1, 5)).astype(np.float32)
    else:
        observation = stacked(rng.integers(0, 256, (steps + 1, 3, 4, 4), np.uint8), frame_stack)
    episode = {
        "observation": observation,
        "action": rng.uniform(-1, 1, (steps + 1, 2)).astype(np.float32),
        "reward": rng.random(steps + 1, np.float32),
        "discount": rng.integers(0, 2, steps + 1).astype(np.float32),
        "skill": rng.random((steps + 1, 3), np.float32),
    }
    episode["action"][0] = 0
    return episode


def new_replay(folder: Path | None, capacity: int, frame_stack: int | None, *, whole: bool = False) -> Replay:
    if frame_stack is None:
        return Replay(folder, (5,), np.float32, 2, capacity, RECORDED)
    return Replay(folder, (3 * frame_stack, 4, 4), np.uint8, 2, capacity, RECORDED, 1 if whole else frame_stack)


def play(replay: Replay, episode: Episode) -> None:
    last = len(episode["reward"]) - 1
    for t in range(last + 1):
        numbers = float(episode["reward"][t]), float(episode["discount"][t])
        step = TimeStep(episode["observation"][t], *numbers, is_first=t == 0, is_last=t == last)
        replay.add(step, episode["action"][t] if t else None, {"skill": episode["skill"][t]})


def assert_same(one: Episode, other: Episode) -> None:
    assert one.keys() == other.keys()
    for key, values in one.items():
        assert values.dtype == other[key].dtype, key
        np.testing.assert_array_equal(values, other[key], key)


@pytest.mark.parametrize("frame_stack", [None, 1, 3])
@pytest.mark.parametrize("capacity", [7, 60, 100_000])
def test_batches_are_those_of_a_list_of_episodes(
    plain_replay: ModuleType, tmp_path: Path, place: str, frame_stack: int | None, capacity: int
) -> None:
    """For the same draws, after every episode, at the capacity, and when read again from disk half-way."""
    rng = np.random.default_rng(capacity)
    replay, plain = new_replay(tmp_path, capacity, frame_stack), plain_replay.PlainReplay(capacity)
    draws, plain_draws = np.random.default_rng(1), np.random.default_rng(1)
    for count in range(1, 41):
        episode = made_up(rng, int(rng.integers(1, 25)), frame_stack)
        play(replay, episode)
        plain.add(episode)
        if count == 20:
            replay = new_replay(tmp_path, capacity, frame_stack)
            replay.load(count)
        assert replay.steps == sum(len(one["reward"]) - 1 for one in plain.kept)
        for length in (1, 4, 9):
            possible = any(len(one["reward"]) >= length for one in plain.kept)
            batch = Batch(size=6, length=length)
            assert replay.can_sample(batch) == possible
            if possible:
                assert_same(replay.sample(draws, batch), plain.sample(plain_draws, batch))
    assert draws.bit_generator.state == plain_draws.bit_generator.state


def test_batches_of_stacked_frames_are_those_of_whole_observations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    once, whole = new_replay(tmp_path / "once", 50, 3), new_replay(tmp_path / "whole", 50, 3, whole=True)
    for _ in range(9):
        episode = made_up(rng, 12, 3)
        play(once, episode)
        play(whole, episode)
    for seed in range(20):
        batches = [replay.sample(np.random.default_rng(seed), Batch(size=16, length=4)) for replay in (once, whole)]
        assert_same(*batches)
    names = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert len(names) == 9
    for name in names:
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert 2 * once.bytes_held < whole.bytes_held


def test_files_give_the_same_batches(plain_replay: ModuleType, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    replay = new_replay(tmp_path, 1000, None)
    for steps in (9, 14, 4):
        play(replay, made_up(rng, steps, None))
    files = plain_replay.FileReplay(sorted(tmp_path.iterdir()))
    assert_same(*(one.sample(np.random.default_rng(2), Batch(size=16, length=4)) for one in (replay, files)))


def test_an_agent_that_does_not_look_has_a_replay(plain_replay: ModuleType, place: str) -> None:
    replay = Replay(None, (0,), np.uint8, 2, 100)
    for t in range(5):
        replay.add(TimeStep(np.zeros(0), t, 1.0, t == 0, t == 4), np.full(2, t) if t else None)
    batch = replay.sample(np.random.default_rng(0), Batch(size=3, length=5))
    assert batch["observation"].shape == (3, 5, 0)
    assert batch["reward"].tolist() == [[0, 1, 2, 3, 4]] * 3


def test_rows_of_dropped_episodes_are_used_again() -> None:
    rng = np.random.default_rng(0)
    replay = new_replay(None, 100, None)
    entry_bytes = 4 * (5 + 2 + 1 + 1 + 3)
    for count in range(1, 31):
        play(replay, made_up(rng, 10, None))
        assert replay.bytes_held == min(count, 10) * 11 * entry_bytes


def test_rows_held_are_the_most_there_were_at_once(plain_replay: ModuleType) -> None:
    """However episodes of different lengths follow each other."""
    rng = np.random.default_rng(0)
    replay, plain, most = new_replay(None, 60, None), plain_replay.PlainReplay(60), 0
    for _ in range(200):
        episode = made_up(rng, int(rng.integers(1, 25)), None)
        play(replay, episode)
        plain.add(episode)
        most = max(most, sum(len(one["reward"]) for one in plain.kept))
        assert replay.bytes_held == most * 4 * (5 + 2 + 1 + 1 + 3)


def test_observations_that_are_no_stacks_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    episode = made_up(rng, 6, 3)
    episode["observation"][4, 0] ^= 1  # no frame that was there before
    play(new_replay(tmp_path, 50, 3, whole=True), episode)
    with pytest.raises(UserError, match=r"episode_000000_6\.npz is damaged: its observations are no stacks of frames"):
        new_replay(tmp_path, 50, 3).load(1)
    with pytest.raises(AssertionError, match="does not stack its frames"):
        play(new_replay(None, 50, 3), episode)
    first = made_up(rng, 6, 3)
    first["observation"][0, 0] ^= 1
    first["observation"][1, 0] = first["observation"][0, 3]
    assert not EntryFormat((3, 4, 4), np.dtype(np.uint8), 3).is_stack(first["observation"])


@pytest.mark.parametrize("in_file", [False, True])
def test_an_array_grows_and_keeps_what_it_holds(in_file: bool) -> None:
    array = GrowingArray(EntryFormat((1000,), np.dtype(np.float32)), 5000, in_file=in_file)
    written = 0
    for rows in (1, 5000, 5001, 20_000):
        array.grow(rows)
        assert len(array.rows) >= rows
        array.rows[written:rows] = np.arange(written, rows)[:, None]
        written = rows
        assert (array.rows[:rows] == np.arange(rows)[:, None]).all()
    size = array.rows.nbytes
    array.grow(100)
    assert array.rows.nbytes == size


def test_memory_is_taken_as_it_is_filled() -> None:
    """Of a process of its own: what the system says, not what the storage says."""
    script = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from urlbench.episodes.storage import EntryFormat, EpisodeStorage\n"
        "def taken():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "storage = EpisodeStorage({'observation': EntryFormat((3, 84, 84), np.dtype(np.uint8), 3)}, 20_000)\n"
        "episode = {'observation': np.ones((101, 9, 84, 84), np.uint8)}\n"
        "storage.append(episode)\n"
        "before = taken()\n"
        "for _ in range(30):\n"
        "    storage.append(episode)\n"
        "print((taken() - before) / (30 * 101 * 3 * 84 * 84))\n"
    )
    shown = run_program([sys.executable, "-c", script], check=True).stdout
    assert 0.95 < float(shown) < 1.15


def test_a_large_replay_is_kept_in_a_file_that_is_gone_with_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def is_in_a_file(expected_entries: int) -> bool:
        storage = EpisodeStorage({"observation": EntryFormat((1024,), np.dtype(np.uint8))}, expected_entries)
        storage.append({"observation": np.zeros((3, 1024), np.uint8)})
        assert list(tmp_path.iterdir()) == []
        return str(tmp_path) in Path("/proc/self/maps").read_text()

    sixteenth = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16 // 1024
    assert not is_in_a_file(sixteenth - 1)
    assert is_in_a_file(sixteenth + 1)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", lambda prefix: Path("/dev/full").open("r+b"))  # noqa: SIM115
    array = GrowingArray(EntryFormat((4,), np.dtype(np.uint8)), 1, in_file=True)
    with pytest.raises(UserError, match=r"the disk is full; make room and .*, or set TMPDIR to a folder with room"):
        array.grow(1)


class Painted(ImageEnvironment):
    """Draws noise in place of what its environment does, an episode of five steps."""

    def __init__(self, image: ImageFormat | None) -> None:
        super().__init__(Counting(), image)
        self._rng = np.random.default_rng(0)

    def look(self, size: int) -> Array:
        return self._rng.integers(0, 256, (3, size, size), np.uint8)


class Counting:
    """An environment that is over after five steps."""

    action_dim, action_repeat, observation_shape, observation_dtype = 2, 1, (1,), np.dtype(np.float32)
    steps = 0

    def reset(self) -> TimeStep:
        self.steps = 0
        return TimeStep(np.zeros(1), 0.0, 1.0, True, False)

    def step(self, action: Array) -> TimeStep:
        self.steps += 1
        return TimeStep(np.zeros(1), 1.0, 1.0, False, self.steps == 5)

    def physics_state(self) -> Array:
        return np.full(2, self.steps, np.float64)


@pytest.mark.parametrize(("frame_stack", "kept"), [(1, 1), (3, 1 / 3)])
def test_environments_of_images_say_how_many_they_stack(tmp_path: Path, frame_stack: int, kept: float) -> None:
    environment = Painted(ImageFormat(size=8, frame_stack=frame_stack))
    assert frames_in_stack(environment) == frame_stack
    assert frames_in_stack(Painted(None)) == frames_in_stack(Counting()) == 1
    environment.physics_state = environment.environment.physics_state
    replay, timesteps = PhysicsReplay(tmp_path, environment, 100), [environment.reset()]
    replay.add(timesteps[0])
    while not timesteps[-1].is_last:
        timesteps.append(environment.step(np.zeros(2)))
        replay.add(timesteps[-1], np.zeros(2))
    seen = np.stack([timestep.observation for timestep in timesteps])
    assert replay.bytes_held == kept * seen.nbytes + 6 * 4 * (2 + 1 + 1)
    batch = replay.sample(np.random.default_rng(0), Batch(size=1, length=6))
    np.testing.assert_array_equal(batch["observation"][0], seen)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_batches_reach_the_device(device: str) -> None:
    replay = new_replay(None, 100, 3)
    play(replay, made_up(np.random.default_rng(0), 12, 3))
    batch = replay.sample(np.random.default_rng(0), Batch(size=4, length=5))
    tensors = to_tensors(batch, device)
    assert tensors.keys() == batch.keys()
    for key, tensor in tensors.items():
        assert tensor.device.type == device
        np.testing.assert_array_equal(tensor.cpu().numpy(), batch[key])
    if device == "cpu":
        assert all(tensor.data_ptr() == batch[key].ctypes.data for key, tensor in tensors.items())


def test_the_documents_show_what_was_measured(plain_replay: ModuleType) -> None:
    import replay_batches

    result = json.loads((BENCHMARKS / "results" / "replay_batches.json").read_text(encoding="utf-8"))
    shown = (BENCHMARKS.parent / "docs" / "performance.md").read_text(encoding="utf-8")
    assert replay_batches.table(result) in shown


def test_the_benchmark_compares_and_measures_each(plain_replay: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    import replay_batches

    monkeypatch.setattr(replay_batches, "_SECONDS_A_ROUND", 0.0)
    # It sets the share; this puts it back.
    monkeypatch.setattr(replay_storage, "LARGEST_SHARE_OF_MEMORY", 1 / 16)
    found = replay_batches.measure(replay_batches.Case("small", (3, 4, 4), 3, (5, 4), 3, 9), rounds=3)
    assert {name: len(values) for name, values in found["milliseconds"].items()} == {
        "replay": 3,
        "mapped": 3,
        "list": 3,
        "files": 2,
    }
    assert found["bytes_of_list"] == 30 * (9 * 4 * 4 + 8 * 4)
    assert found["bytes"] == 30 * (3 * 4 * 4 + 8 * 4)
    monkeypatch.setattr(EpisodeStorage, "read", lambda self, episodes, steps, into: None)
    with pytest.raises(AssertionError):
        replay_batches.measure(replay_batches.Case("small", (1,), 1, (5, 4), 3, 9), rounds=1)
