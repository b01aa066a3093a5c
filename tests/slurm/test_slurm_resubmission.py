"""The same command again: nothing twice, nothing lost, wherever the one before was stopped."""

import fcntl
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import HANG_SECONDS, wait_until
from slurm_fakes import CODE, DIGEST, FakeSlurm, fake_slurm, profile, put, toy_plan
from submitit.helpers import DelayedSubmission

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job
from urlbench.runs.store import RunDirectory
from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.records import ArrayRecord, Records, record_of
from urlbench.slurm.run import run_on_slurm
from urlbench.slurm.submission import submit

__all__ = ["fake_slurm"]
PLAN = toy_plan(tasks=("ball_left",))
PRETRAININGS, FINETUNINGS = PLAN.jobs[:2], PLAN.jobs[2:]


@pytest.fixture(autouse=True)
def _ctrl_c() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def submitted(fake: FakeSlurm) -> list[tuple[str, int, str | None]]:
    """Phase, elements and dependency of what sbatch has accepted."""
    found = []
    for script in fake.scripts():
        (name,) = re.findall("--job-name=(.*)", script)
        record = Records(fake.root).read(name)
        found.append((record.phase, len(record.indices), record.dependency))
        assert re.findall("--dependency=(.*)", script) == ([record.dependency] if record.dependency else [])
    return found


def state(fake: FakeSlurm, job: Job) -> str:
    status = RunDirectory(fake.root / job.path).read_status()
    assert status is not None
    return status.state


WHOLE = [("pretrain", 2, None), ("finetune", 2, "aftercorr:101")]


# --- Nothing twice ----------------------------------------------------------------------------------


def test_the_same_command_twice_submits_once(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_slurm.run(PLAN) == 0
    first = capsys.readouterr().out
    assert "4 of 4 jobs submitted in 2 arrays; 0 were done and 0 in the queue before" in first
    assert re.search(r"^101 urlbench-\w{10}: 2 pretrain runs in 2 elements, ball, slots of 60 min$", first, re.M)
    assert re.search(
        r"^102 urlbench-\w{10}: 2 finetune runs in 2 elements, ball_left from 100, slots of 60 min, "
        r"each after its pretraining \(aftercorr:101\)$",
        first,
        re.M,
    )
    assert f"to watch: urlbench status --watch --runs '{fake_slurm.root}'" in first
    assert {state(fake_slurm, job) for job in PLAN.jobs} == {"queued"}
    assert fake_slurm.run(PLAN) == 0
    assert "0 of 4 jobs submitted in 0 arrays; 0 were done and 4 in the queue before" in capsys.readouterr().out
    assert submitted(fake_slurm) == WHOLE
    assert len(fake_slurm.calls("squeue")) == 2


def test_when_all_is_done_there_is_nothing_to_do(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    for job in PLAN.jobs:
        put(fake_slurm.root, job, "done")
    assert fake_slurm.run(PLAN) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do: all 4 jobs are done"
    assert submitted(fake_slurm) == []


def test_a_larger_plan_submits_what_is_new(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(PLAN) == 0
    assert fake_slurm.run(toy_plan(seeds=(0, 1, 2))) == 0
    assert submitted(fake_slurm)[2:] == [
        ("pretrain", 1, None),
        ("finetune", 2, "aftercorr:101"),
        ("finetune", 2, "afterok:103"),
    ]


def test_jobs_of_others_are_no_runs_of_ours(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write(
        "queue", "7|N/A|RUNNING|None|a|b\n8|0|PENDING|Priority|urlbench-ffffffffff\n9|N/A|RUNNING|None|two\nlines\n"
    )
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE


def test_squeue_shows_all_of_our_jobs_whatever_users_set(
    fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    fake_slurm.script("squeue", 'if [ "$SQUEUE_STATES" ]; then exit 0; fi; cat queue')
    assert fake_slurm.run(PLAN) == 0
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE


# --- Stopped while submitting -----------------------------------------------------------------------


def test_stopped_before_sbatch_the_array_is_submitted_by_the_next_command(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("before", "kill -INT $PPID; exit 1")
    with pytest.raises(KeyboardInterrupt):
        fake_slurm.run(PLAN)
    (left,) = Records(fake_slurm.root).all()
    assert left.slurm_id is None
    fake_slurm.forget("before")
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_stopped_before_sbatch_has_answered_the_array_is_found_and_completed(
    fake_slurm: FakeSlurm, seeds: tuple[int, ...]
) -> None:
    plan = toy_plan(tasks=("ball_left",), seeds=seeds)
    fake_slurm.write("after", "kill -INT $PPID; exit 1")
    with pytest.raises(KeyboardInterrupt):
        fake_slurm.run(plan)
    (left,) = Records(fake_slurm.root).all()
    folder = Records(fake_slurm.root).log_folder(left.name)
    assert left.slurm_id is None
    assert list(folder.glob("101*_submitted.pkl")) == [], "the jobs would find nothing to load"

    fake_slurm.forget("after")
    assert fake_slurm.run(plan) == 0
    after = "aftercorr:101" if len(seeds) == 2 else "afterok:101"
    assert submitted(fake_slurm) == [("pretrain", len(seeds), None), ("finetune", len(seeds), after)]
    adopted, _ = Records(fake_slurm.root).all()
    assert adopted == left.model_copy(update={"slurm_id": "101"})
    assert starts_of(fake_slurm, adopted) == [(str(fake_slurm.root), left.name, str(seed)) for seed in seeds]


def starts_of(fake: FakeSlurm, record: ArrayRecord) -> list[tuple[str, str, str]]:
    """What the elements of an array would start, as submitit loads it."""
    folder = Records(fake.root).log_folder(record.name)
    files = [folder / f"{record.job_id(index)}_submitted.pkl" for index in range(len(record.elements))]
    loaded = [DelayedSubmission.load(file) for file in files]
    assert all((one._timeout_min, one._timeout_countdown) == (60, 10**9) for one in loaded)
    return [one.function._arguments for one in loaded]


def test_stopped_after_the_first_array_the_second_one_follows_it(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("before", "if [ $id = 102 ]; then kill -INT $PPID; exit 1; fi")
    with pytest.raises(KeyboardInterrupt):
        fake_slurm.run(PLAN)
    fake_slurm.forget("before")
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE


def test_an_array_whose_folder_is_all_that_there_is_does_no_harm(fake_slurm: FakeSlurm) -> None:
    (fake_slurm.root / ".slurm" / "urlbench-0000000000").mkdir(parents=True)
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == WHOLE


# --- What has become of the runs --------------------------------------------------------------------


def test_children_of_what_is_done_wait_for_nothing(fake_slurm: FakeSlurm) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "done")
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("finetune", 1, None), ("finetune", 1, "afterok:101")]


def test_a_run_that_is_done_keeps_nobody_waiting_while_its_pack_still_runs(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain"), runs_per_gpu=2) == 0
    put(fake_slurm.root, PRETRAININGS[0], "done")
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("finetune", 1, None), ("finetune", 1, "afterok:101")]


def test_children_of_a_part_of_the_queue_wait_for_their_own_element(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0, 1, 2))) == 0
    put(fake_slurm.root, PRETRAININGS[0], "done")
    fake_slurm.change("101_0", None)
    assert fake_slurm.run(PLAN) == 0
    assert submitted(fake_slurm)[1:] == [("finetune", 1, None), ("finetune", 1, "afterok:101_1")]


def test_fine_tunings_alone_follow_pretrainings_in_the_queue(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain")) == 0
    assert fake_slurm.run(toy_plan(phase="finetune", tasks=("ball_left",))) == 0
    assert submitted(fake_slurm) == WHOLE


def test_fine_tunings_without_a_pretraining_are_not_submitted(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "interrupted")
    assert fake_slurm.run(toy_plan(phase="finetune", tasks=("ball_left",))) == 3
    out = capsys.readouterr().out
    assert f"its pretraining {PRETRAININGS[0].path} is interrupted; run it with --phase all" in out
    assert f"its pretraining {PRETRAININGS[1].path} does not exist; run it with --phase all" in out
    assert submitted(fake_slurm) == []


@pytest.mark.parametrize("left", ["interrupted", "running"])
def test_what_has_left_the_queue_unfinished_is_submitted_again(fake_slurm: FakeSlurm, left: str) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain")) == 0
    # `running` without a process that holds the lock is stale.
    put(fake_slurm.root, PRETRAININGS[0], left, progress=40)
    fake_slurm.change("101_0", None)
    assert fake_slurm.run(toy_plan(phase="pretrain")) == 0
    assert submitted(fake_slurm)[1:] == [("pretrain", 1, None)]
    assert [record.elements for record in Records(fake_slurm.root).all()][1] == ((PRETRAININGS[0].path,),)


def test_a_run_that_runs_elsewhere_is_not_submitted(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    with put(fake_slurm.root, PRETRAININGS[0], "running", pid=12, host="laptop").lock():
        assert fake_slurm.run(PLAN) == 3
    out = capsys.readouterr().out
    assert "not submitted: toy pretrain ball seed 0: process 12 on laptop is running it" in out
    assert f"seed 0: its pretraining {PRETRAININGS[0].path} is blocked: process 12 on laptop is running it" in out
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("finetune", 1, "afterok:101")]


@pytest.mark.parametrize("message", ["ValueError: no", ""])
def test_failed_runs_and_their_children_are_left_alone_until_they_are_asked_for(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], message: str
) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "failed", message=message)
    assert fake_slurm.run(PLAN) == 1
    out = capsys.readouterr().out
    assert f"failed: toy pretrain ball seed 0: {message or 'no reason given'}\n" in out
    assert f"not submitted: {FINETUNINGS[0].label}: its pretraining {PRETRAININGS[0].path} has failed\n" in out
    assert "mend the cause, then the same command with --rerun failed" in out
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("finetune", 1, "afterok:101")]

    assert fake_slurm.run(PLAN, retry_failed=True) == 0
    assert submitted(fake_slurm)[2:] == [("pretrain", 1, None), ("finetune", 1, "afterok:103")]
    assert state(fake_slurm, PRETRAININGS[0]) == "queued"


def test_a_failed_run_of_a_pack_that_still_runs_is_told(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain"), runs_per_gpu=2) == 0
    put(fake_slurm.root, PRETRAININGS[0], "failed", message="ValueError: no")
    capsys.readouterr()
    assert fake_slurm.run(PLAN) == 1
    out = capsys.readouterr().out
    assert "failed: toy pretrain ball seed 0: ValueError: no\n" in out
    assert "1 of 4 jobs submitted in 1 arrays; 0 were done and 1 in the queue before" in out
    assert fake_slurm.run(PLAN, retry_failed=True) == 3
    assert (
        "not submitted: toy pretrain ball seed 0: it has failed, and its job 101 is still in the queue; "
        "try again after that\n"
    ) in capsys.readouterr().out
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("finetune", 1, "afterok:101")]


def test_a_directory_of_another_specification_stops_everything(fake_slurm: FakeSlurm) -> None:
    job = PRETRAININGS[0]
    other = job.spec.model_copy(update={"versions": {"numpy": "1.0"}})
    put(fake_slurm.root, job.model_copy(update={"id": "0" * 16, "spec": other}), "queued")
    with pytest.raises(UserError, match=r"belongs to another run, which differs in versions\.numpy; add --rerun stale"):
        fake_slurm.run(PLAN)
    assert submitted(fake_slurm) == []


# --- What cannot be ---------------------------------------------------------------------------------


def test_without_squeue_s_answer_nothing_is_submitted(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("squeue.refusal", "squeue: a note\nsqueue: error: Unable to contact slurm controller\n")
    with pytest.raises(UserError) as error:
        fake_slurm.run(PLAN)
    assert str(error.value) == (
        "squeue --noheader failed: squeue: error: Unable to contact slurm controller; "
        "see whether the cluster is up: sinfo"
    )
    assert submitted(fake_slurm) == []
    assert not (fake_slurm.root / PRETRAININGS[0].path).exists()


def test_away_from_the_cluster_one_sentence_says_so(fake_slurm: FakeSlurm) -> None:
    fake_slurm.without("squeue")
    with pytest.raises(
        UserError, match="squeue is not on PATH; run this on a machine of the cluster, or load its module"
    ):
        fake_slurm.run(PLAN)


@pytest.mark.parametrize(
    ("name", "who"), [("100%", "Slurm takes"), ("a:b", "Python takes"), ("two\nlines", "a batch script takes")]
)
def test_names_of_folders_that_somebody_would_take_apart(
    fake_slurm: FakeSlurm, tmp_path: Path, name: str, who: str
) -> None:
    fake_slurm.root = tmp_path / name
    with pytest.raises(UserError, match=rf"which {who} for something else; give another folder with --runs"):
        fake_slurm.run(PLAN)
    assert not fake_slurm.root.exists()


def test_two_commands_wait_for_each_other(fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one looks only once the first is through; else both would submit everything."""
    first = record_of(
        ArrayPlan("urlbench-0000000000", "pretrain", ((PRETRAININGS[0],),), None), None, profile(), DIGEST, {}
    )
    records = Records(fake_slurm.root)
    second = threading.Thread(
        target=run_on_slurm,
        args=(toy_plan(phase="pretrain"), fake_slurm.root, profile()),
        kwargs={"retry_failed": False},
    )
    asked, flock = threading.Event(), fcntl.flock

    def ask(file: Any, how: int) -> None:
        asked.set()
        flock(file, how)

    with records.lock():
        monkeypatch.setattr(fcntl, "flock", ask)
        second.start()
        wait_until(lambda: asked.is_set() or not second.is_alive(), "the second one asks for the lock")
        assert asked.is_set()
        assert fake_slurm.calls("squeue") == []
        submit(first, records, CODE)
    second.join(HANG_SECONDS)
    assert submitted(fake_slurm) == [("pretrain", 1, None), ("pretrain", 1, None)]
    assert sorted(path for record in records.all() for (path,) in record.elements) == [job.path for job in PRETRAININGS]
