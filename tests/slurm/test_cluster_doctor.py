"""What the doctor says of a cluster: of Slurm's answers, and of what the job that it submits leaves behind.

Slurm is a folder of small scripts here, but for the last test, which asks a real one.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from processes import HANG_SECONDS
from slurm_cluster import SlurmCluster
from slurm_fakes import CODE, DIGEST, FIRST_ID, FakeSlurm, fake_slurm

from urlbench.cli import app as cli
from urlbench.local.check import Check
from urlbench.slurm import cluster_doctor
from urlbench.slurm.cluster_doctor import run_cluster_checks
from urlbench.slurm.profile import Profile, load_profile

__all__ = ["fake_slurm"]

CONFIGURATION = {
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "ClusterName": "fake",
    "JobRequeue": "1",
    "KillWait": "30 sec",
    "MaxArraySize": "1001",
    "PreemptMode": "OFF",
    "PreemptType": "preempt/none",
    "SLURM_VERSION": "23.11.4",
}
PARTITIONS = [
    "PartitionName=cpu AllowGroups=ALL Default=NO MaxTime=UNLIMITED State=UP TotalNodes=9 TRESBillingWeights=CPU=1.0",
    "PartitionName=gpu AllowGroups=ALL Default=YES MaxTime=1-12:00:00 State=UP TotalNodes=4",
    "PartitionName=old AllowGroups=ALL Default=NO MaxTime=UNLIMITED State=DRAIN TotalNodes=1",
]
# What a healthy node leaves in the folder of the probe.
FOUND_OK = json.dumps([{"name": "node", "result": "ok", "detail": "node7, 8 cores"}])
RESTARTED_OK = json.dumps({"host": "node8", "restarts": 1})


def configure(fake: FakeSlurm, **changes: str) -> None:
    """What `scontrol show config` says."""
    lines = [f"{name:<24}= {value}" for name, value in (CONFIGURATION | changes).items()]
    fake.write("config", "\n".join(["Configuration data as of today", *lines]))


def queue(fake: FakeSlurm, state: str) -> None:
    """What squeue says of the job; nothing once it has ended."""
    fake.write("state", state)


def job(fake: FakeSlurm, **files: str) -> None:
    """What the job writes, at once, into the folder of the probe; a log if it writes anything."""
    lines = ['folder=$(dirname "$(dirname "$1")")']
    lines += [f"echo '{content}' > \"$folder\"/{name.replace('__', '.')}" for name, content in files.items()]
    lines += [f'echo words > "$folder/log/{FIRST_ID}_0_log.out"'] if files else []
    fake.write("before", "\n".join(lines))


@pytest.fixture
def fake(fake_slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake_slurm.script("scontrol", 'case "$*" in *partition) cat partitions;; *) cat config;; esac')
    fake_slurm.script("squeue", "cat state")
    fake_slurm.write("partitions", "\n".join(PARTITIONS))
    configure(fake_slurm)
    queue(fake_slurm, "")
    monkeypatch.setattr(cluster_doctor, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster_doctor, "_LATE_FILE_SECONDS", 0.05)
    monkeypatch.setattr(cluster_doctor, "installed", dict)
    monkeypatch.setattr(cluster_doctor, "take_snapshot", lambda folder: (CODE, DIGEST))
    return fake_slurm


def profile_of(folder: Path, text: str = "resources: {slot: 4h}") -> Profile:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return load_profile(path)


def diagnose(root: Path, text: str = "resources: {slot: 4h}", wait: float = 20) -> list[Check]:
    return list(run_cluster_checks(profile_of(root.parent, text), root, wait))


def problems(checks: Sequence[Check]) -> list[str]:
    return [str(check) for check in checks if check.result != "ok"]


def test_a_ready_cluster_has_no_problems_and_nothing_is_left_behind(fake: FakeSlurm) -> None:
    job(fake, found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    checks = diagnose(fake.root, "resources: {slot: 4h, cpus: 2, gpus: 1, partition: 'cpu,gpu', extra: {nice: 10}}")
    assert problems(checks) == []
    assert {check.name: check.detail for check in checks} == {
        "commands": "sbatch, srun, squeue, scancel, scontrol",
        "controller": "Slurm 23.11.4, cluster fake",
        "partition cpu": "UP, longest slot UNLIMITED, 9 nodes",
        "partition gpu": "UP, longest slot 1-12:00:00, 4 nodes",
        "arrays": "of at most 1001 elements (MaxArraySize=1001)",
        "requeueing": "on (JobRequeue=1), KillWait 30 sec",
        "preemption": "none",
        "accounting": "accounting_storage/slurmdbd",
        "job": "101 submitted as for pretrain; waiting at most 20 s for its two starts",
        "node": "node7, 8 cores",
        "end of a slot": "announced, and queued again; restart 1 on node8",
    }
    (script,) = fake.scripts()
    options = {line for line in script.splitlines() if line.startswith("#SBATCH")}
    wanted = ("cpus-per-task=2", "gpus-per-node=1", "partition=cpu,gpu", "nice=10", "time=15", "signal=USR2@120")
    assert options >= {f"#SBATCH --{option}" for option in (*wanted, "requeue")}
    assert not fake.calls("scancel")
    assert not fake.root.exists()


def test_other_files_of_the_runs_folder_stay(fake: FakeSlurm) -> None:
    job(fake, found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    (fake.root / ".slurm" / "urlbench-1").mkdir(parents=True)
    diagnose(fake.root)
    assert [path.name for path in (fake.root / ".slurm").iterdir()] == ["urlbench-1"]


@pytest.mark.parametrize(
    ("profile", "configuration", "problem"),
    [
        (
            "resources: {slot: 4h, partition: gpus}",
            {},
            "failed   partition gpus: unknown partition 'gpus' .* 'gpu'",
        ),
        ("resources: {slot: 4h, partition: old}", {}, "failed   partition old: DRAIN, .*; wait until it is up"),
        (
            "resources: {slot: 4h}\npretrain: {slot: 2d}",
            {},
            "failed   partition gpu: UP, longest slot 1-12:00:00, and the profile asks for 2880 min; give a shorter",
        ),
        (
            "resources: {slot: 4h}\nmax_array_size: 2000",
            {},
            r"failed   arrays: of at most 1001 .* max_array_size \(2000\)",
        ),
    ],
)
def test_no_job_is_tried_on_a_cluster_that_cannot_run_any(
    profile: str, configuration: dict[str, str], problem: str, fake: FakeSlurm, tmp_path: Path
) -> None:
    configure(fake, **configuration)
    first, second = problems(diagnose(fake.root, profile))
    assert re.match(problem, first)
    assert second == "warning  job: none was tried; put the above right first"
    assert not fake.calls("sbatch")


def test_a_cluster_without_a_default_partition(fake: FakeSlurm) -> None:
    fake.write("partitions", PARTITIONS[0])
    assert problems(diagnose(fake.root))[0].startswith(
        "failed   partition: the cluster has no default partition; name one"
    )


def test_what_a_cluster_does_worse_than_others_is_a_warning(fake: FakeSlurm) -> None:
    job(fake, found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    preemption = {"PreemptMode": "CANCEL", "PreemptType": "preempt/qos"}
    changes = {"JobRequeue": "0", "MaxArraySize": "0", "AccountingStorageType": "accounting_storage/none"}
    configure(fake, **changes, **preemption)
    found = problems(diagnose(fake.root))
    assert [line.partition(";")[0] for line in found] == [
        "warning  arrays: switched off (MaxArraySize=0), so every job is submitted alone, which takes long",
        "warning  requeueing: off unless a job asks for it, as those of urlbench do (JobRequeue=0), KillWait 30 sec",
        "warning  preemption: CANCEL (preempt/qos): preempted jobs are cancelled",
        "warning  accounting: none: how a lost job ended is only known from its log",
    ]


def test_what_the_caller_has_set_for_slurm_reaches_no_command(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = ("SBATCH_TIMELIMIT", "SLURM_MEM_PER_CPU", "SLURM_JOB_ID", "SRUN_EXPORT_ENV", "SQUEUE_STATES")
    for name in mine:
        monkeypatch.setenv(name, "12")
    job(fake, found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    assert problems(diagnose(fake.root)) == []
    for program in ("sbatch", "squeue", "scontrol"):
        seen = {line.partition("=")[0] for line in fake.read(f"environment of {program}").splitlines()}
        assert "PATH" in seen
        assert seen.isdisjoint(mine), program


def test_a_job_in_a_hidden_partition_is_waited_for(fake: FakeSlurm) -> None:
    fake.script("squeue", 'case " $* " in *" --all "*) cat state;; esac')
    queue(fake, "PENDING (Resources)")
    (found,) = problems(diagnose(fake.root, wait=0.1))
    assert found.startswith("failed   job: 101 did not start within 0 s: PENDING (Resources)")


def test_missing_commands_are_named(fake: FakeSlurm) -> None:
    fake.without("sbatch")
    fake.without("squeue")
    (found,) = problems(diagnose(fake.root))
    assert found.startswith(
        "failed   commands: not on PATH: sbatch, squeue; go to a machine of the cluster that submits jobs"
    )


def test_a_controller_that_does_not_answer_gives_its_reason(fake: FakeSlurm) -> None:
    fake.write("scontrol.refusal", "Unable to contact slurm controller")
    (found,) = problems(diagnose(fake.root))
    assert found.startswith("failed   controller: scontrol show failed: Unable to contact slurm controller; ")


def test_a_refused_job_gives_the_reason_and_leaves_nothing(fake: FakeSlurm) -> None:
    fake.write("sbatch.refusal", "sbatch: error: Invalid account specified")
    assert problems(diagnose(fake.root)) == [
        "failed   job: sbatch refused it: Invalid account specified; correct the profile, then run the doctor again."
    ]
    assert not fake.root.exists()


def test_a_runs_folder_that_cannot_be_written_is_named(fake: FakeSlurm) -> None:
    fake.root.mkdir()
    (fake.root / ".slurm").write_text("")
    (found,) = problems(diagnose(fake.root))
    assert found.startswith("failed   job: ")
    assert ".slurm/doctor-" in found
    assert found.endswith("make it writable and run the doctor again.")


def test_a_job_that_does_not_start_is_cancelled_and_slurms_reason_shown(fake: FakeSlurm) -> None:
    queue(fake, "PENDING (Resources)")
    (found,) = problems(diagnose(fake.root, wait=0.1))
    assert found.startswith(
        "failed   job: 101 did not start within 0 s: PENDING (Resources); it was cancelled, give it more"
    )
    assert fake.calls("scancel") == [str(FIRST_ID)]
    assert not fake.root.exists()


@pytest.mark.parametrize(
    ("files", "state", "problem"),
    [
        ({}, "", "failed   job: 101 ended without a word; give --runs a folder on a disk that all nodes share"),
        ({"other": ""}, "", "failed   job: 101 ended before its checks did; see "),
        (
            {"other": ""},
            "RUNNING (None)",
            "failed   job: 101 did not end its checks within 0 s: RUNNING (None); it",
        ),
        (
            {"found__json": FOUND_OK},
            "",
            "failed   end of a slot: USR2, which announces the end of a slot, does not reach",
        ),
        (
            {"found__json": FOUND_OK, "told": ""},
            "",
            "failed   end of a slot: announced, but the job could not be",
        ),
        (
            {"found__json": FOUND_OK, "told": ""},
            "PENDING (BeginTime)",
            "failed   end of a slot: announced, but not started again within 0 s: PENDING (BeginTime); it was",
        ),
    ],
)
def test_a_job_that_stops_on_its_way_is_told_with_its_log(
    files: dict[str, str], state: str, problem: str, fake: FakeSlurm, tmp_path: Path
) -> None:
    job(fake, **files)
    queue(fake, state)
    found = problems(diagnose(fake.root, wait=0.1))
    assert found[0].startswith(problem)
    assert fake.calls("scancel") == ([str(FIRST_ID)] if state else [])
    if files:
        (folder,) = (fake.root / ".slurm").iterdir()
        assert found[1:] == [f"warning  job: its files are kept; remove them when all is well: {folder}"]
        assert "see " not in problem or str(folder / "log" / "101_0_log.out") in found[0]


def test_what_is_wrong_on_the_node_keeps_the_files(fake: FakeSlurm) -> None:
    broken = json.dumps([{"name": "node GPUs", "result": "failed", "detail": "none"}])
    job(fake, found__json=broken, told="", restarted__json=RESTARTED_OK)
    found = problems(diagnose(fake.root))
    assert found[0] == "failed   node GPUs: none"
    assert "its files are kept" in found[1]


def test_a_wait_without_a_cluster_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", "--wait", "5"])
    assert "--wait is for the job of --cluster; add that, or leave --wait away." in capsys.readouterr().err


def test_the_command_ends_with_1_if_something_failed(fake: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    profile_of(fake.root.parent)
    arguments = ["doctor", "--cluster", str(fake.root.parent / "cluster.yaml"), "--runs", str(fake.root), "--wait", "1"]
    with pytest.raises(SystemExit, match="1"):
        cli.main([*arguments, "--json"])
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["name"], last["result"]) == ("job", "failed")
    job(fake, found__json=FOUND_OK, told="", restarted__json=RESTARTED_OK)
    with pytest.raises(SystemExit, match="0"):
        cli.main(arguments)
    assert "ok       node: node7, 8 cores\n" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_cluster_is_ready(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (slurm.environment() | {"PYTHONPATH": str(Path(cli.__file__).parents[2])}).items():
        monkeypatch.setenv(name, value)
    text = "resources: {slot: 1h, cpus: 2, memory_gib: 1}\nsetup: ['export OMP_NUM_THREADS=1']"
    checks = diagnose(tmp_path / "my runs", text, wait=HANG_SECONDS)
    details = {check.name: check.detail for check in checks}
    assert [line for line in problems(checks) if not line.startswith(("warning  accounting", "warning  node r"))] == []
    assert details["end of a slot"].startswith("announced, and queued again; restart 1 on ")
    assert details["node environment"].startswith("walker_walk made a step")
    assert details["node code"].endswith("the copy that was submitted")
    assert not (tmp_path / "my runs").exists()
    slurm.wait_until(lambda: set(slurm.squeue().values()) == {"COMPLETED"}, "its job is done")
