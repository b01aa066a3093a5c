"""Data sets of other arrays and lengths, without physics: suites say what they look like."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Command
from toy_demonstrations import COLLECTION, DATA, PLUGIN, write_demonstrations
from toy_runs import StopAt, assert_same_run, run, toy_jobs

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array
from urlbench.core.jobs import Job
from urlbench.core.registry import load_plugin
from urlbench.core.types import ArrayFormat, EpisodeFormat
from urlbench.data.importing import import_folder
from urlbench.data.verification import verify
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.statistics import data_statistics
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl
from urlbench.training.assembly import build_agent, build_environment, suite_of
from urlbench.training.checkpoint import snapshot_path

torch.set_num_threads(1)
SUITE = "toy-demonstrations"


@pytest.fixture(scope="module", autouse=True)
def registered(registry_of_the_file: None) -> None:
    load_plugin(PLUGIN)


@pytest.fixture
def demonstrations(tmp_path: Path) -> tuple[Dataset, list[dict[str, Array]]]:
    episodes = write_demonstrations(tmp_path / "files")
    return import_folder(tmp_path / "files", tmp_path / "data", "line", COLLECTION, suite=SUITE), episodes


def planned(root: Path, agent: str, name: str = "runs") -> tuple[tuple[Job, RunDirectory], tuple[Job, RunDirectory]]:
    """A pretraining from the data in `root` and a fine-tuning, prepared."""
    settings = {"batch_size": 4, "batch_length": 8, "seed_frames": 5, "update_every_frames": 5}
    overrides = tuple(f"agent.schedule.{key}={value}" for key, value in settings.items())
    choices = {"suite": SUITE, "task": "line_left", "agent": agent, "plugin": PLUGIN, "overrides": overrides}
    return toy_jobs(root / name, data=root / "data", **choices)


def test_they_are_indexed_as_the_suite_says(demonstrations: tuple[Dataset, list[dict[str, Array]]]) -> None:
    dataset, episodes = demonstrations
    assert dataset.index.suite == SUITE
    assert dataset.index.arrays == DATA.arrays
    assert [file.length for file in dataset.index.files] == [len(one["reward"]) - 1 for one in episodes]
    assert [(check.name, check.result) for check in verify(dataset)] == [
        ("files", "ok"),
        ("format", "ok"),
        ("resets", "ok"),
    ]


def without_target(arrays: dict[str, Array]) -> None:
    del arrays["target"]


def of_another_shape(arrays: dict[str, Array]) -> None:
    arrays["target"] = arrays["target"].repeat(2, 1)


def of_another_type(arrays: dict[str, Array]) -> None:
    arrays["observation"] = arrays["observation"].astype(np.float64)


def not_finite(arrays: dict[str, Array]) -> None:
    arrays["target"][2] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_target, "has no target"),
        (of_another_shape, r"target is float32 \[31, 2\], not float32 \[31, 1\]"),
        (of_another_type, r"observation is float64 \[31, 2\], not float32 \[31, 2\]"),
        (not_finite, "target holds NaN or infinity in row 2"),
    ],
)
def test_what_is_no_such_episode_is_not_taken(tmp_path: Path, change: Any, message: str) -> None:
    arrays = write_demonstrations(tmp_path / "files")[1]
    change(arrays)
    np.savez(tmp_path / "files" / "episode_000001_30.npz", **arrays)
    with pytest.raises(UserError, match=rf"episode_000001_30.npz is no episode of line: {message}"):
        import_folder(tmp_path / "files", tmp_path / "data", "line", COLLECTION, suite=SUITE)


@pytest.mark.parametrize(("row", "result"), [(30, "ok"), (29, "failed"), (0, "failed")])
def test_only_the_end_of_an_episode_may_be_a_termination(tmp_path: Path, row: int, result: str) -> None:
    arrays = write_demonstrations(tmp_path / "files")[1]
    arrays["discount"][:] = 1
    arrays["discount"][row] = 0
    np.savez(tmp_path / "files" / "episode_000001_30.npz", **arrays)
    checks = verify(import_folder(tmp_path / "files", tmp_path / "data", "line", COLLECTION, suite=SUITE))
    check = next(check for check in checks if check.name == "resets")
    assert check.result == result
    assert result == "ok" or f"discount of row {row} is 0, and only the last may be 0" in check.detail


def test_formats_that_cannot_be_are_refused() -> None:
    number = ArrayFormat(shape=(1,), dtype="float32")
    plain = dict.fromkeys(("observation", "action", "reward", "discount"), number)
    with pytest.raises(ValueError, match="episodes need arrays of action, reward"):
        EpisodeFormat(arrays={"observation": number, "discount": number})
    with pytest.raises(ValueError, match="positions are counted if, and only if, there is an array of physics"):
        EpisodeFormat(arrays=plain, positions=2)
    with pytest.raises(ValueError, match="positions are counted if, and only if, there is an array of physics"):
        EpisodeFormat(arrays=plain | {"physics": number})


def test_statistics_are_those_of_what_is_pretrained_on(demonstrations: tuple[Dataset, list[dict[str, Array]]]) -> None:
    dataset, episodes = demonstrations
    found = data_statistics(dataset, 45)  # 3, 30, 7 and 12 transitions
    observations = np.concatenate([one["observation"] for one in episodes[:4]]).astype(np.float64)
    actions = np.concatenate([one["action"][1:] for one in episodes[:4]]).astype(np.float64)
    assert found.transitions == 52
    for values, expected in (
        (found.observation_mean, observations.mean(0)),
        (found.observation_std, observations.std(0)),
        (found.action_mean, actions.mean(0)),
        (found.action_std, actions.std(0)),
    ):
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, rtol=1e-6)
    again = data_statistics(dataset, 45)
    assert all(np.array_equal(vars(found)[name], vars(again)[name]) for name in vars(found))


def test_an_agent_learns_from_all_of_them_and_continues_bit_for_bit(
    demonstrations: tuple[Dataset, list[dict[str, Array]]], tmp_path: Path
) -> None:
    whole = planned(tmp_path, "toy-scaled", "whole")
    for job, directory in whole:
        assert run(tmp_path / "whole", job, directory) == "done"
    assert [row["frame"] for row in read_jsonl(whole[1][1].eval_file)] == [20, 40]
    # The statistics of the 78 transitions in the first files that hold 60 are kept for the fine-tuning.
    kept = torch.load(snapshot_path(whole[1][1].path, None), weights_only=True)["agent"]["scale"]
    np.testing.assert_array_equal(kept, data_statistics(demonstrations[0], 60).observation_std)
    for questions in (0, 4, 6, 11, 14, 20, 30):  # before files for the statistics, for the replay, and updates
        cut = planned(tmp_path, "toy-scaled", f"cut_{questions}")
        assert run(tmp_path / f"cut_{questions}", *cut[0], stop=StopAt(questions)) == "interrupted"
        for (job, directory), (_, expected) in zip(cut, whole, strict=True):
            assert run(tmp_path / f"cut_{questions}", job, directory) == "done"
            assert_same_run(directory, expected)


def test_only_agents_that_ask_are_told_statistics(
    demonstrations: tuple[Dataset, list[dict[str, Array]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = Dataset.read
    monkeypatch.setattr(Dataset, "read", lambda self, file: reads.append(file.name) or read(self, file))
    for agent, files in (("toy-plain", 0), ("toy-scaled", 6)):
        (job, _), (tuning, _) = planned(tmp_path, agent)
        built: Any
        built, _ = build_agent(job, build_environment(job.spec), tmp_path, "cpu")
        assert len(reads) == files
        assert (built.context.data is not None) == (agent == "toy-scaled")
        assert built.context.ends_early
    run(tmp_path / "runs", job, RunStore(tmp_path / "runs").run_dir(job))
    tuned: Any
    tuned, _ = build_agent(tuning, build_environment(tuning.spec), tmp_path / "runs", "cpu")
    assert tuned.context.data is None
    assert (tuned.scale != 1).all()


def test_an_agent_that_asks_for_what_there_is_not_is_refused(
    demonstrations: tuple[Dataset, list[dict[str, Array]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job, directory), _ = planned(tmp_path, "toy-scaled")
    spec = DATA.model_copy(update={"arrays": {key: one for key, one in DATA.arrays.items() if key != "target"}})
    suite = suite_of(job.spec)
    poorer = suite.model_copy(
        update={"domains": tuple(domain.model_copy(update={"data": spec}) for domain in suite.domains)}
    )
    monkeypatch.setattr("urlbench.training.assembly.load_suite", lambda name: poorer)
    with pytest.raises(UserError, match=r"agent 'toy-scaled' learns from 'target', float32 \[1\], which the data of"):
        run(tmp_path / "runs", job, directory)


def test_the_command_line_takes_and_checks_them(urlbench: Command, tmp_path: Path) -> None:
    write_demonstrations(tmp_path / "files")
    names = ("--domain", "line", "--collection", COLLECTION)
    done = urlbench("data", "import", "files", *names, "--suite", SUITE, "--plugin", PLUGIN)
    assert done.code == 0, done.err
    assert "118 transitions of line in 7 episodes" in done.out
    checked = urlbench("data", "verify", *names, "--plugin", PLUGIN)
    assert checked.code == 0, checked.err
    assert "keys, shapes and types, all finite, as in line" in checked.out
    relabelled = urlbench("data", "relabel", *names, "--task", "line_right")
    assert relabelled.code == 2
    assert "holds no physics, from which rewards are computed" in relabelled.err
