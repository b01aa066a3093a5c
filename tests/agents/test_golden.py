"""Our parts reproduce what the published code computes; URLBENCH_GOLDEN names the folder of recordings."""

import shutil
from pathlib import Path
from typing import Any

import golden_topics
import numpy as np
import pytest
import torch

SUBSET = Path(__file__).parents[1] / "recordings" / "golden"
FOLDER = golden_topics.golden_folder(SUBSET)

# Results that nothing of ours computes; each checker says why.
NOT_OURS = {
    "knn_reward": {"choreo_f32", "kth_only", "self_distance_f32"},
    "onehot_st": {"probs"},
    "rssm_step": {"prior_stoch", "seq_prior_stoch"},
    "image_preproc": {"discount"},
    "icm": {"dreamer_loss"},
    "dreamer_icm": {f"grad_bwd_l{layer}_{part}" for layer in (0, 1) for part in "wb"},
    "dreamerv1_rssm": {"prior_stoch"},
    "cem_skill_plan": {"values"},
    "skimo_plan": {"values"},
    "tdmpc_plan": {"values"},
    "rnd": {"bn_running_mean", "bn_running_var"},
}


class Summary:
    """What was compared and what was not; printed at the end of the session."""

    def __init__(self) -> None:
        self.lines: dict[tuple[str, str], str] = {}
        self.not_compared: dict[str, set[str]] = {}

    def add(self, topic: str, precision: str, data: golden_topics.Recording) -> None:
        worst = max(data.largest, key=lambda name: data.largest[name])
        self.lines[topic, precision] = (
            f"{topic} {precision}: {len(data.largest)} results, largest error {data.largest[worst]:.1e} ({worst}), "
            f"tolerance {data.tolerance:.0e}"
        )
        if data.not_compared():
            self.not_compared[topic] = data.not_compared()

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("parity with published numbers")
        total = len(golden_topics.topics(FOLDER)) * len(golden_topics.PRECISIONS)
        terminalreporter.line(f"{len(self.lines)} of {total} checks of {FOLDER} passed")
        for _, line in sorted(self.lines.items()):
            terminalreporter.line(line)
        for topic, names in sorted(self.not_compared.items()):
            terminalreporter.line(f"  nothing of ours computes these of {topic}: {', '.join(sorted(names))}")
        for topic in golden_topics.not_covered(FOLDER):
            terminalreporter.line(f"  not covered: {topic}")


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> Summary:
    summary = Summary()
    request.config.pluginmanager.register(summary)
    return summary


@pytest.mark.parity
@pytest.mark.parametrize("precision", golden_topics.PRECISIONS)
@pytest.mark.parametrize("topic", golden_topics.topics(FOLDER))
def test_our_parts_reproduce_the_published_numbers(topic: str, precision: str, summary: Summary) -> None:
    summary.add(topic, precision, golden_topics.check(FOLDER, topic, precision))


# --- The checker itself: that it notices ------------------------------------------------------------


@pytest.mark.parametrize("topic", golden_topics.topics(SUBSET))
def test_every_result_of_ours_is_compared(topic: str) -> None:
    data = golden_topics.check(SUBSET, topic, "float32")
    assert data.not_compared() == {f"out_{name}" for name in NOT_OURS.get(topic, ())}


@pytest.mark.parametrize("topic", golden_topics.topics(SUBSET))
def test_changed_results_are_noticed(topic: str, tmp_path: Path) -> None:
    with np.load(SUBSET / f"{topic}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    name = sorted(golden_topics.check(SUBSET, topic, "float32").largest)[0]
    changed = arrays[name]
    arrays[name] = ~changed if changed.dtype == bool else changed + (1 if changed.dtype.kind in "iu" else changed.max())
    np.savez(tmp_path / f"{topic}.npz", **arrays)
    with pytest.raises(AssertionError, match=name.removeprefix("out_")):
        golden_topics.check(tmp_path, topic, "float32")


def test_topics_of_other_agents_are_named_not_ignored(tmp_path: Path) -> None:
    shutil.copy(SUBSET / "lambda_return.npz", tmp_path)
    np.savez(tmp_path / "of_nobody.npz", out_mean=np.zeros(3))
    assert golden_topics.topics(tmp_path) == ["lambda_return"]
    assert golden_topics.not_covered(tmp_path) == ["of_nobody"]


def test_the_tolerances_without_an_index_are_the_recorded_ones(tmp_path: Path) -> None:
    for topic in golden_topics.CHECKERS:
        for name in ("tol64", "tol32"):
            assert golden_topics.tolerance(tmp_path, topic, name) == golden_topics.tolerance(SUBSET, topic, name)


def test_a_missing_and_an_empty_folder_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("URLBENCH_GOLDEN", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        golden_topics.golden_folder(SUBSET)
    monkeypatch.setenv("URLBENCH_GOLDEN", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no golden file"):
        golden_topics.golden_folder(SUBSET)


def test_the_precision_is_put_back() -> None:
    golden_topics.check(SUBSET, "image_preproc", "float64")
    assert torch.get_default_dtype() == torch.float32
