"""The cluster of the tests does what they take for granted: arrays, requeues, lost nodes, restarts."""

from pathlib import Path

import pytest
from slurm_cluster import NODES, SlurmCluster

pytestmark = pytest.mark.slow


def sbatch(slurm: SlurmCluster, folder: Path, script: str, *options: str) -> str:
    """Submit a shell script; the id of the job."""
    out = ("--output", str(folder / "%A_%a.out"))
    return slurm.run("sbatch", "--parsable", *out, *options, "--wrap", script).strip()


def states(slurm: SlurmCluster, job: str) -> set[str]:
    """The states of a job, or of all elements of an array."""
    return {state for name, state in slurm.squeue().items() if name.partition("_")[0] == job}


def test_an_array_runs_on_both_nodes_and_sacct_knows_it(slurm: SlurmCluster, tmp_path: Path) -> None:
    job = sbatch(slurm, tmp_path, f"echo $SLURMD_NODENAME > {tmp_path}/$SLURM_ARRAY_TASK_ID", "--array", "0-7", "-c2")
    slurm.wait_until(lambda: states(slurm, job) == {"COMPLETED"}, "the array runs")
    assert {(tmp_path / str(index)).read_text().strip() for index in range(8)} == set(NODES)
    listing = slurm.run("sacct", "-o", "JobID,State,NodeList", "--parsable2", "-j", job).splitlines()
    assert listing[0] == "JobID|State|NodeList"
    rows = [line.split("|") for line in listing[1:]]
    assert {row[0] for row in rows} == {f"{job}_{index}" for index in range(8)}
    assert {row[1] for row in rows} == {"COMPLETED"}
