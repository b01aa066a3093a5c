"""The pool of workers, with a stub in place of the worker; the real one runs in test_cli_run.py."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import signalled
from toy_runs import PLUGIN

from urlbench.core.errors import UserError
from urlbench.core.jobs import Plan
from urlbench.local import executor as executor_module
from urlbench.local.executor import (
    Executor,
    ExecutorOptions,
    JobView,
    default_options,
    exit_code,
    set_aside,
)
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory

STUB = (sys.executable, str(Path(__file__).parents[1] / "support" / "stub_worker.py"))


class Recorder:
    """A listener that remembers how many jobs were running at the most."""

    def __init__(self) -> None:
        self._running, self.most = 0, 0

    def changed(self, view: JobView) -> None:
        self._running += 1 if view.state == "running" else -1
        self.most = max(self.most, self._running)

    def tick(self) -> None:
        pass


class Stub:
    """Runs plans with the stub worker in one folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.log = folder / "my runs", folder / "stub.jsonl"
        self._monkeypatch = monkeypatch
        monkeypatch.setenv("STUB_LOG", str(self.log))
        monkeypatch.setattr(executor_module, "_POLL_SECONDS", 0.01)

    def run(
        self,
        plan: Plan,
        behaviour: dict[str, str] | None = None,
        *,
        retry_failed: bool = False,
        listener: Recorder | None = None,
        **options: Any,
    ) -> Executor:
        self._monkeypatch.setenv("STUB_BEHAVIOUR", json.dumps(behaviour or {}))
        chosen = ExecutorOptions(**{"workers": 2, "device": "cpu", "worker": STUB, **options})
        executor = Executor(plan, self.root, chosen, listener, retry_failed)
        executor.prepare()
        executor.run()
        return executor

    def rows(self, *events: str) -> list[dict[str, Any]]:
        """What workers have noted of these events, in its order."""
        rows = [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []
        return [row for row in rows if row["event"] in events]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(tmp_path, monkeypatch)


def toy_plan(**changes: Any) -> Plan:
    choices = {"domains": ("ball",), "seeds": (0, 1), "preset": "smoke", "plugins": (str(PLUGIN),), **changes}
    return make_plan(PlanRequest(**{"suite": "toy-states", "agents": ("toy",), **choices}))


def states(executor: Executor) -> dict[str, str]:
    return {view.job.label.removeprefix("toy "): view.state for view in executor.views}


def test_a_child_starts_when_its_own_parent_is_done(stub: Stub) -> None:
    executor = stub.run(toy_plan())
    assert set(states(executor).values()) == {"done"}
    assert exit_code(executor.views) == 0
    events = [(row["event"], row["run"]) for row in stub.rows("start", "end")]
    children = [view for view in executor.views if view.job.parent_path]
    assert len(children) == 4
    for view in children:
        parent = str(stub.root / str(view.job.parent_path))
        assert events.index(("end", parent)) < events.index(("start", str(view.directory.path)))


def test_never_more_workers_than_asked_for(stub: Stub) -> None:
    recorder = Recorder()
    stub.run(toy_plan(phase="pretrain", seeds=(0, 1, 2)), {"pretrain": "meet"}, listener=recorder, workers=2)
    assert recorder.most == 2
    assert [row["event"] for row in stub.rows("start", "end")][:3] == ["start", "start", "end"]


def test_done_jobs_are_not_started_again(stub: Stub) -> None:
    stub.run(toy_plan())
    before = len(stub.rows("start"))
    executor = stub.run(toy_plan(seeds=(0, 1, 2)))
    assert before == 6
    assert len(stub.rows("start")) == before + 3
    assert set(states(executor).values()) == {"done"}


def test_a_failure_blocks_its_children_and_harms_nobody_else(stub: Stub) -> None:
    executor = stub.run(toy_plan(), {"pretrain/ball/seed_1": "fail"})
    assert states(executor) == {
        "pretrain ball seed 0": "done",
        "pretrain ball seed 1": "failed",
        "finetune ball_left from 100 seed 0": "done",
        "finetune ball_right from 100 seed 0": "done",
        "finetune ball_left from 100 seed 1": "blocked",
        "finetune ball_right from 100 seed 1": "blocked",
    }
    reasons = {view.state: view.reason for view in executor.views}
    assert reasons["failed"] == "the reason in status.json"
    assert "its pretraining has failed: toy-states@1/" in reasons["blocked"]
    assert exit_code(executor.views) == 1


def test_failed_jobs_run_again_only_on_request(stub: Stub) -> None:
    stub.run(toy_plan(phase="pretrain"), {"seed_1": "fail"})
    again = stub.run(toy_plan(phase="pretrain"))
    assert [view.state for view in again.views] == ["done", "failed"]
    assert len(stub.rows("start")) == 2
    retried = stub.run(toy_plan(phase="pretrain"), retry_failed=True)
    assert [view.state for view in retried.views] == ["done", "done"]
    assert len(stub.rows("start")) == 3


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [("refuse", "the last line of the log"), ("killed", "ended by SIGKILL, perhaps for lack of memory")],
)
def test_a_worker_that_leaves_no_reason(stub: Stub, behaviour: str, reason: str) -> None:
    executor = stub.run(toy_plan(phase="pretrain", seeds=(0,)), {"seed_0": behaviour})
    assert executor.views[0].state == "failed"
    assert reason in executor.views[0].reason


def test_fail_fast_stops_everything_else(stub: Stub) -> None:
    plan = toy_plan(phase="pretrain", seeds=(0, 1, 2))
    executor = stub.run(plan, {"seed_0": "wait", "seed_1": "fail"}, fail_fast=True)
    assert [view.state for view in executor.views] == ["interrupted", "failed", "blocked"]
    assert executor.views[2].reason == "not started because of --fail-fast"
    assert not executor.interrupted
    assert exit_code(executor.views) == 1


def test_a_request_to_stop_reaches_the_workers_and_the_rest_goes_on_later(stub: Stub) -> None:
    with signalled(signal.SIGTERM, lambda: len(stub.rows("start")) == 2):
        executor = stub.run(toy_plan(phase="pretrain"), {"seed": "wait"})
    assert executor.interrupted
    assert [view.state for view in executor.views] == ["interrupted", "interrupted"]
    assert exit_code(executor.views) == 3
    assert [view.state for view in stub.run(toy_plan(phase="pretrain")).views] == ["done", "done"]


def test_a_worker_that_does_not_stop_is_ended(stub: Stub) -> None:
    with signalled(signal.SIGTERM, lambda: len(stub.rows("start")) == 1):
        executor = stub.run(toy_plan(phase="pretrain", seeds=(0,)), {"seed": "deaf"}, grace_seconds=0.3)
    assert executor.views[0].state == "interrupted"
    assert stub.rows("end") == []


def test_finetuning_alone_needs_a_finished_pretraining_on_disk(stub: Stub) -> None:
    alone = toy_plan(phase="finetune", seeds=(0,))
    executor = stub.run(alone)
    assert [view.state for view in executor.views] == ["blocked", "blocked"]
    assert "does not exist; run it with --phase all" in executor.views[0].reason
    assert exit_code(executor.views) == 3
    stub.run(toy_plan(phase="pretrain", seeds=(0,)))
    assert [view.state for view in stub.run(alone).views] == ["done", "done"]


def test_a_run_that_another_process_runs_is_left_alone(stub: Stub) -> None:
    plan = toy_plan(phase="pretrain", seeds=(0,))
    directory = RunDirectory(stub.root / plan.jobs[0].path)
    directory.prepare(plan.jobs[0])
    status = directory.read_status()
    assert status is not None
    directory.write_status(status.model_copy(update={"state": "running", "pid": 123, "host": "elsewhere"}))
    with directory.lock():
        executor = stub.run(plan)
    assert executor.views[0].reason == "process 123 on elsewhere is running it"
    assert stub.rows("start") == []
    assert [view.state for view in stub.run(plan).views] == ["done"], "stale once its process is gone"


def test_gpus_are_shared_out_and_threads_are_limited(stub: Stub) -> None:
    plan = toy_plan(phase="pretrain", seeds=(0, 1, 2, 3))
    stub.run(plan, workers=4, threads=3, gpus=("2", "5"), device="auto", env_workers=6)
    rows = stub.rows("start")
    assert sorted(row["CUDA_VISIBLE_DEVICES"] for row in rows) == ["2", "2", "5", "5"]
    assert {(row["OMP_NUM_THREADS"], row["LP_NUM_THREADS"]) for row in rows} == {("3", "3")}
    for row in rows:
        assert row["arguments"][1:] == [
            *("--runs", str(stub.root), "--threads", "3", "--device", "auto"),
            *("--env-workers", "6", "--parent-pid", str(os.getpid())),
        ]


def test_on_the_cpu_workers_see_no_gpu(stub: Stub) -> None:
    stub.run(toy_plan(phase="pretrain", seeds=(0,)), device="cpu")
    assert [row["CUDA_VISIBLE_DEVICES"] for row in stub.rows("start")] == [""]


def test_a_directory_of_another_specification_is_named_before_anything_starts(stub: Stub) -> None:
    plan = toy_plan(phase="pretrain", seeds=(0,))
    stub.run(plan)
    (job,) = plan.jobs
    other = job.model_copy(update={"id": "0" * 16, "spec": job.spec.model_copy(update={"versions": {"numpy": "1.0"}})})
    with pytest.raises(UserError, match=r"belongs to another run, which differs in versions\.numpy; add --rerun stale"):
        stub.run(Plan(jobs=(other,)))
    assert len(stub.rows("start")) == 1


def test_set_aside_keeps_everything_and_is_no_run_any_more(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / "seed_0"
        folder.mkdir()
        (folder / "spec.json").write_text(f"spec {number}")
        (folder / "eval.jsonl").write_text("results")
        moved = set_aside(folder)
        assert moved == tmp_path / f"seed_0.aside-{number}"
        assert (moved / "spec.aside.json").read_text() == f"spec {number}"
        assert (moved / "eval.jsonl").read_text() == "results"
    assert not list(tmp_path.rglob("spec.json"))


@pytest.mark.parametrize(
    ("cores", "gpus", "threads", "workers"),
    [(8, (), None, 8), (8, (), 3, 2), (2, (), 4, 1), (8, ("0", "1"), None, 2), (1, ("0", "1"), None, 1)],
)
def test_workers_oversubscribe_neither_cores_nor_gpus(
    monkeypatch: pytest.MonkeyPatch, cores: int, gpus: tuple[str, ...], threads: int | None, workers: int
) -> None:
    monkeypatch.setattr(executor_module, "usable_cores", lambda: cores)
    monkeypatch.setattr(executor_module, "visible_gpus", lambda: gpus)
    options = default_options(threads=threads)
    assert (options.workers, options.threads, options.gpus) == (workers, threads or 1, gpus)


def test_processes_that_play_evaluations_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_module, "usable_cores", lambda: 8)
    monkeypatch.setattr(executor_module, "visible_gpus", tuple)
    options = default_options(threads=2, env_workers=4)
    assert (options.workers, options.env_workers, options.cores) == (2, 4, 8)
    assert default_options(workers=3, threads=2).cores == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "--workers 0 is too few"),
        ({"env_workers": 0}, "--env-workers 0 is too few"),
        ({"threads": 0}, "--threads 0 is too few"),
        ({"device": "cuda"}, "shows none"),
    ],
)
def test_options_that_cannot_be(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str) -> None:
    monkeypatch.setattr(executor_module, "visible_gpus", tuple)
    with pytest.raises(UserError, match=message):
        default_options(**arguments)
