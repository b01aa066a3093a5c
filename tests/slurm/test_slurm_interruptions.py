"""On a real cluster nothing is lost and nothing runs twice, whatever ends a job, the controller or the command."""

import shutil
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from slurm_cluster import NODES, SlurmCluster
from slurm_runs import LONG_TOY, TOY, SlurmRuns, starting_points
from toy_runs import assert_same_run, count_starts, run, toy_jobs

from urlbench.runs.store import RunDirectory

pytestmark = pytest.mark.slow
LABEL = "toy pretrain ball seed 0"
QUICK_TOY = (*TOY, "--preset", "smoke", "--phase", "pretrain", "--agent", "toy")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run of LABEL in one go."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (job, directory), _ = toy_jobs(folder, preset="paper")
    assert run(folder, job, directory) == "done"
    return directory


def assert_continued(runs: SlurmRuns, uninterrupted: RunDirectory) -> None:
    """LABEL was started twice, the second time where it had been, and is what it is without a break."""
    directory = runs.runs()[LABEL]
    first, second = starting_points(directory)
    assert first == 0
    assert 0 < second < 400
    assert_same_run(directory, uninterrupted)


def test_preemption(slurm: SlurmCluster, tmp_path: Path, uninterrupted: RunDirectory) -> None:
    runs = SlurmRuns(slurm, tmp_path)
    hold = runs.hold()
    runs.submit(*LONG_TOY, "--seeds", "1")
    runs.wait_for_hold(hold)
    whole = ("--nodes", str(len(NODES)), "--exclusive", "--partition", "urgent", "--output", "/dev/null")
    urgent = slurm.run("sbatch", "--parsable", *whole, "--wrap", "true").strip()
    slurm.wait_until(lambda: slurm.squeue()[urgent] == "COMPLETED", "the urgent job is done")
    hold.let_go()
    runs.wait_for_done(1)
    assert_continued(runs, uninterrupted)


def test_a_lost_node(slurm: SlurmCluster, tmp_path: Path, uninterrupted: RunDirectory) -> None:
    runs = SlurmRuns(slurm, tmp_path)
    hold = runs.hold()
    runs.submit(*LONG_TOY, "--seeds", "1")
    runs.wait_for_hold(hold)
    (node,) = slurm.run("squeue", "--noheader", "--format", "%N").split()
    slurm.kill_node(node)
    hold.let_go()
    slurm.start_node(node)
    runs.wait_for_done(1)
    assert_continued(runs, uninterrupted)


def test_the_end_of_a_slot_ends_nobody_elses(slurm: SlurmCluster, tmp_path: Path, uninterrupted: RunDirectory) -> None:
    runs = SlurmRuns(slurm, tmp_path, signal_seconds=600)
    hold = runs.hold()
    submitted = runs.submit(*LONG_TOY, "--seeds", "2")
    array = submitted.splitlines()[-3].split()[0]
    runs.wait_for_hold(hold, 2)
    # Slurm looks at limits every half minute, and finds that it is time to announce this one.
    end = datetime.now() + timedelta(seconds=600)
    slurm.run("scontrol", "update", f"JobId={array}_0", f"EndTime={end.isoformat(timespec='seconds')}")
    directory = runs.runs()[LABEL]
    slurm.wait_until(
        lambda: slurm.squeue()[f"{array}_0"] == "PENDING" or count_starts(directory) == 2, "the run is queued again"
    )
    slurm.run("scontrol", "update", f"JobId={array}_0", "TimeLimit=30")
    hold.let_go()
    runs.wait_for_done(2)
    assert_continued(runs, uninterrupted)
    assert starting_points(runs.runs()["toy pretrain ball seed 1"]) == [0]


def test_a_controller_that_forgets_and_one_that_restarts(slurm: SlurmCluster, tmp_path: Path) -> None:
    runs = SlurmRuns(slurm, tmp_path, extra={"hold": True})
    hold = runs.hold()
    runs.submit(*QUICK_TOY, "--seeds", "1")
    with slurm.forgetful_controller():
        assert "1 of 2 jobs submitted" in runs.submit(*QUICK_TOY, "--seeds", "2")
    assert runs.queued() == 1
    assert "1 of 2 jobs submitted" in runs.submit(*QUICK_TOY, "--seeds", "2")
    assert runs.queued() == 2
    runs.release()
    slurm.wait_until(lambda: hold.waiting, "a job runs")
    slurm.restart_controller()
    hold.let_go()
    assert_once(runs, 2)


def test_a_command_that_is_killed_between_two_arrays(slurm: SlurmCluster, tmp_path: Path) -> None:
    runs = SlurmRuns(slurm, tmp_path, extra={"hold": True}, max_array_size=1)
    real, calls = shutil.which("sbatch"), tmp_path / "calls"
    fake = tmp_path / "bin" / "sbatch"
    fake.parent.mkdir()
    # Ends the command before Slurm hears of the second array, and after it has heard of the third.
    fake.write_text(
        f"""#!/bin/sh
echo >> {calls}
case $(wc -l < {calls}) in
  2) kill -9 $PPID; exit ;;
  4) {real} "$@"; kill -9 $PPID; exit ;;
esac
exec {real} "$@"
"""
    )
    fake.chmod(0o755)
    for queued in (1, 3):
        with pytest.raises(subprocess.CalledProcessError) as killed:
            runs.submit(*QUICK_TOY, "--seeds", "3", first_on_path=fake.parent)
        assert killed.value.returncode == -signal.SIGKILL
        assert runs.queued() == queued
    assert "0 of 3 jobs submitted" in runs.submit(*QUICK_TOY, "--seeds", "3")
    runs.release()
    assert_once(runs, 3)


def assert_once(runs: SlurmRuns, number: int) -> None:
    """So many runs get done, each in one start."""
    runs.wait_for_done(number)
    assert [starting_points(directory) for directory in runs.runs().values()] == number * [[0]]
