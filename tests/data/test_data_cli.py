"""`urlbench data` on the command line, and the whole way from collecting data to a report."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import struck
from archive_server import pack, serving
from processes import run_program
from real_data import change, collect_random, copy_of

from urlbench.cli import app as cli
from urlbench.episodes.datasets import Dataset
from urlbench.runs.store import read_jsonl

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return collect_random(tmp_path_factory.mktemp("data"), "walker", 1000)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `urlbench ...` in this process: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, captured.out, captured.err

    return run


@pytest.fixture
def data(command: Run) -> Run:
    """Runs `urlbench data ...` likewise."""
    return partial(command, "data")


def urlbench(*arguments: str, cwd: Path) -> str:
    """The output of a command that must succeed, in a process of its own."""
    done = run_program([sys.executable, "-m", "urlbench", *arguments], cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["collect", "verify", "import", "relabel", "download"])
def test_every_command_explains_itself(data: Run, name: str) -> None:
    code, out, _ = data(name, "--help")
    assert code == 0
    assert "--data" in out
    assert name in data("--help")[1]


def test_verify_says_what_it_checked(data: Run, walker: Dataset, tmp_path: Path) -> None:
    code, out, _ = data("verify", str(walker.folder))
    assert code == 0
    assert "ok       physics: 1000 steps of 1 episodes replayed" in out
    root = walker.folder.parent.parent
    by_name = ("verify", "--domain", "walker", "--collection", "random", "--data", str(root), "--json")
    code, out, _ = data(*by_name)
    assert {check["result"] for check in json.loads(out)} == {"ok"}


def test_verify_ends_with_1_if_anything_is_wrong(data: Run, walker: Dataset, tmp_path: Path) -> None:
    copy = copy_of(walker, tmp_path / "copy")
    change(copy, 0, lambda arrays: arrays["observation"].fill(0.0))
    code, out, _ = data("verify", str(copy.folder))
    assert code == 1
    assert "failed   observations" in out
    assert "skipped  physics" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify"], "name a data set by its folder, or with both --domain and --collection"),
        (["verify", "here", "--domain", "walker"], "name a data set by its folder"),
        (["verify", "here"], "here holds no data set: it has no dataset.json"),
        (["verify", "--domain", "walker", "--collection", "rnd"], "urlbench data download --domain walker"),
        (["import", "nothing", "--domain", "walker", "--collection", "rnd"], "nothing holds no episodes"),
        (["relabel", "--domain", "walker", "--collection", "rnd", "--task", "walker_flip"], "there is no data set"),
        (["download", "--domain", "walker", "--collection", "rmd"], "did you mean 'rnd'"),
        (["collect", "--domain", "walker", "--agent", "random", "--transitions", "many"], "cannot read 'many'"),
        (["collect", "--domain", "wolf", "--agent", "random", "--transitions", "1k"], "unknown domain 'wolf'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(data: Run, arguments: list[str], message: str) -> None:
    code, _, error = data(*arguments)
    assert code == 2
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_import_relabel_and_download_end_with_what_is_there(data: Run, walker: Dataset, tmp_path: Path) -> None:
    code, out, _ = data("import", str(walker.folder), "--domain", "walker", "--collection", "icm")
    assert (code, "1000 transitions of walker in 1 episodes, imported from" in out) == (0, True)
    code, out, _ = data("relabel", "--domain", "walker", "--collection", "icm", "--task", "walker_run")
    assert (code, "data/walker/icm-walker_run: 1000 transitions" in out) == (0, True)
    files = {f"buffer/{path.name}": path.read_bytes() for path in walker.buffer.iterdir()}
    with serving("/walker/rnd.zip", pack(files)) as server:
        code, out, _ = data("download", "--domain", "walker", "--collection", "rnd", "--base-url", server.url)
    assert (code, "data/walker/rnd: 1000 transitions" in out) == (0, True)
    for name in ("icm", "icm-walker_run", "rnd"):
        assert Dataset(tmp_path / "data" / "walker" / name).index.transitions == 1000


@pytest.mark.slow
def test_a_signal_stops_a_collection_and_the_same_command_continues(tmp_path: Path) -> None:
    command = ["data", "collect", "--domain", "walker", "--agent", "random", "--transitions", "12k"]
    folder = tmp_path / "data" / "walker" / "random"
    # When the third episode is about to be written.
    when = ("SIGINT", "3", str(folder / "buffer"), "urlbench")
    interrupted = run_program([sys.executable, struck.__file__, *when, *command], cwd=tmp_path)
    assert interrupted.returncode == 3, interrupted.stdout + interrupted.stderr
    assert "the same command continues" in interrupted.stdout
    done = len(list(folder.glob("buffer/episode_*.npz")))
    assert 2 <= done < 12
    assert "12000 transitions of walker in 12 episodes" in urlbench(*command, cwd=tmp_path)
    starts = [row for row in read_jsonl(folder / "run" / "attempts.jsonl") if "started" in row]
    assert starts[-1]["from_progress"] >= 1000 * done


@pytest.mark.slow
def test_from_collecting_to_a_report(command: Run, tmp_path: Path) -> None:
    collect = ("data", "collect", "--domain", "walker", "--agent", "random", "--transitions", "3k")
    assert "3000 transitions of walker in 3 episodes" in urlbench(*collect, cwd=tmp_path)
    assert command("data", "verify", "data/walker/random")[0] == 0
    out = urlbench(
        *("run", "--suite", "urlb-offline-random", "--agent", "choreographer", "--preset", "smoke"),
        *("--domains", "walker", "--tasks", "walker_walk", "--seeds", "1", "--data", "data"),
        cwd=tmp_path,
    )
    assert "snapshots: 40 updates" in out
    assert "2 of 2 jobs are done" in out
    pretraining = next((tmp_path / "runs").glob("*/choreographer-*/smoke/pretrain/walker/seed_0"))
    row = read_jsonl(pretraining / "train.jsonl")[-1]
    assert row["updates"] == 40
    assert not [name for name in row if name.startswith(("lbs", "exploration"))]
    assert [path.name for path in pretraining.glob("snapshots/*.pt")] == ["snapshot_40.pt"]
    assert command("validate")[:2] == (0, "complete: no gaps, no damage, no mixtures\n")
    report = ("report", "--suite", "urlb-offline-random", "--preset", "smoke", "--reps", "200", "--format", "md")
    assert command(*report)[0] == 0
    text = "\n".join(path.read_text() for path in (tmp_path / "runs" / "reports").rglob("*.md"))
    assert "walker_walk" in text
    assert "40 updates" in text
