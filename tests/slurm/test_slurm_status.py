"""What `urlbench status` and `urlbench logs` say of runs on a cluster, and how seldom they ask it."""

import json
from pathlib import Path

import pytest
from command_line import Command
from slurm_fakes import FakeSlurm, fake_slurm, profile, put, toy_plan

from urlbench.cli.overview import Overview, RunStatus, format_overview, read_overview
from urlbench.core.jobs import Job
from urlbench.runs.store import RunDirectory
from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.records import Records, record_of

__all__ = ["fake_slurm"]

PLAN = toy_plan(tasks=("ball_left",))
PRETRAININGS, FINETUNINGS = PLAN.jobs[:2], PLAN.jobs[2:]


def look(fake: FakeSlurm) -> dict[str, RunStatus]:
    """The runs by their path."""
    return {run.path: run for run in read_overview(fake.root).runs}


def asked(fake: FakeSlurm) -> tuple[int, int]:
    """How often squeue and sacct were called since the last question."""
    return len(fake.calls("squeue")), len(fake.calls("sacct"))


def write_element_log(fake: FakeSlurm, job_id: str, text: str) -> Path:
    array = job_id.partition("_")[0]
    (record,) = [record for record in Records(fake.root).all() if record.slurm_id == array]
    file = Records(fake.root).log_folder(record.name) / f"{job_id}_0_log.out"
    file.write_text(text)
    return file


@pytest.fixture
def submitted(fake_slurm: FakeSlurm) -> FakeSlurm:
    """Two pretrainings (101) and a fine-tuning after each (102) in the queue."""
    assert fake_slurm.run(PLAN) == 0
    asked(fake_slurm)
    return fake_slurm


# --- In the queue -----------------------------------------------------------------------------------


def test_waiting_and_running(submitted: FakeSlurm) -> None:
    submitted.change("101_0", "RUNNING")
    runs = look(submitted)
    assert [(runs[job.path].state, runs[job.path].cluster_job, runs[job.path].waits) for job in PLAN.jobs] == [
        ("running", "101_0", ""),
        ("queued", "101_1", "waits behind jobs of higher priority"),
        ("queued", "102_0", "waits for its pretraining"),
        ("queued", "102_1", "waits for its pretraining"),
    ]
    assert asked(submitted) == (1, 0)


def test_a_requeued_run_waits_with_its_progress(submitted: FakeSlurm) -> None:
    directory = put(submitted.root, PRETRAININGS[0], "interrupted", progress=40, message="stopped by SIGTERM")
    for progress in (0, 40):
        directory.begin_attempt(progress)
    submitted.change("101_0", "PENDING", "BeginTime")
    run = look(submitted)[PRETRAININGS[0].path]
    assert (run.state, run.progress, run.starts, run.waits) == ("queued", 40, 2, "waits to be started again")
    submitted.change("101_0", "RUNNING")
    run = look(submitted)[PRETRAININGS[0].path]
    assert (run.state, run.message) == ("running", ""), "it starts, and has not written so yet"


def test_a_stale_file_of_a_lost_node_does_not_hide_that_its_run_goes_on(submitted: FakeSlurm) -> None:
    put(submitted.root, PRETRAININGS[0], "running", progress=40)
    assert look(submitted)[PRETRAININGS[0].path].state == "queued"
    submitted.change("101_0", "RUNNING")
    assert look(submitted)[PRETRAININGS[0].path].state == "running"


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_failed_run_is_failed_also_while_others_of_its_element_go_on(fake_slurm: FakeSlurm, state: str) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain"), runs_per_gpu=2) == 0
    put(fake_slurm.root, PRETRAININGS[0], "failed", message="ValueError: no")
    fake_slurm.change("101", state)
    run, other = (look(fake_slurm)[job.path] for job in PRETRAININGS)
    assert (run.state, run.message, run.waits, run.cluster_job) == ("failed", "ValueError: no", "", "101")
    assert other.cluster_job == "101"


def test_an_array_whose_submitter_was_killed_is_found_by_its_name(submitted: FakeSlurm) -> None:
    records = Records(submitted.root)
    records.write(records.all()[0].model_copy(update={"slurm_id": None}))
    assert look(submitted)[PRETRAININGS[1].path].cluster_job == "101_1"


# --- Out of the queue -------------------------------------------------------------------------------


def test_how_runs_left_the_queue_by_the_accounting(submitted: FakeSlurm) -> None:
    put(submitted.root, PRETRAININGS[0], "interrupted", progress=40, message="stopped by SIGTERM")
    put(submitted.root, PRETRAININGS[1], "done")
    submitted.write("queue", "")
    submitted.write("accounting", "101_0|CANCELLED by 1000\n101_1|COMPLETED\n102_0|NODE_FAIL\n102_[1]|CANCELLED by 1\n")
    runs = look(submitted)
    assert [(runs[job.path].state, runs[job.path].message) for job in PLAN.jobs] == [
        (
            "interrupted",
            "stopped by SIGTERM; Slurm job 101_0 ended as CANCELLED; the same run command submits it again",
        ),
        ("done", ""),
        ("interrupted", "Slurm job 102_0 ended as NODE_FAIL; the same run command submits it again"),
        ("interrupted", "Slurm job 102_1 has left the queue; the same run command submits it again"),
    ]
    assert {runs[job.path].cluster_job for job in PLAN.jobs} == {""}


def test_without_accounting_the_last_line_of_an_element_has_to_do(submitted: FakeSlurm) -> None:
    submitted.write("queue", "")
    submitted.write("sacct.refusal", "Slurm accounting storage is disabled\n")
    write_element_log(submitted, "101_0", "starting\nModuleNotFoundError: No module named 'torch'\n\n")
    runs = look(submitted)
    assert [runs[job.path].message for job in PRETRAININGS] == [
        "Slurm job 101_0 has left the queue: ModuleNotFoundError: No module named 'torch'; "
        "the same run command submits it again",
        "Slurm job 101_1 has left the queue; the same run command submits it again",
    ]


def test_a_failed_run_keeps_its_own_reason(submitted: FakeSlurm) -> None:
    put(submitted.root, PRETRAININGS[0], "failed", message="ValueError: no")
    submitted.change("101_0", None)
    run = look(submitted)[PRETRAININGS[0].path]
    assert (run.state, run.message) == ("failed", "ValueError: no")
    assert asked(submitted) == (1, 0)


def test_the_last_submission_counts(submitted: FakeSlurm) -> None:
    submitted.write("queue", "")
    assert submitted.run(toy_plan(phase="pretrain", seeds=(0,))) == 0
    submitted.write("queue", "")
    submitted.write("accounting", "101_0|CANCELLED by 1000\n103|OUT_OF_MEMORY\n")
    assert look(submitted)[PRETRAININGS[0].path].message.startswith("Slurm job 103 ended as OUT_OF_MEMORY")


# --- How often Slurm is asked -----------------------------------------------------------------------


def test_one_call_of_squeue_and_one_of_sacct_for_any_number_of_runs(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(seeds=tuple(range(15))), max_array_size=4) == 0
    arrays = len(Records(fake_slurm.root).all())
    assert arrays == 12
    for job_id in ("101_0", "103_2", "105", "112"):
        fake_slurm.change(job_id, None)
    fake_slurm.write("accounting", "103_2|TIMEOUT\n")
    asked(fake_slurm)
    overview = read_overview(fake_slurm.root)
    assert sum(run.state == "interrupted" for run in overview.runs) == 1 + 1 + 4 + 3
    (ids,) = [call.partition("--jobs=")[2] for call in fake_slurm.calls("sacct")]
    assert ids == "101,103,105,112"
    assert len(fake_slurm.calls("squeue")) == 1


def test_slurm_is_not_asked_about_runs_that_are_done_or_that_it_never_had(fake_slurm: FakeSlurm) -> None:
    for job in PLAN.jobs:
        put(fake_slurm.root, job, "queued")
    read_overview(fake_slurm.root)
    assert asked(fake_slurm) == (0, 0)
    assert fake_slurm.run(PLAN) == 0
    for job in PLAN.jobs:
        put(fake_slurm.root, job, "done")
    asked(fake_slurm)
    overview = read_overview(fake_slurm.root)
    assert asked(fake_slurm) == (0, 0)
    assert not overview.active


def test_there_is_something_to_watch_while_a_run_is_in_the_queue(submitted: FakeSlurm) -> None:
    assert read_overview(submitted.root).active
    submitted.write("queue", "")
    submitted.write("accounting", "")
    assert not read_overview(submitted.root).active


def test_without_squeue_s_answer_the_files_have_to_do(submitted: FakeSlurm) -> None:
    put(submitted.root, PRETRAININGS[0], "done")
    submitted.write("squeue.refusal", "slurm_load_jobs error: Unable to contact slurm controller\n")
    overview = read_overview(submitted.root)
    assert [run.state for run in overview.runs if run.path == PRETRAININGS[0].path] == ["done"]
    text = format_overview(overview)
    assert text.count("the cluster's queue is not known: ") == 1
    assert "squeue --noheader failed: slurm_load_jobs error: Unable to contact slurm controller" in text
    assert text.splitlines()[-1] == "4 runs: 1 done, 3 queued"
    assert asked(submitted) == (1, 0)


def test_a_record_that_cannot_be_read_is_named_and_the_files_have_to_do(submitted: FakeSlurm) -> None:
    file = next((submitted.root / ".slurm").glob("urlbench-*/array.json"))
    file.write_text("{")
    overview = read_overview(submitted.root)
    assert len(overview.runs) == 4
    assert f"{file} cannot be read; cancel its jobs with scancel --name={file.parent.name}" in overview.queue_problem


# --- For people -------------------------------------------------------------------------------------


def test_the_grid_and_what_is_below_it(submitted: FakeSlurm, urlbench: Command) -> None:
    directory = put(submitted.root, PRETRAININGS[0], "interrupted", progress=40)
    for progress in (0, 40):
        directory.begin_attempt(progress)
    submitted.change("101_0", "PENDING", "BeginTime")
    submitted.change("101_1", None)
    submitted.write("accounting", "101_1|TIMEOUT\n")
    outcome = urlbench("status", "--runs", str(submitted.root))
    agent = PRETRAININGS[0].path.split("/")[1]
    assert outcome.out.splitlines() == [
        f"toy-states@1  preset smoke (REDUCED BUDGET)  {agent}",
        "                            seed 0         seed 1",
        "pretrain ball               queued 40%     interrupted 0%",
        "finetune ball_left from 100 queued         queued",
        "",
        "in the queue: 2 runs, waits for its pretraining",
        "in the queue: 1 run, waits to be started again",
        f"started 2 times: {PRETRAININGS[0].path}",
        "",
        f"interrupted: {PRETRAININGS[1].path}",
        "    reason: Slurm job 101_1 ended as TIMEOUT; the same run command submits it again",
        f"    log: {log_path(submitted, '101_1')}",
        "",
        "4 runs: 3 queued, 1 interrupted",
    ]


def log_path(fake: FakeSlurm, job_id: str) -> str:
    """Where an element writes, relative to the runs folder."""
    record = next(record for record in Records(fake.root).all() if record.slurm_id == job_id.partition("_")[0])
    return f".slurm/{record.name}/log/{job_id}_0_log.out"


def test_json_has_the_jobs_and_what_they_wait_for(submitted: FakeSlurm, urlbench: Command) -> None:
    outcome = urlbench("status", "--json", "--runs", str(submitted.root))
    overview = Overview.model_validate(json.loads(outcome.out))
    assert {run.cluster_job for run in overview.runs} == {"101_0", "101_1", "102_0", "102_1"}
    assert overview.queue_problem == ""


def log_of(job: Job, fake: FakeSlurm) -> Path:
    return RunDirectory(fake.root / job.path).log_file


def test_the_log_of_a_run_whose_worker_never_started_is_its_element_s(submitted: FakeSlurm, urlbench: Command) -> None:
    name = PRETRAININGS[0].id[:10]
    waiting = urlbench("logs", name, "--runs", str(submitted.root))
    assert waiting.code == 2
    assert "yet: the run has not started; see: urlbench status" in waiting.err
    file = write_element_log(submitted, "101_0", "module: command not found\nno torch\n")
    for name in (PRETRAININGS[0].id[:10], PRETRAININGS[0].path, str(submitted.root / PRETRAININGS[0].path)):
        found = urlbench("logs", name, "--runs", str(submitted.root))
        assert found.out == f"{file}\nmodule: command not found\nno torch\n"
    log_of(PRETRAININGS[0], submitted).write_text("the worker's own\n")
    found = urlbench("logs", PRETRAININGS[0].id[:10], "--runs", str(submitted.root))
    assert found.out.splitlines()[1:] == ["the worker's own"]
    assert asked(submitted) == (0, 0), "for a log nobody waits for the cluster"


def test_the_log_of_a_run_of_another_folder_is_refused(submitted: FakeSlurm, urlbench: Command, tmp_path: Path) -> None:
    other = put(tmp_path / "others", PRETRAININGS[0], "queued")
    outcome = urlbench("logs", str(other.path), "--runs", str(submitted.root))
    assert (outcome.code, "does not lie below the runs folder" in outcome.err) == (2, True)


def test_an_array_that_slurm_never_had_has_no_log(submitted: FakeSlurm) -> None:
    records = Records(submitted.root)
    plan = ArrayPlan("urlbench-ffffffffff", "pretrain", ((PRETRAININGS[0],),), None)
    records.write(record_of(plan, None, profile(), "code", {}))
    first = records.all()[0]
    assert records.logs(records.all())[PRETRAININGS[0].path] == records.element_log(first, 0)
    assert records.logs(records.all()[-1:]) == {}
