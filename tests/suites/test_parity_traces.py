"""Our environments reproduce the recorded ones; URLBENCH_TRACES names the folder of recordings."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import parity_traces
import pytest
from graphics import needs_renderer

FOLDER = parity_traces.trace_folder(Path(__file__).parents[1] / "recordings" / "traces")


class Summary:
    """What was compared and what was not; printed at the end of the session."""

    def __init__(self) -> None:
        self.largest: dict[str, dict[str, float]] = {}
        self.checked = 0

    def add(self, name: str, largest: dict[str, float]) -> None:
        kind = name.partition("/")[0].partition(":")[0]
        kept = self.largest.setdefault(kind, {})
        for what, difference in largest.items():
            kept[what] = max(kept.get(what, 0.0), difference)
        self.checked += 1

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        skipped, absent = parity_traces.not_covered(FOLDER), parity_traces.listed_but_absent(FOLDER)
        terminalreporter.section("parity with recorded environments")
        terminalreporter.line(f"{self.checked} of {len(parity_traces.checks(FOLDER))} checks of {FOLDER} passed")
        for kind, largest in sorted(self.largest.items()):
            shown = ", ".join(f"{what} {difference:.1e}" for what, difference in largest.items() if difference)
            terminalreporter.line(f"{kind}: largest differences {shown or 'none, all equal bit for bit'}")
        terminalreporter.line(f"{len(skipped)} files or sections not covered: nothing reads them yet")
        for name in skipped:
            terminalreporter.line(f"  not covered: {name}")
        for name in absent:
            terminalreporter.line(f"  listed in manifest.json but absent: {name}")


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> Summary:
    summary = Summary()
    request.config.pluginmanager.register(summary)
    return summary


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with parity_traces.checking_process() as pool:
        yield pool


def _marked(name: str) -> Any:
    return pytest.param(name, marks=[needs_renderer] if parity_traces.needs_renderer(name) else [])


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("name", [_marked(name) for name in parity_traces.checks(FOLDER)])
def test_our_environments_reproduce_the_recording(name: str, pool: ProcessPoolExecutor, summary: Summary) -> None:
    summary.add(name, pool.submit(parity_traces.check, FOLDER, name).result())


# --- The checker itself: that it notices ------------------------------------------------------------

SUBSET = Path(__file__).parents[1] / "recordings" / "traces"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with one probe and one trajectory."""
    for name in ("probes/walker_flip.npz", "states/walker_flip__uniform_seed1.npz"):
        (tmp_path / name).parent.mkdir()
        shutil.copy(SUBSET / name, tmp_path / name)
    return tmp_path


def _shift(path: Path, key: str, row: int, by: float) -> None:
    with np.load(path) as file:
        trace = {name: file[name] for name in file.files}
    trace[key][row] += np.asarray(by, trace[key].dtype)
    np.savez(path, **trace)


@pytest.mark.parametrize(
    ("name", "key", "by", "complaint"),
    [
        ("states/walker_flip__uniform_seed1.npz", "observation", 1e-3, "observation after 7 steps"),
        ("states/walker_flip__uniform_seed1.npz", "reward", 1e-3, "reward after 7 steps"),
        ("states/walker_flip__uniform_seed1.npz", "ctrl", 1e-6, "ctrl after 8 steps"),
        ("states/walker_flip__uniform_seed1.npz", "step_type", 1, "step_type after 7 steps"),
        ("states/walker_flip__uniform_seed1.npz", "qvel", 1e-6, "one-step qvel one step from row 6"),
        ("probes/walker_flip.npz", "reward_static", 1e-8, "reward static probe 7"),
        ("probes/walker_flip.npz", "reward_after_step", 1e-6, "reward after step probe 7"),
    ],
)
def test_a_changed_recording_is_noticed(
    copy: Path, pool: ProcessPoolExecutor, name: str, key: str, by: float, complaint: str
) -> None:
    _shift(copy / name, key, 7, by)
    with pytest.raises(AssertionError, match=complaint):
        pool.submit(parity_traces.check, copy, name).result()


@needs_renderer
@pytest.mark.parametrize(
    ("key", "by", "complaint"),
    [
        ("frames", 64, r"picture after 1 steps"),
        ("qpos", 1e-3, r"qpos after 1 steps"),
        ("reward", 1e-3, r"reward after 1 steps"),
    ],
)
def test_a_changed_recording_of_pictures_is_noticed(
    tmp_path: Path, pool: ProcessPoolExecutor, key: str, by: float, complaint: str
) -> None:
    name = "pixels/walker_walk_84x84_stack3_seed1.npz"
    (tmp_path / "pixels").mkdir()
    shutil.copy(SUBSET / name, tmp_path / name)
    _shift(tmp_path / name, key, 1, by)
    with pytest.raises(AssertionError, match=complaint):
        pool.submit(parity_traces.check, tmp_path, name).result()


@pytest.mark.parametrize(
    ("name", "key", "by", "complaint"),
    [
        ("goals.npz", "set2", 1e-12, "set2"),
        ("controller_set1.npz", "goal", 1e-12, "goal"),
        ("controller_set1.npz", "qpos0", 1e-5, "qpos goal 1 at reset"),
        ("controller_set1.npz", "tcp", 1e-5, "tcp goal 1 after 0 steps"),
        ("controller_set1.npz", "mw_state", 1e-5, "mw_state goal 1 after 0 steps"),
        ("controller_set1.npz", "action", 1e-4, "controller goal 1 after 0 steps"),
        ("controller_set1.npz", "reward", 1, "reward goal 1 after 1 steps"),
        ("controller_set1.npz", "success", 1, "success goal 1 after 1 steps"),
        ("controller_set1.npz", "is_last", 1, "is_last goal 1 after 1 steps"),
        ("controller_set1.npz", "found", 1, "found goal 1"),
        ("controller_set1.npz", "env_return", 1, "return goal 1"),
    ],
)
def test_a_changed_recording_of_reach_is_noticed(
    tmp_path: Path, pool: ProcessPoolExecutor, name: str, key: str, by: float, complaint: str
) -> None:
    (tmp_path / "metaworld").mkdir()
    shutil.copy(SUBSET / "metaworld" / name, tmp_path / "metaworld" / name)
    _shift(tmp_path / "metaworld" / name, key, 1, by)
    with pytest.raises(AssertionError, match=complaint):
        pool.submit(parity_traces.check, tmp_path, f"metaworld/{name}").result()


@needs_renderer
@pytest.mark.parametrize(
    ("key", "by", "complaint"),
    [
        ("frames", 64, "picture goal 0 after 0 steps"),
        ("topdown", 64, "picture goal 0 after 0 steps, unflipped"),
        ("qpos", 1e-5, "qpos goal 0 after 0 steps"),
        ("goal", 1e-12, "goal"),
    ],
)
def test_a_changed_recording_of_pictures_of_reach_is_noticed(
    tmp_path: Path, pool: ProcessPoolExecutor, key: str, by: float, complaint: str
) -> None:
    name = "metaworld/frames_set1.npz"
    (tmp_path / "metaworld").mkdir()
    shutil.copy(SUBSET / name, tmp_path / name)
    _shift(tmp_path / name, key, 0, by)
    with pytest.raises(AssertionError, match=complaint):
        pool.submit(parity_traces.check, tmp_path, name).result()


def test_a_file_that_is_not_the_listed_one_is_noticed(copy: Path) -> None:
    shutil.copy(SUBSET / "manifest.json", copy)
    assert parity_traces.check(copy, "manifest.json") == {}
    assert "facts.json" in parity_traces.listed_but_absent(copy)
    _shift(copy / "probes/walker_flip.npz", "qpos", 0, 1.0)
    with pytest.raises(AssertionError, match="is not the file"):
        parity_traces.check(copy, "manifest.json")


def test_files_of_other_suites_are_named_not_ignored(copy: Path) -> None:
    (copy / "kitchen").mkdir()
    (copy / "kitchen" / "goals.npz").touch()
    shutil.copy(SUBSET / "facts.json", copy)
    uncovered = parity_traces.not_covered(copy)
    assert "kitchen/goals.npz" in uncovered
    assert "facts.json:choreographer" in uncovered
    assert not any("metaworld" in name for name in uncovered)
    assert not any("walker_flip" in name for name in uncovered)


def test_a_missing_and_an_empty_folder_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URLBENCH_TRACES", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        parity_traces.trace_folder(SUBSET)
    monkeypatch.setenv("URLBENCH_TRACES", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no trace"):
        parity_traces.trace_folder(SUBSET)
