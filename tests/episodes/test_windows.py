"""Windows of episodes that end early, and of entries that lie apart: against what is written down step by step."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from urlbench.core.interfaces import Array, Batch, TimeStep
from urlbench.core.seeding import stream
from urlbench.episodes.replay import PhysicsReplay, Replay

LENGTHS = (3, 12, 1, 7, 20)


def make(capacity: int = 10_000, *, ends_early: bool = True) -> Replay:
    return Replay(None, (2,), np.float32, 1, capacity, {"skill": (1,)}, ends_early=ends_early)


def add_episode(replay: Replay, number: int, steps: int, *, terminates: bool = False) -> None:
    """Entries say of which episode and step they are; powers of two make every sum of rewards another one."""
    for t in range(steps + 1):
        over = t == steps
        step = TimeStep(
            np.array([number, t]),
            2.0 ** (t % 20) if t else 0.0,
            0.5 if t == 2 else float(not (over and terminates)),
            t == 0,
            over,
        )
        replay.add(step, np.array([t], np.float32) if t else None, {"skill": np.array([100 * number + t])})


@pytest.fixture
def replay() -> Replay:
    made = make()
    for number, steps in enumerate(LENGTHS):
        add_episode(made, number, steps, terminates=number % 2 == 0)
    return made


def test_every_episode_is_sampled_and_the_short_ones_are_padded(replay: Replay) -> None:
    length = 8
    batch = replay.sample(stream(0, "replay"), Batch(size=2000, length=length))
    assert batch["mask"].dtype == bool
    assert {key: values.shape[:2] for key, values in batch.items()} == dict.fromkeys(
        ("observation", "action", "reward", "discount", "skill", "is_first", "mask"), (2000, length)
    )
    numbers = Counter(batch["observation"][:, 0, 0].tolist())
    assert sorted(numbers) == [0, 1, 2, 3, 4]
    assert all(350 < count < 450 for count in numbers.values())
    for window, (number, start) in enumerate(batch["observation"][:, 0].astype(int)):
        there = min(length, LENGTHS[number] + 1)
        assert there == length or start == 0
        assert batch["mask"][window].tolist() == [True] * there + [False] * (length - there)
        assert batch["observation"][window, :there].tolist() == [[number, start + i] for i in range(there)]
        for key in ("observation", "action", "reward", "discount", "skill"):
            assert not batch[key][window, there:].any(), f"{key} is padded with zeros"
    assert batch["is_first"][:, 0].all()
    assert not batch["is_first"][:, 1:].any()


def test_the_starts_of_long_episodes_are_uniform_over_all_that_fit(replay: Replay) -> None:
    batch = replay.sample(stream(0, "replay"), Batch(size=3000, length=8))
    starts = Counter(start for number, start in batch["observation"][:, 0].tolist() if number == 4)
    assert sorted(starts) == list(range(14))
    assert min(starts.values()) > 600 / 14 / 2


@pytest.mark.parametrize("length", [1, 4, 8])
def test_the_same_is_drawn_where_no_episode_is_short(length: int) -> None:
    replays = make(), make(ends_early=False)
    for replay in replays:
        for number in range(4):
            add_episode(replay, number, 9)
    masked, plain = (replay.sample(stream(3, "replay"), Batch(size=50, length=length)) for replay in replays)
    assert masked.pop("mask").all()
    assert masked.keys() == plain.keys()
    assert all(np.array_equal(masked[key], plain[key]) for key in plain)


@pytest.mark.parametrize(("number", "last_discount"), [(0, 0.0), (3, 1.0)])
def test_windows_tell_a_termination_from_a_time_limit(replay: Replay, number: int, last_discount: float) -> None:
    """Nothing behind either adds to an n-step return; `mask` says from where to go on to estimate the rest of it."""
    batch = replay.sample(stream(0, "replay"), Batch(size=500, length=10))
    window = batch["observation"][:, 0, 0].tolist().index(number)
    reward, discount, mask = (batch[key][window, 1:] for key in ("reward", "discount", "mask"))
    steps = LENGTHS[number]
    assert mask.tolist() == [True] * steps + [False] * (9 - steps)
    assert discount[steps - 1] == last_discount
    assert not reward[steps:].any()
    assert not discount[steps:].any()


def entries_apart(number: int, start: int, batch: Batch) -> list[tuple[int, float, float]]:
    """Step, reward and discount of each entry of a window, one step after another."""
    steps, found = LENGTHS[number], []

    def reward(t: int) -> float:
        return 2.0 ** (t % 20) if 0 < t <= steps else 0.0

    def discount(t: int) -> float:
        return 0.5 if t == 2 else float(not (t == steps and number % 2 == 0))

    for j in range(batch.length):
        at = start + j * batch.stride
        if j and at - batch.stride >= steps:
            break
        since = range(max(at - batch.stride + 1, 0), min(at, steps) + 1)
        found.append((min(at, steps), sum(map(reward, since)), float(np.prod([discount(t) for t in since]))))
    return found


@pytest.mark.parametrize(("stride", "start_every"), [(4, 4), (4, 1), (3, 6), (1, 5), (7, 7)])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_entries_that_lie_apart_have_what_was_between(
    replay: Replay, length: int, stride: int, start_every: int
) -> None:
    asked = Batch(size=400, length=length, stride=stride, start_every=start_every)
    batch = replay.sample(stream(1, "replay"), asked)
    seen = set()
    for window, (number, start) in enumerate(batch["observation"][:, 0].astype(int)):
        expected = entries_apart(number, start, asked)
        there = len(expected)
        assert start % start_every == 0
        assert batch["mask"][window].tolist() == [True] * there + [False] * (length - there)
        assert batch["observation"][window, :there, 1].tolist() == [t for t, _, _ in expected]
        assert batch["skill"][window, :there, 0].tolist() == [100 * number + t for t, _, _ in expected]
        assert batch["action"][window, :there, 0].tolist() == [t for t, _, _ in expected]
        assert batch["reward"][window, :there].tolist() == [reward for _, reward, _ in expected]
        assert batch["discount"][window, :there].tolist() == [discount for _, _, discount in expected]
        seen.add((number, start))
    # The last stride of an episode is in a window, too, however short it is.
    last = {number: max(start for one, start in seen if one == number) for number in range(len(LENGTHS))}
    if length > 1:
        for number, steps in enumerate(LENGTHS):
            assert (
                steps <= last[number] + (length - 1) * stride or steps - last[number] < start_every + asked.least_steps
            )


def test_windows_that_lie_apart_need_whole_strides_but_the_last() -> None:
    replay = make(ends_early=False)
    add_episode(replay, 0, 9)
    assert replay.can_sample(Batch(size=1, length=4, stride=4))  # steps 0, 4, 8 and 9
    assert not replay.can_sample(Batch(size=1, length=5, stride=4))
    batch = replay.sample(stream(0, "replay"), Batch(size=20, length=4, stride=4, start_every=4))
    assert "mask" not in batch
    assert {tuple(window) for window in batch["observation"][:, :, 1].tolist()} == {(0, 4, 8, 9)}
    assert replay.never_sampled(Batch(size=1, length=5, stride=4)) == 1
    assert replay.never_sampled(Batch(size=1, length=4, stride=4)) == 0


@pytest.mark.parametrize(("newest_steps", "numbers"), [(1, {4}), (20, {4}), (21, {3, 4}), (28, {2, 3, 4}), (500, None)])
def test_only_the_newest_episodes_that_hold_so_many_steps(
    replay: Replay, newest_steps: int, numbers: set[int] | None
) -> None:
    asked = Batch(size=300, length=3, newest_steps=newest_steps)
    found = {int(number) for number in replay.sample(stream(0, "replay"), asked)["observation"][:, 0, 0]}
    assert found == (numbers or {0, 1, 2, 3, 4})
    add_episode(replay, 5, 500)
    assert set(replay.sample(stream(0, "replay"), asked)["observation"][:, 0, 0]) == {5}


def test_physics_are_kept_of_episodes_of_any_length(tmp_path: Path) -> None:
    state = np.zeros(3)
    environment = SimpleNamespace(
        observation_shape=(2,), observation_dtype=np.dtype(np.float32), action_dim=1, physics_state=lambda: state.copy()
    )
    replay = PhysicsReplay(tmp_path / "buffer", environment, 100, {"skill": (1,)}, ends_early=True)  # type: ignore[arg-type]
    for number, steps in enumerate(LENGTHS):
        add_episode(replay, number, steps)
    shapes: dict[str, tuple[int, ...]] = {
        path.name: np.load(path)["physics"].shape for path in sorted((tmp_path / "buffer").iterdir())
    }
    assert shapes == {f"episode_{n:06d}_{steps}.npz": (steps + 1, 3) for n, steps in enumerate(LENGTHS)}
    assert replay.sample(stream(0, "replay"), Batch(size=4, length=30))["mask"].shape == (4, 30)


def test_padding_of_stacked_frames_is_zero() -> None:
    replay = Replay(None, (6, 2, 2), np.uint8, 1, 100, frame_stack=2, ends_early=True)
    frames: Array = np.arange(1, 5, dtype=np.uint8)[:, None, None, None] * np.ones((3, 2, 2), np.uint8)
    for t in range(4):
        observation = np.concatenate([frames[max(t - 1, 0)], frames[t]])
        replay.add(TimeStep(observation, 0.0, 1.0, t == 0, t == 3), None if t == 0 else np.ones(1, np.float32))
    batch = replay.sample(stream(0, "replay"), Batch(size=2, length=6))
    assert batch["observation"][0, :, 0, 0, 0].tolist() == [1, 1, 2, 3, 0, 0]
    assert batch["observation"][0, :, 3, 0, 0].tolist() == [1, 2, 3, 4, 0, 0]
