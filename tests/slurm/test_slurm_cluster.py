"""The cluster of the tests does what they take for granted: arrays, requeues, lost nodes, restarts, a clean end."""

from pathlib import Path

import pytest
from slurm_cluster import NODE_CORES, NODE_GPUS, NODES, SlurmCluster, processes

pytestmark = pytest.mark.slow
# The first time it waits until it is told to stop, and requeues itself; the second time it ends.
STOPPABLE = """\
stop() { scontrol requeue $SLURM_JOB_ID; exit; }
trap stop USR2
echo >> starts
if test ! "$SLURM_RESTART_COUNT"; then sleep infinity & wait; fi"""


def all_at_once(size: int) -> str:
    """Lines of an array's script that wait until all of its elements run."""
    return f"echo > $SLURM_ARRAY_TASK_ID.runs; until test $(ls *.runs | wc -l) = {size}; do sleep 0.1; done"


def sbatch(slurm: SlurmCluster, folder: Path, script: str, *options: str) -> str:
    """Submit a shell script; the id of the job."""
    place = ("--chdir", str(folder), "--output", "%A_%a.out")
    return slurm.run("sbatch", "--parsable", *place, *options, "--wrap", script).strip()


def states(slurm: SlurmCluster, job: str) -> set[str]:
    """The states of a job, or of all elements of an array."""
    return {state for name, state in slurm.squeue().items() if name.partition("_")[0] == job}


def wait_for_starts(slurm: SlurmCluster, folder: Path, number: int) -> None:
    file = folder / "starts"
    slurm.wait_until(lambda: file.exists() and len(file.read_text()) == number, f"start {number} of the job")


def wait_for_end(slurm: SlurmCluster, job: str) -> None:
    slurm.wait_until(lambda: states(slurm, job) == {"COMPLETED"}, f"job {job} is done")


def test_an_array_runs_on_both_nodes_and_sacct_knows_it(slurm: SlurmCluster, tmp_path: Path) -> None:
    size = len(NODES) * NODE_CORES
    job = sbatch(slurm, tmp_path, f"echo $SLURMD_NODENAME; {all_at_once(size)}", "--array", f"0-{size - 1}")
    wait_for_end(slurm, job)
    assert {file.read_text().strip() for file in tmp_path.glob("*.out")} == set(NODES)
    listing = slurm.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job).splitlines()
    assert listing[0] == "JobID|State|NodeList"
    rows = sorted(line.split("|") for line in listing[1:])
    assert [(row[0], row[1]) for row in rows] == [(f"{job}_{index}", "COMPLETED") for index in range(size)]
    assert {row[2] for row in rows} == set(NODES)
    two = slurm.run("sacct", "--noheader", "--parsable2", "--format=State,JobID", "-j", f"{job}_1,{job}_0")
    assert sorted(two.splitlines()) == [f"COMPLETED|{job}_0", f"COMPLETED|{job}_1"]


def test_each_job_of_a_node_gets_a_gpu_of_its_own(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = sbatch(slurm, tmp_path, f"echo $CUDA_VISIBLE_DEVICES; {all_at_once(4)}", "--array", "0-3", "--gres", "gpu:1")
    wait_for_end(slurm, job)
    seen = sorted(file.read_text().strip() for file in tmp_path.glob("*.out"))
    assert seen == sorted(len(NODES) * [str(gpu) for gpu in range(NODE_GPUS)])


def test_an_urgent_job_has_another_told_to_stop_which_runs_again_later(slurm: SlurmCluster, tmp_path: Path) -> None:
    whole = ("--nodes", str(len(NODES)), "--exclusive")
    job = sbatch(slurm, tmp_path, STOPPABLE, *whole, "--requeue", "--signal", "B:USR2@30")
    wait_for_starts(slurm, tmp_path, 1)
    look = f"squeue --noheader --jobs {job} --format %T > seen"
    urgent = sbatch(slurm, tmp_path, look, *whole, "--partition", "urgent")
    wait_for_end(slurm, urgent)
    assert (tmp_path / "seen").read_text() == "PENDING\n"
    wait_for_starts(slurm, tmp_path, 2)
    wait_for_end(slurm, job)


def test_the_job_of_a_lost_node_runs_again_and_the_node_comes_back(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = sbatch(slurm, tmp_path, STOPPABLE, "--requeue", "--nodelist", "n2")
    wait_for_starts(slurm, tmp_path, 1)
    running = [pid for pid, variables in processes() if f"SLURM_JOB_ID={job}".encode() in variables]
    assert running
    slurm.kill_node("n2")
    assert not [pid for pid, _ in processes() if pid in running]
    assert states(slurm, job) == {"PENDING"}
    slurm.start_node("n2")
    wait_for_starts(slurm, tmp_path, 2)
    wait_for_end(slurm, job)


def test_a_controller_that_is_asked_to_end_comes_back_with_all_jobs(slurm: SlurmCluster, tmp_path: Path) -> None:
    size = len(NODES) * NODE_CORES + 2
    job = sbatch(slurm, tmp_path, "until test -e go; do sleep 0.1; done", "--array", f"0-{size - 1}")
    slurm.wait_until(lambda: states(slurm, job) == {"RUNNING", "PENDING"}, "the array runs")
    before = slurm.squeue().keys()
    slurm.restart_controller()
    assert slurm.squeue().keys() == before
    (tmp_path / "go").touch()
    wait_for_end(slurm, job)
    assert len(list(tmp_path.glob("*.out"))) == size


def test_a_controller_that_is_killed_forgets_what_it_heard_last(slurm: SlurmCluster, tmp_path: Path) -> None:
    before = slurm.squeue().keys()
    with slurm.forgetful_controller():
        job = sbatch(slurm, tmp_path, "true", "--hold")
        assert slurm.squeue().keys() == before | {job}
    assert slurm.squeue().keys() == before


def test_two_clusters_know_nothing_of_each_other_and_leave_nothing_behind(slurm: SlurmCluster, tmp_path: Path) -> None:
    other = SlurmCluster(max_array_size=5)
    try:
        other.start()
        assert "MaxArraySize            = 5\n" in other.run("scontrol", "show", "config")
        sbatch(other, tmp_path, "sleep infinity")
        other.wait_until(lambda: list(other.squeue().values()) == ["RUNNING"], "the job runs")
        assert "RUNNING" not in slurm.squeue().values()
    finally:
        other.stop()
    mark = f"SLURM_CONF={other.folder}/slurm.conf".encode()
    assert not [pid for pid, variables in processes() if mark in variables]
    assert not other.folder.exists()
    slurm.run("scontrol", "ping")
