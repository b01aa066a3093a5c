"""The process that runs one job, and the status that others read of it."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_runs import run, toy_jobs

from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.store import Status
from urlbench.training import worker


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_the_worker_runs_records_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (_, directory), _ = toy_jobs(tmp_path)
    command = [str(directory.path), "--runs", str(tmp_path)]
    with directory.lock():
        assert worker.main(command) == worker.EXIT_FAILED
    refusal = capsys.readouterr().err
    assert "is being run by process" in refusal
    assert refusal.count("\n") == 1
    status = directory.read_status()
    assert status is not None
    assert status.state == "queued"
    assert worker.main(command) == worker.EXIT_DONE
    assert worker.main([str(tmp_path / "nowhere"), "--runs", str(tmp_path)]) == worker.EXIT_FAILED
    (_, failing), _ = toy_jobs(tmp_path, agent="toy-fail", seed=1)
    assert worker.main([str(failing.path), "--runs", str(tmp_path)]) == worker.EXIT_FAILED
    assert "Traceback" in capsys.readouterr().err


def test_the_status_says_that_a_run_is_running_while_it_is(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    states: list[tuple[str, int]] = []

    def look() -> str:
        status = json.loads(directory.status_file.read_text())
        states.append((status["state"], status["attempt"]))
        return ""

    run(tmp_path, job, directory, stop=look)
    assert set(states[1:]) == {("running", 1)}


def test_the_status_tells_speed_over_the_recent_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (_, directory) = toy_jobs(tmp_path)
    heartbeat = Heartbeat(directory, Status(state="running", phase="finetune", budget=80))
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    frame, speeds = 0, []
    for second in range(80):
        now, frame = 100.0 + second, frame + (10 if second < 40 else 50)
        heartbeat.beat(frame)
        stored = json.loads(directory.status_file.read_text())
        speeds.append((stored["progress"], stored["per_second"]))
    assert speeds[0] == (10, None)
    assert speeds[1] == speeds[0]
    assert speeds[30] == (310, 10.0)
    assert speeds[78][1] == pytest.approx(50.0)
