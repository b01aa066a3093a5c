"""What squeue says of jobs, read: elements of arrays in all its ways to write them, and every state and reason."""

import pytest
from slurm_fakes import FakeSlurm, fake_slurm, put, toy_plan

from urlbench.cli.overview import RunStatus, read_overview
from urlbench.core.errors import UserError
from urlbench.core.jobs import Plan
from urlbench.slurm.grouping import Place
from urlbench.slurm.queue import Entry, Queue

__all__ = ["fake_slurm"]

NAME = "urlbench-0123456789"


@pytest.mark.parametrize(
    ("expression", "indices"),
    [
        ("7", [7]),
        ("0-3", [0, 1, 2, 3]),
        ("0-3%2", [0, 1, 2, 3]),
        ("5,8-9,20", [5, 8, 9, 20]),
        ("1-9:4", [1, 5, 9]),
        ("1-9:3%8", [1, 4, 7]),
        ("0,10-20:5,30%1", [0, 10, 15, 20, 30]),
    ],
)
def test_elements_that_wait_are_one_line(fake_slurm: FakeSlurm, expression: str, indices: list[int]) -> None:
    fake_slurm.write("queue", f"12|{expression}|PENDING|Priority|{NAME}\n12|99|RUNNING|None|{NAME}\n")
    waiting = {Place(NAME, index): Entry(f"12_{index}", "PENDING", "Priority") for index in indices}
    assert Queue.look().entries == waiting | {Place(NAME, 99): Entry("12_99", "RUNNING", "None")}


def test_a_plain_job_is_its_only_element(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("queue", f"12|N/A|PENDING|Priority|{NAME}\n")
    assert Queue.look().entries == {Place(NAME, 0): Entry("12", "PENDING", "Priority")}


@pytest.mark.parametrize("expression", ["1,3,5,...", "", "0x55", "a-b"])
def test_elements_that_nobody_can_read_are_told_not_guessed(fake_slurm: FakeSlurm, expression: str) -> None:
    fake_slurm.write("queue", f"12|{expression}|PENDING|Priority|{NAME}\n")
    with pytest.raises(UserError, match=r"^squeue calls elements of an array .* which cannot be read; update Slurm"):
        Queue.look()


# --- States -----------------------------------------------------------------------------------------

# All of squeue's manual page and of later versions, and what `urlbench status` makes of them.
WAITING = {
    "PENDING": "waits behind jobs of higher priority",
    "CONFIGURING": "waits until its node is ready",
    "POWER_UP_NODE": "waits until its node is ready",
    "REQUEUED": "waits to be started again",
    "REQUEUE_FED": "waits to be started again",
    "REQUEUE_HOLD": "is held after a start; to let it start: scontrol release JOB",
    "SPECIAL_EXIT": "is held after a start; to let it start: scontrol release JOB",
    "RESV_DEL_HOLD": "is held, as its reservation was deleted; to let it start: scontrol release JOB",
}
RUNNING = ("RUNNING", "COMPLETING", "RESIZING", "REVOKED", "SIGNALING", "STAGE_OUT", "STOPPED", "SUSPENDED")
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY")
ENDED += ("PREEMPTED", "RECONFIG_FAIL", "TIMEOUT")
REASONS = {
    "Dependency": "waits for its pretraining",
    "JobArrayTaskLimit": "waits for others of its array (array_parallelism)",
    "Resources": "waits for free resources",
    "Priority": "waits behind jobs of higher priority",
    "BeginTime": "waits to be started again",
    "DependencyNeverSatisfied": "its pretraining has failed or was cancelled",
    "JobHeldUser": "is held by its user; to let it start: scontrol release JOB",
    "JobHeldAdmin": "is held by an administrator, who has to release it",
    "None": "waits until the scheduler looks at it",
    "QOSMaxJobsPerUserLimit": "waits (QOSMaxJobsPerUserLimit)",
    "ReqNodeNotAvail, UnavailableNodes:n7": "waits (ReqNodeNotAvail, UnavailableNodes:n7)",
    "launch failed requeued held": "waits (launch failed requeued held)",
}
(JOB,) = toy_plan(phase="pretrain", seeds=(0,)).jobs


@pytest.fixture
def submitted(fake_slurm: FakeSlurm) -> FakeSlurm:
    """A cluster that has one run."""
    assert fake_slurm.run(Plan(jobs=(JOB,))) == 0
    return fake_slurm


def look(fake: FakeSlurm) -> RunStatus:
    (run,) = read_overview(fake.root).runs
    return run


@pytest.mark.parametrize("state", WAITING)
@pytest.mark.parametrize("before", ["queued", "interrupted", "running"])
def test_what_waits_is_queued_and_not_submitted_again(submitted: FakeSlurm, state: str, before: str) -> None:
    put(submitted.root, JOB, before)
    submitted.change("101", state, "Priority")
    run = look(submitted)
    assert (run.state, run.waits, run.cluster_job) == ("queued", WAITING[state], "101")
    assert submitted.run(Plan(jobs=(JOB,))) == 0
    assert len(submitted.scripts()) == 1


@pytest.mark.parametrize("state", RUNNING)
def test_what_has_started_is_running_and_not_submitted_again(submitted: FakeSlurm, state: str) -> None:
    submitted.change("101", state)
    run = look(submitted)
    assert (run.state, run.waits, run.cluster_job) == ("running", "", "101")
    assert submitted.run(Plan(jobs=(JOB,))) == 0
    assert len(submitted.scripts()) == 1


@pytest.mark.parametrize("reason", REASONS)
def test_why_a_job_waits(submitted: FakeSlurm, reason: str) -> None:
    submitted.change("101", "PENDING", reason)
    assert look(submitted).waits == REASONS[reason]


@pytest.mark.parametrize("state", [*WAITING, *RUNNING, *ENDED])
def test_a_job_that_has_left_the_queue_has_only_ended_in_a_state_that_is_an_end(
    submitted: FakeSlurm, state: str
) -> None:
    submitted.write("queue", "")
    submitted.write("accounting", f"101|{state}\n")
    told = f"ended as {state}" if state in ENDED else "has left the queue"
    run = look(submitted)
    assert (run.state, run.message) == (
        "interrupted",
        f"Slurm job 101 {told}; the same run command submits it again",
    )
    assert submitted.run(Plan(jobs=(JOB,))) == 0
    assert len(submitted.scripts()) == 2
