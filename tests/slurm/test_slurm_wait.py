"""`--wait`: until when it waits, what it submits meanwhile and how it ends; what happens, and when, each test says."""

from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Command
from slurm_cluster import SlurmCluster
from slurm_fakes import FakeSlurm, fake_slurm, profile, put, toy_plan
from toy_runs import PLUGIN

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job, Plan
from urlbench.slurm import wait
from urlbench.slurm.profile import Resources
from urlbench.slurm.records import Records
from urlbench.slurm.wait import run_and_wait

__all__ = ["fake_slurm"]

PLAN = toy_plan(tasks=("ball_left",))
PRETRAININGS, FINETUNINGS = PLAN.jobs[:2], PLAN.jobs[2:]
Events = Callable[..., None]


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    """Takes what happens while it waits, one after the other; afterwards it must have come to an end."""
    left: list[Callable[[], object]] = []

    def happen(seconds: float) -> None:
        assert left, "it waits although nothing will happen any more"
        left.pop(0)()

    monkeypatch.setattr(wait, "sleep", happen)
    return lambda *happenings: left.extend(happenings)


def waited(fake: FakeSlurm, plan: Plan = PLAN, *, retry_failed: bool = False, **changes: object) -> int:
    return run_and_wait(plan, fake.root, profile(**changes), retry_failed=retry_failed)


def ends(fake: FakeSlurm, job: Job, job_id: str, state: str = "done", **changes: object) -> Callable[[], None]:
    """A job leaves the queue, and its run is in a state."""

    def happen() -> None:
        put(fake.root, job, state, **changes)
        fake.change(job_id, None)

    return happen


def nothing() -> None:
    pass


def test_it_returns_once_everything_is_done(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = ("101_0", "101_1", "102_0", "102_1")
    starts = [lambda: fake_slurm.change("101_0", "RUNNING"), nothing]
    events(*starts, *(ends(fake_slurm, job, job_id) for job, job_id in zip(PLAN.jobs, ids, strict=True)))
    assert waited(fake_slurm) == 0
    assert capsys.readouterr().out.splitlines()[-6:] == [
        "0 of 4 jobs are done, 4 waiting in the queue",
        "0 of 4 jobs are done, 1 running, 3 waiting in the queue",
        "1 of 4 jobs are done, 3 waiting in the queue",
        "2 of 4 jobs are done, 2 waiting in the queue",
        "3 of 4 jobs are done, 1 waiting in the queue",
        f"4 of 4 jobs are done, in {fake_slurm.root}",
    ]
    assert len(fake_slurm.scripts()) == 2


def test_it_returns_at_once_when_there_is_nothing_to_wait_for(fake_slurm: FakeSlurm, events: Events) -> None:
    for job in PLAN.jobs:
        put(fake_slurm.root, job, "done")
    assert waited(fake_slurm) == 0
    put(fake_slurm.root, toy_plan(seeds=(2,)).jobs[0], "failed")
    assert waited(fake_slurm, toy_plan(tasks=("ball_left",), seeds=(2,))) == 1
    fake_slurm.accept(0)
    assert waited(fake_slurm, toy_plan(tasks=("ball_left",), seeds=(3,))) == 3


def test_a_run_that_fails_gives_1_and_its_reason_and_the_others_are_waited_for(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    events(
        ends(fake_slurm, PRETRAININGS[0], "101_0", "failed", message="ValueError: no"),
        lambda: fake_slurm.change("102_0", None),
        ends(fake_slurm, PRETRAININGS[1], "101_1"),
        ends(fake_slurm, FINETUNINGS[1], "102_1"),
    )
    assert waited(fake_slurm) == 1
    out = capsys.readouterr().out
    log = fake_slurm.root / PRETRAININGS[0].path / "log.txt"
    assert f"failed: {PRETRAININGS[0].label}\n    reason: ValueError: no\n    log: {log}\n" in out
    assert "2 of 4 jobs are done, in " in out
    assert "mend the cause, then the same command with --rerun failed\n" in out


def test_what_others_take_out_of_the_queue_gives_3_and_is_not_submitted_again(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.write("accounting", "101_0|CANCELLED by 7\n102_0|CANCELLED\n")
    events(
        ends(fake_slurm, PRETRAININGS[1], "101_1"),
        ends(fake_slurm, FINETUNINGS[1], "102_1"),
        lambda: (fake_slurm.change("101_0", None), fake_slurm.change("102_0", None)),
        *(nothing, nothing),
    )
    assert waited(fake_slurm) == 3
    out = capsys.readouterr().out
    for job, job_id in ((PRETRAININGS[0], "101_0"), (FINETUNINGS[0], "102_0")):
        assert f"interrupted: {job.label}: Slurm job {job_id} ended as CANCELLED\n" in out
    assert "2 of 4 jobs are done, in " in out
    assert out.endswith("not everything has run; the same command continues\n")
    assert len(fake_slurm.scripts()) == 2


def test_files_that_are_seen_late_are_waited_for(fake_slurm: FakeSlurm, events: Events) -> None:
    (job,) = (plan := toy_plan(phase="pretrain", seeds=(0,))).jobs
    events(lambda: fake_slurm.change("101", None), nothing, lambda: put(fake_slurm.root, job, "done"))
    assert waited(fake_slurm, plan) == 0


def test_the_queue_is_filled_up(fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]) -> None:
    events(
        nothing,
        ends(fake_slurm, PRETRAININGS[0], "101_0"),
        ends(fake_slurm, FINETUNINGS[0], "102"),
        ends(fake_slurm, PRETRAININGS[1], "101_1"),
        ends(fake_slurm, FINETUNINGS[1], "103"),
    )
    assert waited(fake_slurm, max_submitted=2) == 0
    assert "0 of 4 jobs are done, 2 waiting in the queue, 2 without room in it\n" in capsys.readouterr().out
    assert [(record.phase, len(record.indices), record.dependency) for record in Records(fake_slurm.root).all()] == [
        ("pretrain", 2, None),
        ("finetune", 1, None),
        ("finetune", 1, "afterok:101_1"),
    ]


def test_room_that_other_jobs_take_is_waited_for(fake_slurm: FakeSlurm, events: Events) -> None:
    (job,) = (plan := toy_plan(phase="pretrain", seeds=(0,))).jobs
    fake_slurm.write("queue", "7|N/A|RUNNING|None|notebook\n")
    events(nothing, lambda: fake_slurm.change("7", None), ends(fake_slurm, job, "101"))
    assert waited(fake_slurm, plan, max_submitted=1) == 0


def test_children_without_room_of_a_cancelled_parent_are_not_submitted(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = toy_plan(tasks=("ball_left",), seeds=(0,))
    events(lambda: fake_slurm.change("101", None), nothing, nothing)
    assert waited(fake_slurm, plan, max_submitted=1) == 3
    assert "interrupted: toy pretrain ball seed 0: Slurm job 101 has left the queue\n" in capsys.readouterr().out
    assert len(fake_slurm.scripts()) == 1


def test_failed_runs_are_run_again_once(fake_slurm: FakeSlurm, events: Events) -> None:
    (job,) = (plan := toy_plan(phase="pretrain", seeds=(0,))).jobs
    put(fake_slurm.root, job, "failed")
    events(ends(fake_slurm, job, "101", "failed"))
    assert waited(fake_slurm, plan, retry_failed=True) == 1
    assert len(fake_slurm.scripts()) == 1


def test_a_controller_that_does_not_answer_is_no_end(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    (job,) = (plan := toy_plan(phase="pretrain", seeds=(0,))).jobs
    events(
        lambda: fake_slurm.write("squeue.refusal", "squeue: error: Unable to contact slurm controller\n"),
        nothing,
        lambda: fake_slurm.forget("squeue.refusal"),
        ends(fake_slurm, job, "101"),
    )
    assert waited(fake_slurm, plan) == 0
    assert capsys.readouterr().out.count("still waiting: squeue --noheader failed: squeue: error: Unable to") == 1


def test_what_no_waiting_mends_ends_it(fake_slurm: FakeSlurm, events: Events) -> None:
    events(lambda: fake_slurm.without("squeue"))
    with pytest.raises(UserError, match="squeue is not on PATH"):
        waited(fake_slurm)


def test_ctrl_c_leaves_the_jobs_in_the_queue(
    fake_slurm: FakeSlurm, events: Events, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    events(nothing, interrupt)
    assert waited(fake_slurm) == 3
    assert capsys.readouterr().out.splitlines()[-1] == (
        "stopped waiting: what is submitted stays in the queue, and the same command waits for it again"
    )
    assert len(fake_slurm.queue()) == 4
    assert fake_slurm.calls("scancel") == []


def test_the_option(fake_slurm: FakeSlurm, events: Events, urlbench: Command, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("resources: {slot: 77m}\n")
    toy = ["--suite", "toy-states", "--agent", "toy", "--preset", "smoke", "--plugin", str(PLUGIN), "--seeds", "1"]
    command = ["run", *toy, "--domains", "ball", "--phase", "pretrain", "--runs", str(fake_slurm.root), "--wait"]
    refused = urlbench(*command)
    assert (refused.code, "--wait is for --executor slurm" in refused.err) == (2, True)
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    events(ends(fake_slurm, job, "101", "failed"))
    outcome = urlbench(*command, "--executor", "slurm", "--cluster", str(file))
    assert outcome.code == 1, outcome.err
    assert "0 of 1 jobs are done, in " in outcome.out


@pytest.mark.slow
def test_on_a_real_cluster_two_runs_take_their_turns(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.enter(monkeypatch)
    monkeypatch.setattr(wait, "_POLL_SECONDS", 0.2)
    asked = profile(pretrain=Resources(slot_minutes=30), max_submitted=1)
    assert run_and_wait(toy_plan(phase="pretrain"), tmp_path, asked, retry_failed=False) == 0
    assert len(Records(tmp_path).all()) == 2
