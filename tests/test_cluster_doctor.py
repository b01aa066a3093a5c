"""What the doctor says of a cluster: of Slurm's answers, of the job that it submits, and of what that finds on a node.

Slurm is a folder of small scripts here, but for the last test, which asks a real one.
"""

import fcntl
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster

from urlbench import cli
from urlbench.check import Check
from urlbench.slurm import cluster_doctor, cluster_probe
from urlbench.slurm.cluster_doctor import run_cluster_checks
from urlbench.slurm.cluster_probe import FOUND, LOCK, RESTARTED, TOKEN, TOLD, Probe
from urlbench.slurm.profile import Profile, load_profile

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
PACKAGES = {"numpy": "2.3.5", "torch": "2.13.0"}
RESTARTED_OK = json.dumps({"host": "node8", "restarts": 1})


class FakeSlurm:
    """Slurm's commands as scripts in the first folder on PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.configure()
        (folder / "partitions").write_text("\n".join(PARTITIONS))
        self.script(
            "scontrol", f'case "$*" in *partition) cat {folder}/partitions;; *) cat {folder}/configuration;; esac'
        )
        self.script("scancel", f"echo $* >> {folder}/cancelled")
        self.script("srun", "exit 1")
        self.queue("")
        self.job()

    def script(self, name: str, text: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{text}\n")
        (self.folder / name).chmod(0o755)

    def configure(self, **changes: str) -> None:
        lines = [f"{name:<24}= {value}" for name, value in (CONFIGURATION | changes).items()]
        (self.folder / "configuration").write_text("\n".join(["Configuration data as of today", *lines]))

    def queue(self, state: str) -> None:
        """What squeue says of the job."""
        self.script("squeue", f"echo '{state}'")

    def job(self, **files: str) -> None:
        """What the job writes, at once, into the folder of the probe; a log if it writes anything."""
        lines = [f"cp $1 {self.folder}/submitted", "folder=$(dirname $(dirname $1))"]
        lines += [f"echo '{content}' > $folder/{name.replace('__', '.')}" for name, content in files.items()]
        lines += ["echo words > $folder/log/7_0_log.out"] if files else []
        self.script("sbatch", "\n".join([*lines, "echo Submitted batch job 7"]))

    @property
    def submitted(self) -> str:
        file = self.folder / "submitted"
        return file.read_text() if file.exists() else ""

    @property
    def cancelled(self) -> str:
        file = self.folder / "cancelled"
        return file.read_text().strip() if file.exists() else ""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(fake.folder))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setattr(cluster_doctor, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster_doctor, "_LATE_FILE_SECONDS", 0.05)
    monkeypatch.setattr(cluster_doctor, "installed", lambda: PACKAGES)
    monkeypatch.setattr(cluster_doctor, "take_snapshot", lambda folder: (folder / "copy", "0" * 64))
    return fake


def profile_of(folder: Path, text: str = "resources: {slot: 4h}") -> Profile:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return load_profile(path)


def diagnose(folder: Path, text: str = "resources: {slot: 4h}", wait: float = 20) -> list[Check]:
    return list(run_cluster_checks(profile_of(folder, text), folder / "runs", wait))


def problems(checks: Sequence[Check]) -> list[str]:
    return [f"{check.result} {check.name}: {check.detail}" for check in checks if check.result != "ok"]


def test_a_ready_cluster_has_no_problems_and_nothing_is_left_behind(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.job(found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    checks = diagnose(tmp_path, "resources: {slot: 4h, cpus: 2, gpus: 1, partition: 'cpu,gpu', extra: {nice: 10}}")
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
        "job": "7 submitted as for pretrain; waiting at most 20 s for its two starts",
        "node": "node7, 8 cores",
        "end of a slot": "announced, and queued again; restart 1 on node8",
    }
    options = {line for line in fake.submitted.splitlines() if line.startswith("#SBATCH")}
    wanted = ("cpus-per-task=2", "gpus-per-node=1", "partition=cpu,gpu", "nice=10", "time=15", "signal=USR2@120")
    assert options >= {f"#SBATCH --{option}" for option in (*wanted, "requeue")}
    assert not fake.cancelled
    assert not (tmp_path / "runs").exists()


def test_other_files_of_the_runs_folder_stay(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.job(found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    (tmp_path / "runs" / ".slurm" / "urlbench-1").mkdir(parents=True)
    diagnose(tmp_path)
    assert [path.name for path in (tmp_path / "runs" / ".slurm").iterdir()] == ["urlbench-1"]


@pytest.mark.parametrize(
    ("profile", "configuration", "problem"),
    [
        ("resources: {slot: 4h, partition: gpus}", {}, "failed partition gpus: unknown partition 'gpus' .* mean 'gpu'"),
        ("resources: {slot: 4h, partition: old}", {}, "failed partition old: DRAIN, .*; wait until it is up"),
        (
            "resources: {slot: 4h}\npretrain: {slot: 2d}",
            {},
            "failed partition gpu: UP, longest slot 1-12:00:00, and the profile asks for 2880 min; give a shorter slot",
        ),
        ("resources: {slot: 4h}", {"MaxArraySize": "0"}, r"failed arrays: switched off \(MaxArraySize=0\); ask"),
        (
            "resources: {slot: 4h}\nmax_array_size: 2000",
            {},
            r"failed arrays: of at most 1001 .* max_array_size \(2000\)",
        ),
    ],
)
def test_no_job_is_tried_on_a_cluster_that_cannot_run_any(
    profile: str, configuration: dict[str, str], problem: str, fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.configure(**configuration)
    first, second = problems(diagnose(tmp_path, profile))
    assert re.match(problem, first)
    assert second == "warning job: none was tried; put the above right first"
    assert not fake.submitted


def test_a_cluster_without_a_default_partition(fake: FakeSlurm, tmp_path: Path) -> None:
    (fake.folder / "partitions").write_text(PARTITIONS[0])
    assert problems(diagnose(tmp_path))[0].startswith(
        "failed partition: the cluster has no default partition; name one"
    )


def test_what_a_cluster_does_worse_than_others_is_a_warning(
    fake: FakeSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.job(found__json=FOUND_OK, told="node7", restarted__json=RESTARTED_OK)
    preemption = {"PreemptMode": "CANCEL", "PreemptType": "preempt/qos"}
    fake.configure(JobRequeue="0", AccountingStorageType="accounting_storage/none", **preemption)
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    found = problems(diagnose(tmp_path))
    assert [line.partition(";")[0] for line in found] == [
        "warning commands: called inside job 12, whose variables would reach the jobs that are submitted",
        "warning requeueing: off unless a job asks for it, as those of urlbench do (JobRequeue=0), KillWait 30 sec",
        "warning preemption: CANCEL (preempt/qos): preempted jobs are cancelled",
        "warning accounting: none: how a lost job ended is only known from its log",
    ]


def test_missing_commands_are_named(fake: FakeSlurm, tmp_path: Path) -> None:
    (fake.folder / "sbatch").unlink()
    (fake.folder / "squeue").unlink()
    (found,) = problems(diagnose(tmp_path))
    assert found.startswith(
        "failed commands: not on PATH: sbatch, squeue; go to a machine of the cluster that submits jobs"
    )


def test_a_controller_that_does_not_answer_gives_its_reason(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.script("scontrol", "echo Unable to contact slurm controller >&2; exit 1")
    (found,) = problems(diagnose(tmp_path))
    assert found.startswith("failed controller: scontrol show failed: Unable to contact slurm controller; ")


def test_a_refused_job_gives_the_reason_and_leaves_nothing(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.script("sbatch", "echo sbatch: error: Invalid account specified >&2; exit 1")
    assert problems(diagnose(tmp_path)) == [
        "failed job: sbatch refused it: Invalid account specified; correct the profile, then run the doctor again."
    ]
    assert not (tmp_path / "runs").exists()


def test_a_runs_folder_that_cannot_be_written_is_named(fake: FakeSlurm, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / ".slurm").write_text("")
    (found,) = problems(diagnose(tmp_path))
    assert found.startswith("failed job: ")
    assert ".slurm/doctor-" in found
    assert found.endswith("make it writable and run the doctor again.")


def test_a_job_that_does_not_start_is_cancelled_and_slurms_reason_shown(fake: FakeSlurm, tmp_path: Path) -> None:
    fake.queue("PENDING (Resources)")
    assert problems(diagnose(tmp_path, wait=0.1)) == [
        "failed job: 7 did not start within 0 s: PENDING (Resources); it was cancelled, give it more time with --wait"
    ]
    assert fake.cancelled == "7"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("files", "state", "problem"),
    [
        ({}, "", "failed job: 7 ended without a word; give --runs a folder on a disk that all nodes share"),
        ({"other": ""}, "", "failed job: 7 ended before its checks did; see "),
        ({"other": ""}, "RUNNING (None)", "failed job: 7 did not end its checks within 0 s: RUNNING (None); it was"),
        (
            {"found__json": FOUND_OK},
            "",
            "failed end of a slot: USR2, which announces the end of a slot, does not reach",
        ),
        ({"found__json": FOUND_OK, "told": ""}, "", "failed end of a slot: announced, but the job could not be queued"),
        (
            {"found__json": FOUND_OK, "told": ""},
            "PENDING (BeginTime)",
            "failed end of a slot: announced, but not started again within 0 s: PENDING (BeginTime); it was cancelled",
        ),
    ],
)
def test_a_job_that_stops_on_its_way_is_told_with_its_log(
    files: dict[str, str], state: str, problem: str, fake: FakeSlurm, tmp_path: Path
) -> None:
    fake.job(**files)
    fake.queue(state)
    found = problems(diagnose(tmp_path, wait=0.1))
    assert found[0].startswith(problem)
    assert fake.cancelled == ("7" if state else "")
    if files:
        (folder,) = (tmp_path / "runs" / ".slurm").iterdir()
        assert found[1:] == [f"warning job: its files are kept; remove them when all is well: {folder}"]
        assert "see " not in problem or str(folder / "log" / "7_0_log.out") in found[0]


def test_what_is_wrong_on_the_node_keeps_the_files(fake: FakeSlurm, tmp_path: Path) -> None:
    broken = json.dumps([{"name": "node GPUs", "result": "failed", "detail": "none"}])
    fake.job(found__json=broken, told="", restarted__json=RESTARTED_OK)
    found = problems(diagnose(tmp_path))
    assert found[0] == "failed node GPUs: none"
    assert "its files are kept" in found[1]


def test_a_wait_without_a_cluster_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["doctor", "--wait", "5"])
    assert "--wait is for the job of --cluster; add that, or leave --wait away." in capsys.readouterr().err


def test_the_command_ends_with_1_if_something_failed(
    fake: FakeSlurm, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    profile_of(tmp_path)
    arguments = ["doctor", "--cluster", str(tmp_path / "cluster.yaml"), "--runs", str(tmp_path / "runs"), "--wait", "1"]
    with pytest.raises(SystemExit, match="1"):
        cli.main([*arguments, "--json"])
    last = json.loads(capsys.readouterr().out)[-1]
    assert (last["name"], last["result"]) == ("job", "failed")
    fake.job(found__json=FOUND_OK, told="", restarted__json=RESTARTED_OK)
    with pytest.raises(SystemExit, match="0"):
        cli.main(arguments)
    assert "ok       node: node7, 8 cores\n" in capsys.readouterr().out


# --- On the node ------------------------------------------------------------------------------------


DOCTOR_OK = json.dumps(
    [{"name": "torch", "result": "ok", "detail": "2.0"}, {"name": "packages", "result": "ok", "detail": ""}]
)


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a probe that finds everything right."""
    folder = tmp_path / "probe"
    folder.mkdir()
    (folder / TOKEN).write_text("abc")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr(cluster_probe, "code_snapshot", lambda: {"sha256": "c0de"})
    monkeypatch.setattr(cluster_probe, "installed", lambda: PACKAGES)
    answer(monkeypatch, doctor=DOCTOR_OK, gpus="2")
    return folder


def answer(monkeypatch: pytest.MonkeyPatch, doctor: str, gpus: str, error: str = "") -> None:
    """What the processes say that the probe starts."""

    def run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return subprocess.CompletedProcess(command, 0, gpus if "-c" in command else doctor, error)

    monkeypatch.setattr(cluster_probe, "_run", run)


def probe(folder: Path, text: str = "resources: {slot: 4h, gpus: 2}", **changes: Any) -> Probe:
    given = {"token": "abc", "code": "c0de", "packages": PACKAGES, **changes}
    return Probe(folder, folder.parent, profile=profile_of(folder.parent, text), **given)


def look(folder: Path, text: str = "resources: {slot: 4h, gpus: 2}", **changes: Any) -> list[Check]:
    with (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return list(probe(folder, text, **changes).checks())


def test_a_node_that_is_ready(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DISK", str(node.parent))
    checks = look(node, "resources: {slot: 4h, gpus: 2}\nscratch: $MY_DISK")
    assert problems(checks) == []
    details = {check.name: check.detail for check in checks}
    assert details["node GPUs"] == "Slurm gives 2, torch can use 2"
    assert details["node scratch"] == f"{node.parent} can be written"
    assert details["node torch"] == "2.0"
    assert details["node packages"] == "2 packages as where it was submitted"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"token": "x"}, "failed node shared folder: .* is another one here; give --runs a folder on a disk that all"),
        ({"code": "x"}, "failed node code: another urlbench than was submitted, .*; see what the setup lines"),
        (
            {"packages": PACKAGES | {"torch": "2.1"}},
            r"failed node packages: other versions: torch 2.13.0 \(submitted with 2.1\); let",
        ),
        ({"text": "resources: {slot: 4h, cpus: 9999}"}, "warning node: .*, although the profile asks for 9999"),
        ({"text": "resources: {slot: 4h, gpus: 3}"}, "failed node GPUs: Slurm gives 2 of 3; ask for them by gpus or"),
        (
            {"text": "resources: {slot: 4h}\nscratch: /none/$HOME"},
            "failed node scratch: cannot write in /none/.*: No such",
        ),
    ],
)
def test_each_fault_of_a_node_is_one_line(changes: dict[str, Any], problem: str, node: Path) -> None:
    (found,) = problems(look(node, **changes))
    assert re.match(problem, found)


def test_a_lock_that_does_not_hold_across_machines_is_a_warning(node: Path) -> None:
    (found,) = problems(list(probe(node).checks()))
    assert found.startswith("warning node file locks: ")
    assert "two processes could write one run" in found


def test_gpus_that_torch_cannot_use_are_told(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, DOCTOR_OK, gpus="0")
    assert problems(look(node))[0].startswith("failed node GPUs: Slurm gives 2, torch can use 0; install a CUDA build")
    assert problems(look(node, "resources: {slot: 4h, gpus: 2}\ndevice: cpu")) == []


def test_a_node_on_which_urlbench_does_not_run_gives_the_last_line(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", gpus="2", error="Traceback\nImportError: libcuda.so")
    assert problems(look(node)) == ["failed node doctor: urlbench does not run on the node: ImportError: libcuda.so"]


def test_a_node_on_which_urlbench_hangs_is_told(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, seconds)

    monkeypatch.setattr(cluster_probe, "_run", hang)
    found = problems(look(node, "resources: {slot: 4h}"))
    assert found == [
        "failed node doctor: urlbench did not come to an end on the node within 240 s; see whether it is overloaded"
    ]


def test_the_probe_asks_to_be_told_once_and_says_when_it_is_back(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = probe(node)
    told: list[list[str]] = []

    def scancel(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        told.append(command)
        assert json.loads((node / FOUND).read_bytes())[0]["name"] == "node"
        tried.checkpoint()
        raise SystemExit  # as submitit does in its signal handler

    monkeypatch.setattr(cluster_probe.subprocess, "run", scancel)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with pytest.raises(SystemExit):
        tried()
    assert told == [["scancel", "--signal=USR2", "7"]]
    assert (node / TOLD).exists()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    tried()
    assert json.loads((node / RESTARTED).read_bytes())["restarts"] == 1
    assert len(told) == 1


@pytest.mark.slow
def test_a_real_cluster_is_ready(slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (slurm.environment() | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}).items():
        monkeypatch.setenv(name, value)
    checks = diagnose(
        tmp_path, "resources: {slot: 1h, cpus: 2, memory_gib: 1}\nsetup: ['export OMP_NUM_THREADS=1']", 120
    )
    details = {check.name: check.detail for check in checks}
    assert [line for line in problems(checks) if not line.startswith(("warning accounting", "warning node r"))] == []
    assert details["end of a slot"].startswith("announced, and queued again; restart 1 on ")
    assert details["node environment"].startswith("walker_walk made a step")
    assert details["node code"].endswith("the copy that was submitted")
    assert not (tmp_path / "runs").exists()
    assert set(slurm.squeue().values()) == {"COMPLETED"}
