"""What the doctor's job finds on a node, and how it lets itself be queued again."""

import fcntl
import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from slurm_fakes import profile

from urlbench.local.check import Check
from urlbench.slurm import cluster_probe
from urlbench.slurm.cluster_probe import FOUND, LOCK, RESTARTED, TOKEN, TOLD, Probe
from urlbench.slurm.profile import Resources

PACKAGES = {"numpy": "2.3.5", "torch": "2.13.0"}
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


def probe(folder: Path, gpus: int = 2, cpus: int = 1, **changes: Any) -> Probe:
    """A probe whose profile asks for this; `changes` are of the probe's arguments or of the profile."""
    asked = profile(pretrain=Resources(slot_minutes=60, gpus=gpus, cpus=cpus), device=changes.pop("device", "auto"))
    scratch = changes.pop("scratch", None)
    given = {"token": "abc", "code": "c0de", "packages": PACKAGES, **changes}
    return Probe(folder, folder.parent, profile=asked.model_copy(update={"scratch": scratch}), **given)


def look(folder: Path, **changes: Any) -> list[Check]:
    """What a probe finds while somebody holds the lock, as the doctor does."""
    with (folder / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return list(probe(folder, **changes).checks())


def problems(checks: Iterable[Check]) -> list[str]:
    return [str(check) for check in checks if check.result != "ok"]


def test_a_node_that_is_ready(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_DISK", str(node.parent))
    checks = look(node, scratch="$MY_DISK")
    assert problems(checks) == []
    details = {check.name: check.detail for check in checks}
    assert details["node GPUs"] == "Slurm gives 2, torch can use 2"
    assert details["node scratch"] == f"{node.parent} can be written"
    assert details["node torch"] == "2.0"
    assert details["node packages"] == "2 packages as where it was submitted"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"token": "x"},
            "failed   node shared folder: .* is another one here; give --runs a folder on a disk that all",
        ),
        ({"code": "x"}, "failed   node code: another urlbench than was submitted, .*; see what the setup lines"),
        (
            {"packages": PACKAGES | {"torch": "2.1"}},
            r"failed   node packages: other versions: torch 2.13.0 \(submitted with 2.1\); let",
        ),
        ({"cpus": 9999}, "warning  node: .*, although the profile asks for 9999"),
        ({"gpus": 3}, "failed   node GPUs: Slurm gives 2 of 3; ask for them by gpus or"),
        (
            {"scratch": "/none/$HOME"},
            "failed   node scratch: cannot write in /none/.*: No such",
        ),
    ],
)
def test_each_fault_of_a_node_is_one_line(changes: dict[str, Any], problem: str, node: Path) -> None:
    (found,) = problems(look(node, **changes))
    assert re.match(problem, found)


def test_a_lock_that_does_not_hold_across_machines_is_a_warning(node: Path) -> None:
    (found,) = problems(probe(node).checks())
    assert found.startswith("warning  node file locks: ")
    assert "two processes could write one run" in found


def test_gpus_that_torch_cannot_use_are_told(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, DOCTOR_OK, gpus="0")
    assert problems(look(node))[0].startswith(
        "failed   node GPUs: Slurm gives 2, torch can use 0; install a CUDA build"
    )
    assert problems(look(node, device="cpu")) == []


def test_a_node_on_which_urlbench_does_not_run_gives_the_last_line(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "", gpus="2", error="Traceback\nImportError: libcuda.so")
    assert problems(look(node)) == ["failed   node doctor: urlbench does not run on the node: ImportError: libcuda.so"]


def test_a_node_on_which_urlbench_hangs_is_told(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
        raise subprocess.TimeoutExpired(command, seconds)

    monkeypatch.setattr(cluster_probe, "_run", hang)
    found = problems(look(node, gpus=0))
    assert found == [
        "failed   node doctor: urlbench did not come to an end on the node within 240 s; see whether it is overloaded"
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
