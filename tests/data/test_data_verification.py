"""What `urlbench data verify` finds: each kind of damage fails, and sound data pass."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from real_data import Arrays, change, collect_random, copy_of, index_again

from urlbench.data.checks import DataCheck, Largest
from urlbench.data.physics_replay import offline_environment, one_step_each
from urlbench.data.verification import spread, verify
from urlbench.episodes.datasets import Dataset, write_index

# They play real episodes again.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return collect_random(tmp_path_factory.mktemp("data"), "walker")


@pytest.fixture(scope="module")
def jaco(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return collect_random(tmp_path_factory.mktemp("data"), "jaco", 500)


@pytest.fixture
def copy(walker: Dataset, tmp_path: Path) -> Dataset:
    return copy_of(walker, tmp_path / "copy")


def outcomes(checks: list[DataCheck]) -> dict[str, str]:
    return {check.name: check.result for check in checks}


def failures(dataset: Dataset, episodes: int = 5) -> dict[str, str]:
    """Name and detail of the checks that failed."""
    return {check.name: check.detail for check in verify(dataset, episodes=episodes) if check.result == "failed"}


# --- Sound data -------------------------------------------------------------------------------------


def test_what_was_just_collected_is_sound(walker: Dataset) -> None:
    seen: list[int] = []
    checks = verify(walker, advance=seen.append)
    assert outcomes(checks) == dict.fromkeys(
        ("files", "format", "resets", "observations", "physics", "replayed observations", "rewards"), "ok"
    )
    details = {check.name: check.detail for check in checks}
    assert details["observations"].startswith("2002 rows compared")
    assert "2000 steps of 2 episodes" in details["physics"]
    assert "allowed 1e-06" in details["physics"]
    assert "2000 rewards of walker_stand" in details["rewards"]
    assert sum(seen) == 2


def test_quadruped_is_replayed_exactly(tmp_path: Path) -> None:
    checks = verify(collect_random(tmp_path, "quadruped", 1000))
    assert set(outcomes(checks).values()) == {"ok"}
    assert "allowed 1e-06" in next(check.detail for check in checks if check.name == "physics")


def test_jaco_is_replayed_closely(jaco: Dataset) -> None:
    checks = verify(jaco)
    assert outcomes(checks) == dict.fromkeys(("files", "format", "resets", "observations", "physics", "rewards"), "ok")
    assert "at least 90% must" in next(check.detail for check in checks if check.name == "physics")


def test_unknown_simulators_and_tasks_are_held_to_less(copy: Dataset) -> None:
    write_index(copy.folder, copy.index.model_copy(update={"simulator": None, "task": None}))
    checks = {check.name: check for check in verify(Dataset(copy.folder))}
    assert "at least 90% must" in checks["physics"].detail
    assert checks["physics"].result == "ok"
    assert checks["rewards"].result == "skipped"


# --- Damage -----------------------------------------------------------------------------------------


def test_a_truncated_file_is_found(copy: Dataset) -> None:
    path = copy.buffer / "episode_000001_1000.npz"
    os.truncate(path, path.stat().st_size - 500)
    found = failures(copy)
    assert found.keys() == {"files", "format"}
    assert "episode_000001_1000.npz has 273030 bytes, the index says 273530" in found["files"]
    assert "episode_000001_1000.npz is damaged" in found["format"]


def test_a_changed_byte_is_found(copy: Dataset) -> None:
    path = copy.buffer / "episode_000001_1000.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "SHA-256 is not that of the index" in failures(copy)["files"]


def test_missing_and_additional_files_are_found(copy: Dataset) -> None:
    (copy.buffer / "episode_000000_1000.npz").rename(copy.buffer / "episode_000005_1000.npz")
    found = failures(copy)
    assert "episode_000005_1000.npz is not in the index" in found["files"]
    assert "episode_000000_1000.npz cannot be read: No such file" in found["files"]


def set_to(key: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Arrays], None]:
    def edit(arrays: Arrays) -> None:
        arrays[key] = make(arrays[key])

    return edit


def put(key: str, row: int, value: float) -> Callable[[Arrays], None]:
    def edit(arrays: Arrays) -> None:
        arrays[key][row] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "check", "message"),
    [
        (lambda arrays: arrays.pop("physics"), "format", "has no physics"),
        (set_to("reward", lambda x: x[:, 0]), "format", r"reward is float32 [1001], not float32 [1001, 1]"),
        (set_to("action", lambda x: x[:, :5]), "format", r"action is float32 [1001, 5], not float32 [1001, 6]"),
        (set_to("observation", lambda x: x[:-1]), "format", r"observation is float32 [1000, 24], not"),
        (set_to("observation", lambda x: x.astype(np.float64)), "format", "observation is float64"),
        (set_to("physics", lambda x: x.astype(np.float32)), "format", "its arrays are not those of the index"),
        (put("observation", 17, np.nan), "format", "observation holds NaN or infinity in row 17"),
        (put("physics", 1000, np.inf), "format", "physics holds NaN or infinity in row 1000"),
        (put("action", 0, 0.5), "resets", "action of row 0, the reset, is not 0"),
        (put("reward", 0, 0.5), "resets", "reward of row 0, the reset, is not 0"),
        (put("discount", 1000, 0.0), "resets", "discount of row 1000 is 0, and no task ends early"),
        (put("observation", 400, 0.0), "observations", "in episode_000001_1000.npz row 400"),
        (put("reward", 30, 0.123), "rewards", "in episode_000001_1000.npz row 30"),
        # The orientation of a body is no number of the physics: only the replay sees it.
        (lambda arrays: put("observation", 400, 0.5)({"observation": arrays["observation"][:, :1]}), "replayed", "400"),
        (put("action", 60, 0.0), "physics", "in episode_000001_1000.npz row 60"),
    ],
)
def test_changed_arrays_are_found(copy: Dataset, edit: Callable[[Arrays], object], check: str, message: str) -> None:
    found = failures(change(copy, 1, edit))
    assert [name for name in found if name.startswith(check)], found
    assert message in next(detail for name, detail in found.items() if name.startswith(check))


def test_a_wrong_length_is_found(copy: Dataset) -> None:
    def shorten(arrays: Arrays) -> None:
        for key in arrays:
            arrays[key] = arrays[key][:501]

    change(copy, 1, shorten)
    (copy.buffer / "episode_000001_1000.npz").rename(copy.buffer / "episode_000001_500.npz")
    found = failures(index_again(copy))
    assert (
        "episode_000001_500.npz has 500 transitions by its name, and episodes of this domain have 1000"
        in (found["format"])
    )


def test_the_data_of_another_domain_are_found(jaco: Dataset, tmp_path: Path) -> None:
    copy = copy_of(jaco, tmp_path / "copy")
    write_index(copy.folder, copy.index.model_copy(update={"domain": "quadruped"}))
    assert "observation is float32 [251, 42]" in failures(Dataset(copy.folder))["format"]


def permute(keys: tuple[str, ...], simulator: bool) -> Callable[[Dataset], Dataset]:
    """Shuffles rows of the second episode, all of `keys` alike; forgets the simulator unless it is to be known."""

    def damage(dataset: Dataset) -> Dataset:
        def shuffle(arrays: Arrays) -> None:
            order = np.random.default_rng(0).permutation(len(arrays["physics"]) - 1) + 1
            for key in keys:
                arrays[key][1:] = arrays[key][order]

        dataset = change(dataset, 1, shuffle)
        kept = dataset.index.simulator if simulator else None
        return write_index(dataset.folder, dataset.index.model_copy(update={"simulator": kept, "task": None}))

    return damage


@pytest.mark.parametrize("simulator", [True, False])
@pytest.mark.parametrize("domain", ["walker", "jaco"])
def test_shuffled_physics_are_found(
    walker: Dataset, jaco: Dataset, tmp_path: Path, domain: str, simulator: bool
) -> None:
    dataset = {"walker": walker, "jaco": jaco}[domain]
    # Alone, the physics part from the observations; with them, from the actions.
    alone = permute(("physics",), simulator)(copy_of(dataset, tmp_path / "alone"))
    assert failures(alone).keys() == {"observations"}
    together = permute(("physics", "observation"), simulator)(copy_of(dataset, tmp_path / "together"))
    assert "physics" in failures(together)


def test_the_physics_of_another_episode_are_found(copy: Dataset) -> None:
    other = np.load(copy.buffer / "episode_000000_1000.npz")["physics"]
    found = failures(change(copy, 1, set_to("physics", lambda x: other)))
    assert found.keys() == {"observations"}


# --- Parts ------------------------------------------------------------------------------------------


def test_a_sample_is_spread_over_all_files(walker: Dataset) -> None:
    files = [walker.index.files[0].model_copy(update={"size": number}) for number in range(100)]
    assert [file.size for file in spread(files, 5)] == [0, 25, 50, 74, 99]
    assert len(spread(files[:3], 5)) == 3


def test_the_largest_difference_knows_its_place_and_nan_is_largest() -> None:
    largest = Largest()
    largest.update(np.array([0.1, 0.3, 0.2]), "a", first_row=1)
    largest.update(np.array([0.2]), "b")
    assert (largest.value, largest.where, largest.checked) == (0.3, " in a row 2", 4)
    assert largest.check("x", 0.3, "things").result == "ok"
    largest.update(np.array([0.0, np.nan]), "c")
    assert largest.where == " in c row 1"
    assert largest.check("x", 1e9, "things").result == "failed"


def test_one_step_each_is_what_the_environment_does(walker: Dataset) -> None:
    arrays = np.load(walker.buffer / "episode_000000_1000.npz")
    environment = offline_environment("walker", seed=7)
    states, observations = one_step_each(environment, arrays["physics"][:21], arrays["action"][:21])
    np.testing.assert_allclose(states, arrays["physics"][1:21], atol=1e-9)
    np.testing.assert_allclose(observations, arrays["observation"][1:21], atol=1e-6)


def test_the_recording_of_the_index_is_plain_json(walker: Dataset) -> None:
    index = json.loads((walker.folder / "dataset.json").read_text())
    assert index["arrays"]["physics"] == {"shape": [18], "dtype": "float64"}
    assert index["files"][0].keys() == {"name", "length", "size", "sha256"}
