"""Exports: what other programs read is what the runs measured."""

import csv
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic_runs import make_job, write_grid, write_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typer.testing import CliRunner

from urlbench.cli.app import app
from urlbench.core.durable import append_jsonl
from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.identity import job_id
from urlbench.core.jobs import Job
from urlbench.exports import export as module
from urlbench.exports.export import export
from urlbench.results.cells import collect

pytestmark = pytest.mark.usefixtures("synthetic_suites")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """One pretraining with metrics, and the fine-tuning that started from it."""
    root = tmp_path / "runs"
    before = make_job("apt", "arm_left", 0, pretrain=True)
    directory = write_run(root, before, rows=[])
    append_jsonl(directory.train_file, {"frame": 500, "episode": 0, "return": 1.5, "updates": 0})
    append_jsonl(directory.train_file, {"frame": 1000, "episode": 1, "return": 2.5, "updates": 9, "loss": 0.25})
    spec = make_job("apt", "arm_left", 0).spec.model_copy(update={"parent": before.id})
    after = Job(id=job_id(spec), path=make_job("apt", "arm_left", 0).path, spec=spec)
    directory = write_run(root, after, 40.0)
    append_jsonl(directory.train_file, {"frame": 100, "episode": 0, "return": 7.0, "updates": 3, "loss": 0.125})
    return root


PRETRAIN = make_job("apt", "arm_left", 0, pretrain=True).path
FINETUNE = make_job("apt", "arm_left", 0).path


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars of the event files in a folder: (step, value) by tag."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_the_long_table_holds_every_value(tmp_path, runs):
    (path,) = export(collect(runs, "toy", "smoke"), "csv", tmp_path / "new" / "long.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frames"], row["metric"], row["value"]) for row in rows] == [
        ("100", "return", "20.0"),
        ("100", "score", "0.4"),
        ("200", "return", "40.0"),
        ("200", "score", "0.8"),
    ]
    assert list(rows[0].values())[:12] == [
        *("toy", "1", "apt", FINETUNE.split("/")[1].removeprefix("apt-"), "smoke", "finetune"),
        *("arm", "arm_left", "", "0", "1000", "0"),
    ]
    assert rows[0]["source"] == f"{FINETUNE}/eval.jsonl"
    assert b"\r" not in path.read_bytes()


def test_numbers_of_the_long_table_lose_no_digit(tmp_path):
    value = 0.1 + 0.2
    write_run(tmp_path, make_job("apt", "arm_left", 0), value)
    (path,) = export(collect(tmp_path, "toy", "smoke"), "csv", tmp_path / "long.csv")
    with path.open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]["value"]
    assert float(last) == collect(tmp_path, "toy", "smoke").rows()[-1].value


def test_tensorboard_reads_the_curves_of_every_run(tmp_path, runs):
    out = tmp_path / "events"
    files = export(collect(runs, "toy", "smoke"), "tensorboard", out)
    assert [file.parent.relative_to(out).as_posix() for file in files] == [PRETRAIN, FINETUNE]
    assert scalars(out / PRETRAIN) == {
        "train/episode": [(500, 0.0), (1000, 1.0)],
        "train/return": [(500, 1.5), (1000, 2.5)],
        "train/updates": [(500, 0.0), (1000, 9.0)],
        "train/loss": [(1000, 0.25)],
    }
    found = scalars(out / FINETUNE)
    assert found["evaluation/return"] == [(100, 20.0), (200, 40.0)]
    assert found["evaluation/score"] == [(100, pytest.approx(0.4)), (200, pytest.approx(0.8))]
    assert found["train/loss"] == [(100, 0.125)]


def test_tensorboard_files_say_what_the_run_was_and_when(tmp_path, runs):
    export(collect(runs, "toy", "smoke"), "tensorboard", tmp_path / "events")
    events = EventAccumulator(str(tmp_path / "events" / FINETUNE))
    events.Reload()
    (settings,) = events.Tensors("settings")
    text = settings.tensor_proto.string_val[0].decode()
    assert '"commit": "0123456789abcdef"' in text
    assert '"task": "arm_left"' in text
    # 2024-05-06T07:08:09 UTC.
    assert settings.wall_time == 1714979289.0


def test_the_same_runs_give_the_same_event_files(tmp_path, runs):
    first = export(collect(runs, "toy", "smoke"), "tensorboard", tmp_path / "one")
    again = export(collect(runs, "toy", "smoke"), "tensorboard", tmp_path / "two")
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in again]


def test_wandb_gets_every_run_offline(tmp_path, runs, monkeypatch):
    calls = []

    def init(**options):
        calls.append(("init", options))
        return SimpleNamespace(
            log=lambda values, step: calls.append(("log", values, step)),
            finish=lambda: calls.append(("finish",)),
            dir=str(tmp_path / "out" / f"offline-run-{options['id']}" / "files"),
        )

    fake = SimpleNamespace(init=init, Settings=lambda **options: options, __spec__=SimpleNamespace())
    monkeypatch.setitem(sys.modules, "wandb", fake)
    monkeypatch.delitem(sys.modules, "urlbench.exports.weights_and_biases", raising=False)
    folders = export(collect(runs, "toy", "smoke"), "wandb", tmp_path / "out")
    results = collect(runs, "toy", "smoke")
    (after,) = results.usable_runs()
    (before,) = results.pretrainings.values()
    assert folders == [tmp_path / "out" / f"offline-run-{run.id}" for run in (before, after)]
    starts = [call[1] for call in calls if call[0] == "init"]
    config = starts[1].pop("config")
    assert starts[1] == {
        "project": "toy-1",
        "group": FINETUNE.split("/")[1],
        "job_type": "finetune",
        "name": FINETUNE,
        "id": after.id,
        "dir": str(tmp_path / "out"),
        "mode": "offline",
        "settings": {
            "console": "off",
            "disable_git": True,
            "save_code": False,
            "silent": True,
            "x_disable_meta": True,
            "x_disable_stats": True,
            "x_save_requirements": False,
        },
    }
    assert (config["task"], config["seed"], config["versions"]) == ("arm_left", 0, {"mujoco": "3.3.0"})
    assert config["manifest"]["git"]["commit"] == "0123456789abcdef"
    assert [call for call in calls if call[0] != "init"] == [
        ("log", {"train/episode": 0, "train/return": 1.5, "train/updates": 0}, 500),
        ("log", {"train/episode": 1, "train/return": 2.5, "train/updates": 9, "train/loss": 0.25}, 1000),
        ("finish",),
        (
            "log",
            {
                "train/episode": 0,
                "train/return": 7.0,
                "train/updates": 3,
                "train/loss": 0.125,
                "evaluation/return": 20.0,
                "evaluation/score": 0.4,
            },
            100,
        ),
        ("log", {"evaluation/return": 40.0, "evaluation/score": 0.8}, 200),
        ("finish",),
    ]


@pytest.mark.parametrize("program", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_in_one_sentence(tmp_path, runs, monkeypatch, program):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        export(collect(runs, "toy", "smoke"), program, tmp_path / "out")
    assert str(caught.value) == (
        f"an export to {program} takes the package {program}, which is not installed; run: "
        f"pip install 'urlbench[{program}]'"
    )
    assert not (tmp_path / "out").exists()


def test_incomplete_results_are_exported_only_if_asked_for(tmp_path):
    root = tmp_path / "runs"
    write_grid(root, ["apt"], 2)
    shutil.rmtree(root / make_job("apt", "arm_left", 1).path)
    with pytest.raises(IncompleteError, match="5 of 6 runs can be used"):
        export(collect(root, "toy", "smoke"), "csv", tmp_path / "long.csv")
    (path,) = export(collect(root, "toy", "smoke"), "csv", tmp_path / "long.csv", allow_partial=True)
    assert len(path.read_text().splitlines()) == 1 + 5 * 2 * 2


def test_what_cannot_be_exported_is_refused(tmp_path, runs):
    results = collect(runs, "toy", "smoke")
    with pytest.raises(UserError, match="did you mean 'csv'"):
        export(results, "cvs", tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the export to .*; give --out another"):
        export(results, "csv", tmp_path / "file" / "long.csv")
    train = runs / FINETUNE / "train.jsonl"
    train.write_text('{"frame": 100}\n{"episode": 1}\n')
    with pytest.raises(UserError, match=r"train\.jsonl line 2 says neither frame nor updates"):
        export(results, "tensorboard", tmp_path / "events")


def test_the_command_exports_what_was_chosen(tmp_path, runs):
    words = ["export", "csv", "--suite", "toy", "--preset", "smoke", "--runs", str(runs)]
    done = CliRunner().invoke(app, [*words, "--agents", "apt", "--seeds", "0-0", "--out", str(tmp_path / "long.csv")])
    assert (done.exit_code, done.output) == (0, f"written: {tmp_path / 'long.csv'}\n")
    assert len((tmp_path / "long.csv").read_text().splitlines()) == 5
