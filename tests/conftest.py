"""What holds for all tests, and fixtures that several files share."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before NumPy and PyTorch are imported, and for the processes that tests start: each test has one core, as -n auto
# starts as many workers as there are cores, and threads that wait for one another take the cores of other workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from command_line import Command, Outcome
from processes import HANG_SECONDS
from registration import forgotten
from slurm_cluster import SlurmCluster, obstacle
from synthetic_searches import SUITES
from toy_runs import toy_plugin

from urlbench.cli import app
from urlbench.core.registry import register_suite

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """Wait for no disk: a killed process loses nothing by it, and no test can cut the power. Full disks are made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def patient_commands() -> Iterator[None]:
    """A program that one of our commands asks for something may take its time, as the machine may be busy."""
    run = subprocess.run

    def patient(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[Any]:
        return run(*arguments, **(options | ({"timeout": HANG_SECONDS} if "timeout" in options else {})))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.run", patient)
        yield


@pytest.fixture(scope="session", autouse=True)
def signals_as_in_the_foreground() -> Iterator[None]:
    """Processes that tests start take signals, also if the tests were started to ignore them, by nohup or with &.

    A signal that is ignored stays so in programs that are started; a handler does not.
    """
    ignored = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda number, frame: None)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.fixture(scope="module", autouse=True)
def registry_of_the_file() -> Iterator[None]:
    """What a file of tests registers is unknown to others."""
    with forgotten():
        yield


@pytest.fixture(scope="module")
def toy_suites(registry_of_the_file: None) -> None:
    """The toy suites and agents are registered."""
    toy_plugin()


@pytest.fixture(scope="module")
def synthetic_suites(registry_of_the_file: None) -> None:
    """The suites of `synthetic_runs` and `synthetic_searches` are registered."""
    for suite in SUITES.values():
        register_suite(suite)


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    """A cluster of its own for a file of tests."""
    if obstacle():
        pytest.skip(f"needs Slurm: {obstacle()}")
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def acting_by_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Actors call the networks' modules, so that hooks see it; they act the same without, as test_acting.py shows."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    from plain_acting import plain_actors

    with plain_actors():
        yield


@pytest.fixture
def float64() -> Iterator[None]:
    """New tensors have float64, in which two ways of computing the same agree to many digits."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def urlbench(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command line in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as end:
            app.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Outcome(end.value.code, captured.out, captured.err)

    return run
