"""Collecting data sets: ExORL's format, and the same files however often it is interrupted."""

import random
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_data import collect_random, load
from struck import killed
from toy_runs import StopAt

from urlbench.core.errors import UserError
from urlbench.data.collection import CollectionRequest, collect
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.format import format_of
from urlbench.runs.store import read_jsonl

torch.set_num_threads(1)
WALKER: dict[str, Any] = {"domain": "walker", "agent": "random", "collection": "random", "transitions": 1500}
LEARNING: dict[str, Any] = {
    "domain": "walker",
    "agent": "choreographer",
    "collection": "choreographer",
    "transitions": 2000,
    "preset": "smoke",
    "overrides": ("agent.schedule.update_every_frames=100",),
}


def contents(dataset: Dataset) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in dataset.buffer.iterdir()}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    dataset = collect(CollectionRequest(**WALKER), tmp_path_factory.mktemp("reference"))
    assert dataset is not None
    return dataset


@pytest.mark.parametrize("domain", ["walker", "jaco"])
def test_files_and_index_are_in_exorl_format(reference: Dataset, tmp_path: Path, domain: str) -> None:
    dataset = reference if domain == "walker" else collect_random(tmp_path, domain, 300)
    index, expected = dataset.index, format_of(domain)
    assert expected.length is not None
    # What was asked for is rounded up to whole episodes.
    assert [file.name for file in index.files] == [f"episode_00000{one}_{expected.length}.npz" for one in range(2)]
    assert (index.transitions, index.relabelled) == (2 * expected.length, False)
    assert index.task == {"walker": "walker_stand", "jaco": "jaco_reach_top_left"}[domain]
    assert index.variant == {"walker": None, "jaco": "exorl_as_in_choreographer"}[domain]
    assert (index.origin.kind, index.origin.source) == ("collected", "random")
    assert index.simulator is not None
    assert index.simulator.keys() == {"dm_control", "mujoco"}
    for path in dataset.buffer.iterdir():
        arrays = load(path)
        shapes = {key: array.shape for key, array in arrays.items()}
        assert shapes == {key: (expected.length + 1, *values.shape) for key, values in expected.arrays.items()}
        types = {key: array.dtype.name for key, array in arrays.items()}
        assert types == {key: "float64" if key == "physics" else "float32" for key in arrays}
        assert not arrays["action"][0].any()
        assert not arrays["reward"][0].any()
        assert (arrays["discount"] == 1).all()
        assert np.abs(arrays["action"][1:]).max() > 0.9


def test_the_run_is_kept_beside_the_episodes(reference: Dataset) -> None:
    run = reference.folder / "run"
    assert [row["frame"] for row in read_jsonl(run / "train.jsonl")] == [1000, 2000]
    assert not (run / "replay").exists()
    assert not (run / "checkpoint").exists()


@pytest.mark.parametrize("questions", [0, 999, 1001, 2000])
def test_an_interrupted_collection_gives_the_same_files(reference: Dataset, tmp_path: Path, questions: int) -> None:
    request = CollectionRequest(**WALKER)
    assert collect(request, tmp_path, stop=StopAt(questions)) is None
    assert not (tmp_path / "walker" / "random" / "dataset.json").exists()
    again = collect(request, tmp_path)
    assert again is not None
    assert contents(again) == contents(reference)
    assert again.index == reference.index


def test_the_same_command_does_nothing_when_all_is_there(reference: Dataset) -> None:
    before = (reference.folder / "dataset.json").stat().st_mtime_ns
    assert collect(CollectionRequest(**WALKER), reference.folder.parent.parent) == reference
    assert (reference.folder / "dataset.json").stat().st_mtime_ns == before


def test_an_index_that_is_missing_is_written(reference: Dataset, tmp_path: Path) -> None:
    dataset = collect_random(tmp_path, "walker")
    before = dataset.index
    (dataset.folder / "dataset.json").unlink()
    assert collect_random(tmp_path, "walker").index == before
    (dataset.folder / "dataset.json").unlink()
    (dataset.buffer / "episode_000000_1000.npz").unlink()
    with pytest.raises(UserError, match="holds 1000 transitions and 2000 were collected"):
        collect_random(tmp_path, "walker")


def test_another_seed_gives_other_data(reference: Dataset, tmp_path: Path) -> None:
    other = collect_random(tmp_path, "walker", 1000, seed=1)
    assert contents(other)["episode_000000_1000.npz"] != contents(reference)["episode_000000_1000.npz"]


def test_another_collection_is_not_overwritten(reference: Dataset) -> None:
    before = contents(reference)
    with pytest.raises(UserError, match=r"differs in seed; choose another name with --collection"):
        collect(CollectionRequest(**{**WALKER, "seed": 1}), reference.folder.parent.parent)
    assert contents(reference) == before


def test_episodes_from_elsewhere_are_not_touched(reference: Dataset, tmp_path: Path) -> None:
    buffer = tmp_path / "walker" / "random" / "buffer"
    buffer.mkdir(parents=True)
    (buffer / "episode_000009_1000.npz").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds episodes from elsewhere"):
        collect(CollectionRequest(**WALKER), tmp_path)
    assert (buffer / "episode_000009_1000.npz").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": "cheetah"}, "unknown domain 'cheetah'"),
        ({"agent": "randm"}, "unknown agent 'randm'; did you mean 'random'"),
        ({"transitions": 0}, "asks for nothing"),
        ({"seed": -1}, "environments take seeds"),
        ({"preset": "tiny"}, "unknown preset 'tiny'"),
        ({"collection": "../x"}, "a collection cannot be called"),
        ({"overrides": ("agent.x=1",)}, "unknown key 'x'"),
    ],
)
def test_bad_requests_are_one_sentence(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        collect(CollectionRequest(**{**WALKER, **changes}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_kill_9_while_a_learning_agent_collects(tmp_path: Path) -> None:
    whole = collect(CollectionRequest(**LEARNING), tmp_path / "whole")
    assert whole is not None
    # The agent learned while it collected.
    assert read_jsonl(whole.folder / "run" / "train.jsonl")[-1]["updates"] > 0
    folder = tmp_path / "killed" / "walker" / "choreographer"
    work = partial(collect, CollectionRequest(**LEARNING), tmp_path / "killed", checkpoint_seconds=0.3)
    rng = random.Random(0)
    for _ in range(2):
        assert killed(work, rng.randrange(1, 60), folder)
    assert not killed(work, 0, folder)
    continued = Dataset(folder)
    assert contents(continued) == contents(whole)
    assert continued.index == whole.index
