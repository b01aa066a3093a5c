import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Batch, TimeStep
from urlbench.core.seeding import stream
from urlbench.episodes.replay import Replay, aligned

GOLDEN = Path(__file__).parents[1] / "recordings" / "golden" / "dreamer_replay.npz"


def make(folder: Path | None = None, capacity: int = 10_000) -> Replay:
    return Replay(folder, (1,), np.float32, 2, capacity)


def add_episode(replay: Replay, steps: int, label: float = 0.0) -> None:
    """An episode whose observations are label, label + 1, ..., whose rewards are ten times that."""
    replay.add(TimeStep(np.array([label]), 0.0, 1.0, True, False))
    for t in range(1, steps + 1):
        step = TimeStep(np.array([label + t]), 10 * (label + t), 1.0, False, t == steps)
        replay.add(step, np.full(2, label + t, np.float32))


def test_windows_are_those_of_the_published_replay() -> None:
    golden = np.load(GOLDEN)
    length, entries = int(golden["hp_length"]), len(golden["in_reward"])
    replay = Replay(None, (4,), np.float32, 3, 100)
    for t in range(entries):
        reward, discount = golden["in_reward"][t, 0], golden["in_discount"][t, 0]
        step = TimeStep(golden["in_observation"][t], reward, discount, t == 0, t == entries - 1)
        replay.add(step, None if t == 0 else golden["in_action"][t])
    assert replay.steps == int(golden["hp_episode_length"])
    batch = replay.sample(stream(0, "replay"), Batch(size=500, length=length))
    starts = Counter(
        int(np.flatnonzero((golden["in_observation"] == window[0]).all(1))[0]) for window in batch["observation"]
    )
    assert sorted(starts) == golden["out_starts"].tolist()
    assert min(starts.values()) > 500 / len(starts) / 2
    for window, action in zip(batch["observation"], batch["action"], strict=True):
        start = int(np.flatnonzero((golden["in_observation"] == window[0]).all(1))[0])
        np.testing.assert_array_equal(window, golden["in_observation"][start : start + length])
        np.testing.assert_array_equal(action, golden["in_action"][start : start + length])
    last = next(index for index, window in enumerate(batch["discount"]) if window[-1] == 0)
    np.testing.assert_array_equal(batch["is_first"][last], golden["out_last_is_first"])
    np.testing.assert_array_equal(batch["discount"][last] == 0, golden["out_last_is_terminal"][:, 0])
    np.testing.assert_array_equal(batch["reward"][last], golden["out_last_reward"][:, 0])


def test_only_complete_episodes_that_are_long_enough_are_sampled() -> None:
    replay = make()
    replay.add(TimeStep(np.zeros(1), 0.0, 1.0, True, False))
    for _ in range(8):
        replay.add(TimeStep(np.zeros(1), 0.0, 1.0, False, False), np.zeros(2, np.float32))
    assert not replay.can_sample(Batch(size=1, length=3))
    with pytest.raises(ValueError, match="no complete episode has 3 entries"):
        replay.sample(stream(0, "replay"), Batch(size=1, length=3))
    add_episode(replay, 3, label=100)
    add_episode(replay, 8, label=200)
    assert replay.can_sample(Batch(size=1, length=9))
    assert not replay.can_sample(Batch(size=1, length=10))
    assert (replay.sample(stream(0, "replay"), Batch(size=50, length=5))["observation"] >= 200).all()


def test_episodes_are_chosen_uniformly_whatever_their_length() -> None:
    replay = make()
    add_episode(replay, 4, label=0)
    add_episode(replay, 400, label=1000)
    first = replay.sample(stream(0, "replay"), Batch(size=2000, length=5))["observation"][:, 0, 0]
    assert 0.45 < np.mean(first < 1000) < 0.55


def test_reset_entries_have_no_action_and_no_reward() -> None:
    replay = make()
    add_episode(replay, 2, label=7)
    batch = replay.sample(stream(0, "replay"), Batch(size=1, length=3))
    assert batch["observation"][0, :, 0].tolist() == [7, 8, 9]
    assert batch["action"][0].tolist() == [[0, 0], [8, 8], [9, 9]]
    assert batch["reward"][0].tolist() == [0, 80, 90]
    assert {key: value.dtype.name for key, value in batch.items()} == {
        "observation": "float32",
        "action": "float32",
        "reward": "float32",
        "discount": "float32",
        "is_first": "bool",
    }


def test_what_the_agent_records_is_kept_sampled_and_read_again(tmp_path: Path) -> None:
    def make_recording() -> Replay:
        return Replay(tmp_path / "replay", (1,), np.float32, 2, 100, {"skill": (3,)})

    replay = make_recording()
    replay.add(TimeStep(np.zeros(1), 0.0, 1.0, True, False), None, {"skill": np.array([1, 0, 0])})
    for t in range(1, 4):
        step = TimeStep(np.full(1, t), 0.0, 1.0, False, t == 3)
        replay.add(step, np.zeros(2, np.float32), {"skill": np.array([0, t, 0])})
    again = make_recording()
    again.load(1)
    for each in (replay, again):
        skill = each.sample(stream(0, "replay"), Batch(size=1, length=4))["skill"]
        assert skill.dtype == np.float32
        assert skill[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 2, 0], [0, 3, 0]]
    with pytest.raises(AssertionError, match="skill"):
        replay.add(TimeStep(np.zeros(1), 0.0, 1.0, True, False))


def test_the_oldest_episodes_are_dropped_beyond_the_capacity() -> None:
    replay = make(capacity=10)
    for label in (0, 100, 200, 300):
        add_episode(replay, 4, label=label)
    assert (replay.steps, replay.episodes) == (8, 4)
    assert (replay.sample(stream(0, "replay"), Batch(size=100, length=2))["observation"] >= 200).all()


def test_batches_start_at_addresses_that_do_not_vary() -> None:
    replay = make()
    add_episode(replay, 9)
    for length in range(1, 8):
        batch = replay.sample(stream(0, "replay"), Batch(size=3, length=length))
        assert all(batch[key].ctypes.data % 64 == 0 for key in ("observation", "action", "reward", "discount"))
    shifted = np.arange(9, dtype=np.float32)[1:]
    assert aligned(shifted).ctypes.data % 64 == 0
    np.testing.assert_array_equal(aligned(shifted), shifted)


def test_files_are_in_exorl_format(tmp_path: Path) -> None:
    replay = make(tmp_path / "replay")
    add_episode(replay, 3)
    path = tmp_path / "replay" / "episode_000000_3.npz"
    file = np.load(path)
    shapes = {key: (file[key].shape, file[key].dtype.name) for key in file.files}
    assert shapes == {
        "observation": ((4, 1), "float32"),
        "action": ((4, 2), "float32"),
        "reward": ((4, 1), "float32"),
        "discount": ((4, 1), "float32"),
    }


@pytest.mark.parametrize("capacity", [3, 10, 11, 1000])
def test_loading_gives_what_adding_gave(tmp_path: Path, capacity: int) -> None:
    before = make(tmp_path, capacity)
    lengths = (4, 7, 2, 5, 3)
    for index, steps in enumerate(lengths):
        add_episode(before, steps, label=100 * index)
    add_after = make(tmp_path, capacity)
    add_after.load(len(lengths))
    assert (add_after.steps, add_after.episodes) == (before.steps, before.episodes)
    one, other = (replay.sample(stream(3, "replay"), Batch(size=64, length=3)) for replay in (before, add_after))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_episodes_after_the_checkpoint_are_forgotten(tmp_path: Path) -> None:
    before = make(tmp_path)
    for label in (0, 100, 200):
        add_episode(before, 3, label=label)
    (tmp_path / ".episode_000003_3.npz.17.tmp").write_bytes(b"half")
    after = make(tmp_path)
    after.load(1)
    after.discard_newer()
    assert [path.name for path in tmp_path.iterdir()] == ["episode_000000_3.npz"]
    add_episode(after, 3, label=500)
    assert (tmp_path / "episode_000001_3.npz").exists()


def damage_truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def damage_shape(path: Path) -> None:
    np.savez(path, **{key: np.zeros((2, 1), np.float32) for key in ("observation", "action", "reward", "discount")})


def damage_key(path: Path) -> None:
    np.savez(path, observation=np.zeros((4, 1), np.float32))


def damage_bit(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("observation.npy").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 200] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_truncate, damage_shape, damage_key, damage_bit, Path.unlink])
def test_a_damaged_file_is_named(tmp_path: Path, damage: object) -> None:
    replay = make(tmp_path)
    for label in (0, 100, 200):
        add_episode(replay, 3, label=label)
    assert callable(damage)
    damage(tmp_path / "episode_000001_3.npz")
    with pytest.raises(UserError, match=r"episode_000001_3.npz is damaged|episode 1 is missing in"):
        make(tmp_path).load(3)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        add_episode(make(tmp_path / "file" / "replay"), 2)


def test_shapes_are_checked() -> None:
    replay = make()
    with pytest.raises(AssertionError, match="observation has shape"):
        replay.add(TimeStep(np.zeros(3), 0.0, 1.0, True, False))
