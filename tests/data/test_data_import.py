"""Taking folders of episodes as data sets, and giving them the rewards of other tasks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from real_data import collect_random, load

from urlbench.core.errors import UserError
from urlbench.data.importing import import_folder
from urlbench.data.physics_replay import offline_environment
from urlbench.data.relabelling import relabel
from urlbench.data.verification import verify
from urlbench.episodes.datasets import Dataset

# They play real episodes again.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return collect_random(tmp_path_factory.mktemp("data"), "walker")


@pytest.fixture
def archive(walker: Dataset, tmp_path: Path) -> Path:
    """What an unpacked archive of ExORL looks like."""
    folder = tmp_path / "unpacked" / "rnd"
    shutil.copytree(walker.buffer, folder / "buffer")
    (folder / "video").mkdir()
    (folder / "video" / "0.mp4").write_bytes(b"film")
    return folder


# --- Import -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["", "buffer"])
def test_a_folder_becomes_a_data_set_without_copies(walker: Dataset, archive: Path, tmp_path: Path, inner: str) -> None:
    seen: list[int] = []
    dataset = import_folder(archive / inner, tmp_path / "data", "walker", "rnd", advance=seen.append)
    assert dataset.folder == tmp_path / "data" / "walker" / "rnd"
    assert dataset.index.files == walker.index.files
    assert (dataset.index.origin.kind, dataset.index.task, dataset.index.simulator) == ("imported", None, None)
    name = walker.index.files[0].name
    assert (dataset.buffer / name).samefile(archive / "buffer" / name)
    assert len(seen) == 2
    assert {check.result for check in verify(dataset)} == {"ok", "skipped"}


def test_files_are_copied_where_links_do_not_reach(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", no_link)
    dataset = import_folder(archive, tmp_path / "data", "walker", "rnd")
    name = dataset.index.files[0].name
    assert not (dataset.buffer / name).samefile(archive / "buffer" / name)
    assert (dataset.buffer / name).read_bytes() == (archive / "buffer" / name).read_bytes()


def test_a_folder_in_its_place_is_indexed_there(archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "walker" / "rnd"
    shutil.copytree(archive, folder)
    inodes = {path.name: path.stat().st_ino for path in (folder / "buffer").iterdir()}
    dataset = import_folder(folder, tmp_path / "data", "walker", "rnd", task="walker_stand")
    assert dataset.folder == folder
    assert {path.name: path.stat().st_ino for path in (folder / "buffer").iterdir()} == inodes
    assert {check.result for check in verify(dataset)} == {"ok"}


def test_an_interrupted_import_is_done_again(archive: Path, tmp_path: Path) -> None:
    buffer = tmp_path / "data" / "walker" / "rnd" / "buffer"
    buffer.mkdir(parents=True)
    (buffer / "episode_000000_1000.npz").write_bytes(b"half a copy")
    dataset = import_folder(archive, tmp_path / "data", "walker", "rnd")
    assert {check.result for check in verify(dataset)} == {"ok", "skipped"}


def test_jaco_is_taken_as_exorls_variant(tmp_path: Path) -> None:
    jaco = collect_random(tmp_path / "first", "jaco", 250)
    assert import_folder(jaco.folder, tmp_path / "second", "jaco", "rnd").index.variant == "exorl"


@pytest.mark.parametrize(
    ("domain", "task", "message"),
    [
        ("quadruped", None, "is no episode of quadruped: observation is float32"),
        ("jaco", None, "is no episode of jaco: has 1000 transitions by its name"),
        ("cheetah", None, "unknown domain 'cheetah' of data sets"),
        ("walker", "quadruped_walk", "unknown task 'quadruped_walk' of domain 'walker'"),
    ],
)
def test_other_data_are_refused(archive: Path, tmp_path: Path, domain: str, task: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        import_folder(archive, tmp_path / "data", domain, "rnd", task=task)
    assert not list((tmp_path / "data").rglob("dataset.json"))


def test_damaged_and_mixed_files_are_refused(archive: Path, tmp_path: Path) -> None:
    path = archive / "buffer" / "episode_000001_1000.npz"
    arrays = load(path)
    np.savez(path, **arrays, skill=np.zeros((1001, 4), np.float32))
    with pytest.raises(UserError, match=r"its arrays are not those of episode_000000_1000.npz; nothing was indexed"):
        import_folder(archive, tmp_path / "data", "walker", "rnd")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"episode_000001_1000.npz is damaged"):
        import_folder(archive, tmp_path / "data", "walker", "rnd")


def test_more_arrays_than_needed_are_kept(archive: Path, tmp_path: Path) -> None:
    for path in (archive / "buffer").iterdir():
        np.savez(path, **load(path), skill=np.zeros((1001, 4), np.float32))
    dataset = import_folder(archive, tmp_path / "data", "walker", "diayn")
    assert dataset.index.arrays["skill"].shape == (4,)
    assert {check.result for check in verify(dataset)} == {"ok", "skipped"}


def test_what_is_there_is_not_overwritten(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no episodes: there is no file like episode_000000_1000.npz"):
        import_folder(tmp_path / "nothing", tmp_path / "data", "walker", "rnd")
    import_folder(archive, tmp_path / "data", "walker", "rnd")
    with pytest.raises(UserError, match="is a data set already"):
        import_folder(archive, tmp_path / "data", "walker", "rnd")
    buffer = tmp_path / "data" / "walker" / "icm" / "buffer"
    buffer.mkdir(parents=True)
    (buffer / "episode_000007_1000.npz").write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"holds other episodes, such as episode_000007_1000.npz"):
        import_folder(archive, tmp_path / "data", "walker", "icm")


# --- Relabelling ------------------------------------------------------------------------------------


def played_rewards(task: str, episode: dict[str, np.ndarray], seed: int) -> np.ndarray:
    """The rewards that the environment of `task` gives for the episode's actions, from its start."""
    environment = offline_environment(task.partition("_")[0], task, seed)
    environment.set_physics_state(episode["physics"][0])
    return np.array([environment.step(action).reward for action in episode["action"][1:]], np.float32)


@pytest.mark.parametrize("task", ["walker_flip", "walker_run"])
def test_rewards_are_those_the_environment_gives(walker: Dataset, tmp_path: Path, task: str) -> None:
    root = tmp_path / "data"
    shutil.copytree(walker.folder, root / "walker" / "random")
    relabelled = relabel(root, "walker", "random", task)
    assert relabelled.folder == root / "walker" / f"random-{task}"
    assert (relabelled.index.task, relabelled.index.relabelled) == (task, True)
    for file in relabelled.index.files:
        before, after = load(walker.buffer / file.name), load(relabelled.buffer / file.name)
        assert after.keys() == before.keys()
        assert all(np.array_equal(before[key], after[key]) for key in before.keys() - {"reward"})
        assert (after["reward"].shape, after["reward"].dtype) == ((1001, 1), np.float32)
        np.testing.assert_allclose(after["reward"][1:201, 0], played_rewards(task, after, 5)[:200], atol=1e-6)
        # The reset's row has a reward, too: that of the state the episode starts in.
        assert after["reward"][0, 0] > 0
        assert after["reward"].std() > 0.01
    assert {check.result for check in verify(relabelled)} == {"ok"}
    assert Dataset(root / "walker" / "random").index == walker.index
    assert {check.result for check in verify(Dataset(root / "walker" / "random"))} == {"ok"}


def test_relabelling_with_the_recorded_task_changes_nothing_but_the_resets(tmp_path: Path) -> None:
    original = collect_random(tmp_path, "jaco", 250)
    relabelled = relabel(tmp_path, "jaco", "random", "jaco_reach_top_left")
    before, after = (load(one.buffer / "episode_000000_250.npz")["reward"] for one in (original, relabelled))
    np.testing.assert_array_equal(before[1:], after[1:])
    assert before.max() > 0


def test_an_interrupted_relabelling_goes_on(walker: Dataset, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(files: int) -> None:
        raise Stop

    shutil.copytree(walker.folder, tmp_path / "walker" / "random")
    with pytest.raises(Stop):
        relabel(tmp_path, "walker", "random", "walker_walk", advance=stop)
    folder = tmp_path / "walker" / "random-walker_walk"
    first = (folder / "buffer" / "episode_000000_1000.npz").stat().st_mtime_ns
    assert not (folder / "dataset.json").exists()
    dataset = relabel(tmp_path, "walker", "random", "walker_walk")
    assert (folder / "buffer" / "episode_000000_1000.npz").stat().st_mtime_ns == first
    assert {check.result for check in verify(dataset)} == {"ok"}
    with pytest.raises(UserError, match="is a data set already"):
        relabel(tmp_path, "walker", "random", "walker_walk")


def test_relabelling_names_what_is_wrong(walker: Dataset, tmp_path: Path) -> None:
    root = walker.folder.parent.parent
    with pytest.raises(UserError, match="unknown task 'walker_fly' of domain 'walker'; did you mean 'walker_flip'"):
        relabel(root, "walker", "random", "walker_fly")
    with pytest.raises(UserError, match="there is no data set of walker collected by 'rnd'"):
        relabel(root, "walker", "rnd", "walker_flip")
