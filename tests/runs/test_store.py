import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes import started

from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json, job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.types import Protocol
from urlbench.runs.store import RunDirectory, RunStore, Status, append_jsonl, read_jsonl, write_atomic

PROTOCOL = Protocol(
    preset="smoke",
    description="tiny",
    pretrain_frames=100,
    snapshots=(50, 100),
    finetune_frames=80,
    eval_every_frames=20,
    eval_episodes=3,
)


def make_job(**changes: object) -> Job:
    values: dict[str, object] = {
        "suite": "toy-states@1",
        "observation": "states",
        "action_repeat": 1,
        "agent": "toy",
        "agent_config": {"learning_rate": 0.01},
        "protocol": PROTOCOL,
        "phase": "finetune",
        "domain": "ball",
        "task": "ball_left",
        "seed": 0,
        "versions": {"numpy": "1.0"},
    }
    spec = JobSpec.model_validate(values | changes)
    return Job(id=job_id(spec), path="a/seed_0", spec=spec, parent_path="b/seed_0", plugins=("plugin.py",))


@pytest.fixture
def prepared(tmp_path: Path) -> RunDirectory:
    directory = RunStore(tmp_path).run_dir(make_job())
    directory.prepare(make_job())
    return directory


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="file cannot be written: the disk is full; make room"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_line_on_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(UserError, match="the disk is full; make room"):
        append_jsonl(Path("/dev/full"), {"frame": 1})


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")
    directory = RunStore(tmp_path).run_dir(make_job())
    with pytest.raises(UserError, match="Not a directory; make it writable and continue with --rerun failed"):
        directory.prepare(make_job())


def test_lines_are_json_and_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    append_jsonl(path, {"frame": 1, "name": "é"})
    append_jsonl(path, {"frame": 2})
    assert read_jsonl(path) == [{"frame": 1, "name": "é"}, {"frame": 2}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_jsonl(path, {"frame": float("nan")})
    assert len(read_jsonl(path)) == 2


@pytest.mark.parametrize(("tail", "line"), [('{"frame": 3', 2), ("nonsense\n", 2)])
def test_a_damaged_line_is_named(tmp_path: Path, tail: str, line: int) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"frame": 1}\n' + tail)
    with pytest.raises(UserError, match=rf"x.jsonl line {line} is damaged"):
        read_jsonl(path)


def test_a_job_comes_back_from_its_directory(tmp_path: Path, prepared: RunDirectory) -> None:
    assert prepared.read_job(tmp_path) == make_job()
    assert [directory.path for directory in RunStore(tmp_path).directories()] == [prepared.path]
    status = prepared.read_status()
    assert status is not None
    assert (status.state, status.phase, status.budget) == ("queued", "finetune", 80)


def test_preparing_twice_changes_nothing(prepared: RunDirectory) -> None:
    prepared.write_status(Status(state="failed", phase="finetune"))
    before = {path.name: path.read_bytes() for path in prepared.path.iterdir()}
    prepared.prepare(make_job())
    assert {path.name: path.read_bytes() for path in prepared.path.iterdir()} == before


def test_a_directory_of_another_run_is_refused_with_the_difference(prepared: RunDirectory) -> None:
    other = make_job(agent_config={"learning_rate": 0.1}, versions={"numpy": "2.0"})
    with pytest.raises(UserError, match=r"differs in agent_config.learning_rate, versions.numpy; "):
        prepared.prepare(other)


def test_an_edited_or_damaged_spec_is_named(tmp_path: Path, prepared: RunDirectory) -> None:
    stored = json.loads(prepared.spec_file.read_text())
    stored["spec"]["seed"] = 7
    prepared.spec_file.write_text(canonical_json(stored))
    with pytest.raises(UserError, match=r"spec.json was edited"):
        prepared.read_job(tmp_path)
    del stored["spec"]["task"]
    prepared.spec_file.write_text(canonical_json(stored))
    with pytest.raises(UserError, match=r"spec.json is not of this version of urlbench: task"):
        prepared.read_job(tmp_path)
    prepared.spec_file.write_text("{}")
    with pytest.raises(UserError, match=r"spec.json cannot be read \(id or spec is missing\)"):
        prepared.read_job(tmp_path)
    with pytest.raises(UserError, match=r"nowhere/spec.json cannot be read"):
        RunDirectory(tmp_path / "nowhere").read_job(tmp_path)


@pytest.mark.parametrize(("number", "version"), [(None, "urlbench 0.1"), (3, "another version of urlbench")])
def test_a_directory_of_another_version_is_refused_and_left_alone(
    tmp_path: Path, prepared: RunDirectory, number: int | None, version: str
) -> None:
    stored = json.loads(prepared.spec_file.read_text())
    assert stored.pop("format") == 2
    prepared.spec_file.write_text(canonical_json(stored | ({"format": number} if number else {})))
    before = prepared.spec_file.read_bytes()
    message = rf"{prepared.path} was made by {version}, .* freeze its results with that version, "
    for read in (lambda: prepared.read_job(tmp_path), lambda: prepared.prepare(make_job())):
        with pytest.raises(UserError, match=message + r".*--runs, or here with --rerun stale"):
            read()
    assert prepared.spec_file.read_bytes() == before


def test_the_runs_folder_must_contain_the_run(tmp_path: Path, prepared: RunDirectory) -> None:
    with pytest.raises(UserError, match="does not lie below the runs folder"):
        prepared.read_job(tmp_path / "other")


def test_one_process_at_a_time(prepared: RunDirectory) -> None:
    assert not prepared.is_locked()
    with prepared.lock():
        assert prepared.is_locked()
        with pytest.raises(UserError, match=rf"is being run by process {os.getpid()} on .*; wait for it or stop it"):
            prepared.lock().__enter__()
    assert not prepared.is_locked()
    with prepared.lock():
        assert prepared.is_locked()


def test_a_killed_process_leaves_no_lock_and_a_stale_status(prepared: RunDirectory) -> None:
    code = (
        "import pathlib, sys; from urlbench.runs.store import RunDirectory, Status\n"
        "directory = RunDirectory(pathlib.Path(sys.argv[1]))\n"
        "with directory.lock():\n"
        "    directory.write_status(Status(state='running', phase='finetune', progress=7))\n"
        "    print('locked', flush=True); sys.stdin.read()"
    )
    with started([sys.executable, "-c", code, str(prepared.path)], stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        running = prepared.read_status()
        with pytest.raises(UserError, match=f"is being run by process {process.pid} on"):
            prepared.lock().__enter__()
        process.kill()
    stale = prepared.read_status()
    assert running is not None
    assert stale is not None
    assert (running.state, stale.state, stale.progress) == ("running", "stale", 7)


def test_a_damaged_status_is_not_the_end(prepared: RunDirectory) -> None:
    prepared.status_file.write_text("{")
    status = prepared.read_status()
    assert status is not None
    assert (status.state, status.message) == ("stale", "status.json is missing or damaged")
    assert RunDirectory(prepared.path / "nowhere").read_status() is None


def test_attempts_are_noted_and_silent_ends_too(prepared: RunDirectory) -> None:
    assert prepared.begin_attempt(0) == 1
    prepared.end_attempt(1, "stopped by SIGTERM")
    assert prepared.begin_attempt(20) == 2
    with prepared.attempts_file.open("a") as file:
        file.write('{"attempt": 2, "ended": 17')
    assert prepared.begin_attempt(40, ["fell back"]) == 3
    rows = read_jsonl(prepared.attempts_file)
    assert [(row["attempt"], row.get("from_progress"), row.get("reason")) for row in rows] == [
        (1, 0, None),
        (1, None, "stopped by SIGTERM"),
        (2, 20, None),
        (2, None, "ended without a word: it was killed, or the machine went down"),
        (3, 40, None),
    ]
    assert rows[-1]["notes"] == ["fell back"]


def test_logs_are_cut_back(prepared: RunDirectory) -> None:
    append_jsonl(prepared.train_file, {"frame": 1})
    lengths = prepared.lengths()
    before = prepared.train_file.read_bytes()
    append_jsonl(prepared.train_file, {"frame": 2})
    append_jsonl(prepared.eval_file, {"frame": 2})
    prepared.cut_back(lengths)
    assert prepared.train_file.read_bytes() == before
    assert prepared.eval_file.read_bytes() == b""
    prepared.train_file.write_bytes(before[:-1])
    with pytest.raises(UserError, match=rf"train.jsonl is truncated: it has {len(before) - 1} bytes"):
        prepared.cut_back(lengths)


def test_done_vouches_for_the_evaluations(prepared: RunDirectory) -> None:
    append_jsonl(prepared.eval_file, {"frame": 80, "returns": [1.0]})
    assert not prepared.is_done()
    prepared.finish(80)
    assert prepared.is_done()
    status = prepared.read_status()
    assert status is not None
    assert (status.state, status.progress) == ("done", 80)
    prepared.eval_file.write_text(prepared.eval_file.read_text().replace("1.0", "2.0"))
    with pytest.raises(UserError, match=r"eval.jsonl was changed after the run ended"):
        prepared.is_done()
    prepared.done_file.write_text("")
    with pytest.raises(UserError, match="DONE cannot be read"):
        prepared.is_done()
