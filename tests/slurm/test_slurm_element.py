"""The runs of an element on a node; test_slurm_requeueing.py has what submitit calls there."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import finish, run_program, signalled, started
from slurm_fakes import DIGEST, profile, put, toy_plan
from toy_runs import PLUGIN, Hold, count_starts

from urlbench.core.jobs import Job
from urlbench.local import executor
from urlbench.local.executor import ExecutorOptions
from urlbench.runs.manifest import SNAPSHOT_FILE
from urlbench.runs.store import RunDirectory
from urlbench.slurm import element
from urlbench.slurm.code_snapshot import take_snapshot
from urlbench.slurm.element import digest_of, main
from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.profile import Resources
from urlbench.slurm.records import ArrayRecord, Records, record_of

NAME = "urlbench-0123456789"
STUB = (sys.executable, str(Path(__file__).parents[1] / "support" / "stub_worker.py"))
PRETRAININGS = toy_plan(phase="pretrain").jobs


class Node:
    """Runs elements in this process, with the stub in place of the worker."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log = folder / "my runs", folder / "stub.jsonl"
        self.options: list[ExecutorOptions] = []
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("STUB_LOG", str(self.log))
        monkeypatch.setattr(executor, "_POLL_SECONDS", 0.01)
        monkeypatch.setattr(element, "code_snapshot", lambda: {"sha256": DIGEST})
        monkeypatch.setattr(element, "ExecutorOptions", self._stubbed)

    def _stubbed(self, **options: Any) -> ExecutorOptions:
        self.options.append(ExecutorOptions(**options, worker=STUB))
        return self.options[-1]

    def submit(self, *jobs: Job, **changes: Any) -> ArrayRecord:
        """The record of an array of one element with these runs."""
        for job in jobs:
            RunDirectory(self.root / job.path).prepare(job)
        plugins = {plugin: digest_of(Path(plugin)) for job in jobs for plugin in job.plugins}
        record = record_of(
            ArrayPlan(NAME, jobs[0].spec.phase, (jobs,), None), None, profile(**changes), DIGEST, plugins
        )
        Records(self.root).write(record)
        return record

    def start(self, behaviour: dict[str, str] | None = None) -> int:
        """The exit code of the element."""
        self._monkeypatch.setenv("STUB_BEHAVIOUR", json.dumps(behaviour or {}))
        return main([str(self.root), NAME, "0"])

    def states(self, *jobs: Job) -> list[str]:
        return [status.state for job in jobs if (status := RunDirectory(self.root / job.path).read_status())]

    def message(self, job: Job) -> str:
        status = RunDirectory(self.root / job.path).read_status()
        assert status is not None
        return status.message

    def rows(self, event: str) -> list[dict[str, Any]]:
        rows = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [row for row in rows if row["event"] == event]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    before = signal.getsignal(signal.SIGUSR2)
    yield Node(tmp_path, monkeypatch)
    signal.signal(signal.SIGUSR2, before)


# --- The runs of an element -------------------------------------------------------------------------


def test_one_run(node: Node) -> None:
    node.submit(PRETRAININGS[0], threads=3, env_workers=2)
    assert node.start() == 0
    assert node.states(PRETRAININGS[0]) == ["done"]
    (row,) = node.rows("start")
    assert row["OMP_NUM_THREADS"] == "3"
    assert row["arguments"][:7] == [
        *(str(node.root / PRETRAININGS[0].path), "--runs", str(node.root)),
        *("--threads", "3", "--device", "cpu"),
    ]


def test_a_failing_run_harms_no_other_of_its_pack(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.submit(*PRETRAININGS)
    assert node.start({"seed_0": "fail"}) == 0, "the fine-tunings of the other one may start"
    assert node.states(*PRETRAININGS) == ["failed", "done"]
    assert "failed: toy pretrain ball seed 0: the reason in status.json" in capsys.readouterr().out


def test_an_element_without_any_success_has_failed(node: Node) -> None:
    node.submit(*PRETRAININGS)
    assert node.start({"seed": "fail"}) == 1
    assert node.start() == 1, "failed runs are not run again by themselves"
    assert len(node.rows("start")) == 2


def test_a_run_that_another_process_runs_is_left_to_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(element, "_ORPHAN_SECONDS", 0.0)
    node.submit(*PRETRAININGS)
    with put(node.root, PRETRAININGS[0], "running", pid=1, host="n2").lock():
        assert node.start() == 0
    assert [row["run"] for row in node.rows("start")] == [str(node.root / PRETRAININGS[1].path)]


def test_an_element_that_is_started_again_runs_only_what_is_left(node: Node) -> None:
    node.submit(*PRETRAININGS)
    put(node.root, PRETRAININGS[0], "done")
    assert node.start() == 0
    assert [row["run"] for row in node.rows("start")] == [str(node.root / PRETRAININGS[1].path)]


def test_a_pack_runs_side_by_side_on_one_gpu_and_a_request_to_stop_saves_all_of_it(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    node.submit(*PRETRAININGS, device="auto", pretrain=Resources(slot_minutes=60, gpus=1))
    with signalled(signal.SIGTERM, lambda: len(node.rows("start")) == 2):
        assert node.start({"seed": "wait"}) == 75
    assert [row["CUDA_VISIBLE_DEVICES"] for row in node.rows("start")] == ["3", "3"]
    assert node.states(*PRETRAININGS) == ["interrupted", "interrupted"]
    assert node.start() == 0


def test_the_gpus_of_an_element_are_shared_out_evenly(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    four = toy_plan(phase="pretrain", seeds=(0, 1, 2, 3)).jobs
    node.submit(*four, device="auto", runs_per_gpu=2, pretrain=Resources(slot_minutes=60, gpus=2))
    assert node.start() == 0
    assert sorted(row["CUDA_VISIBLE_DEVICES"] for row in node.rows("start")) == ["3", "3", "5", "5"]


@pytest.mark.parametrize(
    ("extra", "seen"), [({}, ""), ({"gres": "gpu:a100:1"}, "3"), ({"gres": "nvme:1"}, "")], ids=str
)
def test_only_gpus_that_were_asked_for_are_used(
    node: Node, extra: dict[str, str], seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    node.submit(PRETRAININGS[0], device="auto", pretrain=Resources(slot_minutes=60, extra=extra))
    assert node.start() == 0
    assert [row["CUDA_VISIBLE_DEVICES"] for row in node.rows("start")] == [seen]


def test_saving_may_not_take_the_time_that_queueing_again_needs(node: Node) -> None:
    node.submit(PRETRAININGS[0], signal_seconds=1)
    with signalled(signal.SIGTERM, lambda: len(node.rows("start")) == 1):
        assert node.start({"seed": "deaf"}) == 75
    assert [options.grace_seconds for options in node.options] == [0.8]


def test_slurm_s_announcement_does_not_harm_the_runs(node: Node) -> None:
    node.submit(PRETRAININGS[0])
    assert node.start({"seed": "announce"}) == 0


# --- What is refused --------------------------------------------------------------------------------


def test_a_plugin_that_was_changed_is_refused(node: Node, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "my plugin.py"
    shutil.copy(PLUGIN, plugin)
    jobs = tuple(job.model_copy(update={"plugins": (str(plugin),)}) for job in PRETRAININGS)
    node.submit(*jobs)
    put(node.root, jobs[1], "done")
    plugin.write_text(plugin.read_text() + "# more\n")
    assert node.start() == 1
    assert node.states(*jobs) == ["failed", "done"]
    assert node.message(jobs[0]) == (
        f"the plugin {plugin} was changed after the job was submitted; restore it, or keep the change, then continue "
        "with --rerun failed"
    )
    assert node.message(jobs[0]) in capsys.readouterr().out
    plugin.unlink()
    assert node.start() == 1
    shutil.copy(PLUGIN, plugin)
    put(node.root, jobs[0], "queued")
    assert node.start() == 0


@pytest.mark.parametrize("running", [None, {"sha256": "f" * 64}])
def test_other_code_is_refused(node: Node, monkeypatch: pytest.MonkeyPatch, running: dict[str, str] | None) -> None:
    node.submit(PRETRAININGS[0])
    monkeypatch.setattr(element, "code_snapshot", lambda: running)
    assert node.start() == 1
    assert node.message(PRETRAININGS[0]).startswith(
        "the job was submitted with the code 0123456789abcdef and would run"
    )
    assert node.states(PRETRAININGS[0]) == ["failed"]
    assert node.rows("start") == []


def test_a_damaged_record_is_named(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    node.submit(PRETRAININGS[0])
    file = node.root / ".slurm" / NAME / "array.json"
    file.write_text(file.read_text()[:100])
    assert node.start() == 1
    assert f"{file} cannot be read; cancel its jobs with scancel --name={NAME}" in capsys.readouterr().out


def test_start_after_start_at_the_same_place_comes_to_an_end(node: Node) -> None:
    node.submit(PRETRAININGS[0])
    directory = RunDirectory(node.root / PRETRAININGS[0].path)
    for _ in range(9):
        directory.begin_attempt(40)
    directory.begin_attempt(50)
    for _ in range(9):
        directory.begin_attempt(60)
    assert node.start({"seed": "refuse"}) == 1
    assert len(node.rows("start")) == 1, "nine times are not enough"
    directory.begin_attempt(60)
    assert node.start() == 1
    assert len(node.rows("start")) == 1
    assert node.message(PRETRAININGS[0]) == (
        "it was started 10 times in a row without getting any further; give it a longer slot, or more signal_seconds, "
        "in the cluster profile, then continue with --rerun failed"
    )
    # What continuing with --rerun failed does.
    put(node.root, PRETRAININGS[0], "queued")
    node.submit(PRETRAININGS[0])
    assert node.start() == 0


def test_many_starts_do_not_undo_a_run_that_is_done(node: Node) -> None:
    node.submit(PRETRAININGS[0])
    directory = put(node.root, PRETRAININGS[0], "done")
    for _ in range(12):
        directory.begin_attempt(0)
    assert node.start() == 0


# --- Scratch ----------------------------------------------------------------------------------------


def test_temporary_files_go_to_the_scratch_folder_and_leave_it(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", "/tmp")
    monkeypatch.setenv("NODE_DISK", str(tmp_path))
    scratch = tmp_path / "of the node"
    scratch.mkdir()
    node.submit(PRETRAININGS[0], scratch="$NODE_DISK/of the node")
    assert node.start() == 0
    (row,) = node.rows("start")
    assert Path(row["TMPDIR"]).parent == scratch
    assert row["TMPDIR_exists"]
    assert list(scratch.iterdir()) == []


def test_a_missing_scratch_folder_is_named_and_the_run_stays_queued(
    node: Node, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    node.submit(PRETRAININGS[0], scratch=f"{tmp_path}/$NOWHERE")
    assert node.start() == 1
    assert capsys.readouterr().out == (
        f"the scratch folder {tmp_path}/$NOWHERE cannot be used on this node: No such file or directory; "
        "correct it in the cluster profile, then run the same command again\n"
    )
    assert node.states(PRETRAININGS[0]) == ["queued"]


# --- A real worker ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_toy_run_is_saved_and_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "my runs"
    (job,) = toy_plan(
        phase="pretrain",
        seeds=(0,),
    ).jobs
    directory = RunDirectory(root / job.path)
    directory.prepare(job)
    code, digest = take_snapshot(Records(root).folder / "code")
    plugins = {str(PLUGIN): digest_of(PLUGIN)}
    record = record_of(ArrayPlan(NAME, "pretrain", ((job,),), None), None, profile(), digest, plugins)
    Records(root).write(record)
    command = [sys.executable, "-m", "urlbench.slurm.element", str(root), NAME, "0"]
    environment = {**os.environ, "PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}

    hold = Hold(tmp_path / "hold", 30)
    with started(command, env={**environment, **hold.environment}, cwd=tmp_path) as process:
        hold.wait(process)
        process.send_signal(signal.SIGUSR2)
        process.send_signal(signal.SIGTERM)
        output = finish(process)
    assert process.returncode == 75, output
    status = directory.read_status()
    assert status is not None
    assert status.state == "interrupted"

    assert run_program(command, env=environment, cwd=tmp_path).returncode == 0
    assert directory.done_file.exists()
    assert count_starts(directory) == 2
    manifest = json.loads(directory.manifest_file.read_text())
    description = json.loads((code / SNAPSHOT_FILE).read_text())
    assert (manifest["code_snapshot"], manifest["git"]) == (digest, description["git"])
