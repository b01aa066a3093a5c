"""`cancel`, `retry` and `plan` on a cluster, and options that do not go together."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Command
from slurm_fakes import FakeSlurm, fake_slurm, put, toy_plan
from toy_runs import PLUGIN

from urlbench.cli.overview import read_overview
from urlbench.core.jobs import Job, Plan
from urlbench.local import run as run_command
from urlbench.runs.store import RunDirectory
from urlbench.slurm import control
from urlbench.slurm.records import Records

__all__ = ["fake_slurm"]

PLAN = toy_plan(tasks=("ball_left",))
PRETRAININGS, FINETUNINGS = PLAN.jobs[:2], PLAN.jobs[2:]
TOY = ["--suite", "toy-states", "--agent", "toy", "--tasks", "ball_left", "--preset", "smoke", "--plugin", str(PLUGIN)]


@pytest.fixture
def runs(fake_slurm: FakeSlurm) -> list[str]:
    return ["--runs", str(fake_slurm.root)]


@pytest.fixture
def local_runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Plan, Any]]:
    """What would have been run on this machine: plan and `rerun`."""
    seen: list[tuple[Plan, Any]] = []

    def run_plan(plan: Plan, root: Path, options: object, rerun: Any) -> int:
        seen.append((plan, rerun))
        return 0

    monkeypatch.setattr(run_command, "run_plan", run_plan)
    return seen


def profile_file(folder: Path, text: str = "resources: {slot: 77m}\n") -> str:
    file = folder / "cluster.yaml"
    file.write_text(text)
    return str(file)


def ids(jobs: tuple[Job, ...]) -> list[str]:
    return [job.id for job in jobs]


# --- cancel -----------------------------------------------------------------------------------------


def test_cancel_all_takes_waiting_and_running_elements(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]
) -> None:
    assert fake_slurm.run(PLAN) == 0
    put(fake_slurm.root, PRETRAININGS[0], "done")
    fake_slurm.change("101_0", None)
    fake_slurm.change("101_1", "RUNNING")
    outcome = urlbench("cancel", "--all", *runs)
    assert outcome.code == 0
    assert sorted(" ".join(fake_slurm.calls("scancel")).split()) == ["101_1", "102_0", "102_1"]
    assert outcome.out.splitlines()[-4:] == [
        f"cancelled: 102_0, {FINETUNINGS[0].path}",
        f"cancelled: 102_1, {FINETUNINGS[1].path}",
        f"cancelled: 101_1, {PRETRAININGS[1].path}",
        "fine-tunings that wait for a cancelled pretraining leave the queue, too; to go on: the same run command",
    ]


@pytest.mark.parametrize("name", ["id", "path", "folder"])
def test_cancel_one_run_by_its_name(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], name: str) -> None:
    assert fake_slurm.run(PLAN) == 0
    job = PRETRAININGS[1]
    given = {"id": job.id[:8], "path": job.path, "folder": str(fake_slurm.root / job.path)}[name]
    assert urlbench("cancel", given, *runs).code == 0
    assert fake_slurm.calls("scancel") == ["101_1"]


def test_cancel_by_agent(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    assert fake_slurm.run(toy_plan(agents=("toy", "toy-fail"), phase="pretrain", seeds=(0,))) == 0
    assert urlbench("cancel", "--agent", "toy-fail", *runs).code == 0
    assert fake_slurm.calls("scancel") == ["101_1"]


@pytest.mark.parametrize("agent", ["toy", "toy-cautious"])
def test_cancelling_one_agent_leaves_the_pretraining_that_another_waits_for(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], agent: str
) -> None:
    plan = toy_plan(agents=("toy", "toy-cautious"), seeds=(0,), tasks=("ball_left",))
    assert fake_slurm.run(plan) == 0
    assert urlbench("cancel", "--agent", agent, *runs).code == 0
    own = {"toy": "102_0", "toy-cautious": "102_1"}
    assert fake_slurm.calls("scancel") == [own[agent]]
    for job_id in own.values():
        fake_slurm.change(job_id, None)
    assert urlbench("cancel", "--agent", "toy,toy-cautious", *runs).code == 0
    assert fake_slurm.calls("scancel") == ["101"]


def test_a_plain_job_has_no_index(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0,))) == 0
    assert urlbench("cancel", "--all", *runs).code == 0
    assert fake_slurm.calls("scancel") == ["101"]


def test_cancelling_a_run_of_a_pack_names_the_others(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain"), runs_per_gpu=2) == 0
    outcome = urlbench("cancel", PRETRAININGS[0].id, *runs)
    assert outcome.out.splitlines()[-2] == f"cancelled: 101, {PRETRAININGS[0].path}, {PRETRAININGS[1].path}"
    assert fake_slurm.calls("scancel") == ["101"]


def test_many_ids_go_in_batches(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "_MOST_IDS", 2)
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0, 1, 2, 3, 4))) == 0
    assert urlbench("cancel", "--all", *runs).code == 0
    assert fake_slurm.calls("scancel") == ["101_0 101_1", "101_2 101_3", "101_4"]


def test_nothing_in_the_queue_is_an_error(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "queued")
    sentence = "none of these runs is in a cluster's queue; runs on this machine are stopped by Ctrl-C."
    for _ in range(2):
        outcome = urlbench("cancel", "--all", *runs)
        assert (outcome.code, sentence in outcome.err) == (2, True)
        (fake_slurm.root / ".slurm").mkdir(exist_ok=True)
    assert fake_slurm.calls("scancel") == []


def test_a_run_of_another_folder_is_not_cancelled(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], tmp_path: Path
) -> None:
    assert fake_slurm.run(PLAN) == 0
    other = put(tmp_path / "others", PRETRAININGS[0], "queued")
    outcome = urlbench("cancel", str(other.path), *runs)
    assert (outcome.code, "does not lie below the runs folder" in outcome.err) == (2, True)
    assert fake_slurm.calls("scancel") == []


@pytest.mark.parametrize("program", ["squeue", "scancel"])
def test_a_cluster_that_does_not_answer(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], program: str
) -> None:
    assert fake_slurm.run(PLAN) == 0
    fake_slurm.write(f"{program}.refusal", f"{program}: error: Unable to contact slurm controller\n")
    outcome = urlbench("cancel", "--all", *runs)
    assert outcome.code == 2
    assert f"failed: {program}: error: Unable to contact slurm controller" in outcome.err


def test_cancel_wants_to_know_what(urlbench: Command, runs: list[str]) -> None:
    outcome = urlbench("cancel", *runs)
    assert outcome.code == 2
    assert "name the runs to cancel, or choose them with --suite, --agent or --preset, or give --all." in outcome.err


# --- retry ------------------------------------------------------------------------------------------


def test_retry_runs_failed_runs_and_what_waits_for_them_on_this_machine(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], local_runs: list[tuple[Plan, Any]]
) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "failed")
    put(fake_slurm.root, FINETUNINGS[0], "queued")
    put(fake_slurm.root, PRETRAININGS[1], "done")
    put(fake_slurm.root, FINETUNINGS[1], "failed")
    put(fake_slurm.root, toy_plan(seeds=(2,)).jobs[0], "interrupted")
    assert urlbench("retry", "--failed", *runs).code == 0
    ((plan, rerun),) = local_runs
    assert ids(plan.jobs) == ids((PRETRAININGS[0], *FINETUNINGS))
    assert rerun == "failed"
    assert fake_slurm.calls("squeue") == []


def failed_on_the_cluster(fake: FakeSlurm) -> None:
    """A pretraining that failed on the cluster, whose fine-tuning has left the queue."""
    assert fake.run(toy_plan(tasks=("ball_left",), seeds=(0,)), threads=3) == 0
    fake.write("queue", "")
    fake.write("accounting", "")
    put(fake.root, PRETRAININGS[0], "failed", message="ValueError: no")


def test_retry_submits_with_the_profile_of_before(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    failed_on_the_cluster(fake_slurm)
    outcome = urlbench("retry", "--failed", *runs)
    assert outcome.code == 0, outcome.err
    _, _, again, after = Records(fake_slurm.root).all()
    assert again.elements == ((PRETRAININGS[0].path,),)
    assert (after.elements, after.dependency) == (((FINETUNINGS[0].path,),), "afterok:103")
    assert (again.profile.threads, again.profile.runs_per_gpu) == (3, 1)
    status = RunDirectory(fake_slurm.root / PRETRAININGS[0].path).read_status()
    assert status is not None
    assert (status.state, status.message) == ("queued", "")
    assert "nothing to do: no run has failed" in urlbench("retry", "--failed", *runs).out


def test_retry_with_another_profile_and_packs(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], tmp_path: Path
) -> None:
    failed_on_the_cluster(fake_slurm)
    options = ["--cluster", profile_file(tmp_path), "--executor", "slurm", "--runs-per-gpu", "2"]
    assert urlbench("retry", "--failed", *runs, *options).code == 0
    used = Records(fake_slurm.root).all()[-1].profile
    assert (used.resources.slot_minutes, used.runs_per_gpu, used.threads) == (77, 2, 1)


def test_retry_on_this_machine_what_failed_on_the_cluster(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], local_runs: list[tuple[Plan, Any]]
) -> None:
    failed_on_the_cluster(fake_slurm)
    assert urlbench("retry", "--failed", "--executor", "local", "--workers", "1", *runs).code == 0
    assert [ids(plan.jobs) for plan, _ in local_runs] == [ids((PRETRAININGS[0], FINETUNINGS[0]))]
    assert len(fake_slurm.scripts()) == 2


def test_retry_does_not_drop_options_of_this_machine(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    failed_on_the_cluster(fake_slurm)
    outcome = urlbench("retry", "--failed", "--workers", "1", *runs)
    assert (outcome.code, "--workers is for runs on this machine" in outcome.err) == (2, True)
    assert len(fake_slurm.scripts()) == 2


def test_retry_on_a_cluster_that_was_never_used_needs_a_profile(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]
) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "failed")
    outcome = urlbench("retry", "--failed", "--executor", "slurm", *runs)
    assert (outcome.code, "needs a profile of the cluster" in outcome.err) == (2, True)


def test_retry_without_a_failure_does_nothing(fake_slurm: FakeSlurm, urlbench: Command, runs: list[str]) -> None:
    put(fake_slurm.root, PRETRAININGS[0], "interrupted")
    outcome = urlbench("retry", "--failed", *runs)
    assert (outcome.code, outcome.out) == (0, "nothing to do: no run has failed\n")
    asked = urlbench("retry", *runs)
    assert (asked.code, "say what to run again: urlbench retry --failed" in asked.err) == (2, True)


# --- run and plan -----------------------------------------------------------------------------------


def test_run_submits_and_rerun_stale_moves_others_aside(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], tmp_path: Path
) -> None:
    job = PRETRAININGS[0]
    other = job.spec.model_copy(update={"versions": {"numpy": "1.0"}})
    put(fake_slurm.root, job.model_copy(update={"id": "0" * 16, "spec": other}), "queued")
    command = ["run", *TOY, "--seeds", "2", "--executor", "slurm", "--cluster", profile_file(tmp_path), *runs]
    assert "which differs in versions.numpy; add --rerun stale" in urlbench(*command).err
    outcome = urlbench(*command, "--rerun", "stale", "--runs-per-gpu", "2")
    assert outcome.code == 0, outcome.err
    assert "moved aside: " in outcome.out
    assert "4 of 4 jobs submitted in 2 arrays" in outcome.out
    assert {run.cluster_job for run in read_overview(fake_slurm.root).runs} == {"101", "102"}


def test_plan_shows_the_arrays_and_submits_nothing(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], tmp_path: Path
) -> None:
    command = ["plan", *TOY, "--seeds", "3", "--executor", "slurm", "--cluster", profile_file(tmp_path), *runs]
    fake_slurm.write("config", "MaxArraySize = 2\n")
    outcome = urlbench(*command)
    assert outcome.code == 0, outcome.err
    arrays = [
        "array: 2 pretrain runs in 2 elements, ball, slots of 77 min",
        "array: 1 pretrain runs in 1 element, ball, slots of 77 min",
        "array: 2 finetune runs in 2 elements, ball_left from 100, slots of 77 min, each after its pretraining",
        "array: 1 finetune runs in 1 element, ball_left from 100, slots of 77 min, after its pretraining",
    ]
    assert outcome.out.splitlines()[-4:] == arrays
    assert json.loads(urlbench(*command, "--json").out)["arrays"] == arrays
    assert fake_slurm.scripts() == []
    assert not fake_slurm.root.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cluster", "FILE"], "--cluster is read with --executor slurm only; add that, or leave --cluster away."),
        (
            ["--executor", "slurm"],
            "--executor slurm needs a profile of the cluster; give its YAML file with --cluster.",
        ),
        (["--executor", "slurm", "--cluster", "nowhere.yaml"], "cannot read the cluster profile 'nowhere.yaml'"),
        (
            ["--executor", "slurm", "--cluster", "FILE", "--workers", "2"],
            "--workers is for runs on this machine; with --executor slurm the cluster profile says",
        ),
        (
            ["--executor", "slurm", "--cluster", "FILE", "--threads", "2", "--device", "cpu", "--env-workers", "2"],
            "--threads and --device and --env-workers are for runs on this machine",
        ),
        (["--executor", "slurm", "--cluster", "FILE", "--runs-per-gpu", "0"], "--runs-per-gpu 0 is too few"),
        (["--executor", "slurm", "--cluster", "FILE", "--fail-fast"], "--fail-fast is for runs on this machine"),
    ],
)
def test_options_that_do_not_go_together(
    fake_slurm: FakeSlurm, urlbench: Command, runs: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    given = [profile_file(tmp_path) if option == "FILE" else option for option in options]
    outcome = urlbench("run", *TOY, "--seeds", "1", *given, *runs)
    assert outcome.code == 2
    assert message in outcome.err
    assert fake_slurm.scripts() == []
