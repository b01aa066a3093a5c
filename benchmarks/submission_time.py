"""Measures how long it takes until 240 submitted jobs run, on a Slurm of its own on this machine.

Usage: PYTHONPATH=tests/support python benchmarks/submission_time.py [--jobs 240] [--output FILE.json]

The cluster pretends to have a core for each job, and the jobs only sleep (a set-up line of the profile), so what is
measured is the submission by `urlbench run` and Slurm's own work. The plain version is one sbatch for each job.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import slurm_cluster
from reporting import describe_machine
from toy_runs import PLUGIN

_POLL_SECONDS = 0.25
_LONGEST_SECONDS = 300.0
_SLEEP = "sleep 600"


def until_all_run(cluster: slurm_cluster.SlurmCluster, jobs: int, start: float) -> float:
    """Seconds since `start` until that many jobs run."""
    while sum(state == "RUNNING" for state in cluster.squeue().values()) < jobs:
        assert time.perf_counter() - start < _LONGEST_SECONDS, "the jobs do not get to run"
        time.sleep(_POLL_SECONDS)
    return time.perf_counter() - start


def end_all(cluster: slurm_cluster.SlurmCluster) -> None:
    """Cancel everything and wait until it has ended."""
    cluster.run("scancel", "--signal=KILL", "--full", "--state=RUNNING", "--partition=main")
    cluster.wait_until(lambda: not cluster.run("squeue", "--noheader"), "all jobs have ended")


def submitted_by_urlbench(cluster: slurm_cluster.SlurmCluster, folder: Path, jobs: int) -> dict[str, float]:
    """Seconds until the command returns, and until all jobs run."""
    profile = folder / "cluster.yaml"
    profile.write_text(f"resources: {{slot: 30m, partition: main}}\nsetup: [{_SLEEP}, exit 0]\n", encoding="utf-8")
    command = [sys.executable, "-m", "urlbench", "run", "--suite", "toy-states", "--agent", "toy", "--preset", "smoke"]
    command += ["--domains", "ball", "--phase", "pretrain", "--seeds", str(jobs), "--plugin", str(PLUGIN)]
    command += ["--executor", "slurm", "--cluster", str(profile), "--runs", str(folder / "runs")]
    start = time.perf_counter()
    subprocess.run(command, env=cluster.environment(), check=True, stdout=subprocess.DEVNULL)
    returned = time.perf_counter() - start
    return {"command_seconds": returned, "all_running_seconds": until_all_run(cluster, jobs, start)}


def submitted_one_by_one(cluster: slurm_cluster.SlurmCluster, jobs: int) -> dict[str, float]:
    """The same for one sbatch a job."""
    start = time.perf_counter()
    for _ in range(jobs):
        cluster.run("sbatch", "--partition=main", "--output=/dev/null", f"--wrap={_SLEEP}")
    returned = time.perf_counter() - start
    return {"command_seconds": returned, "all_running_seconds": until_all_run(cluster, jobs, start)}


def main() -> None:
    """Measure both, print them, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="Time the submission of many trivial jobs to a Slurm of its own.")
    parser.add_argument("--jobs", type=int, default=240)
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    machine = describe_machine(threads=1)
    slurm_cluster.NODE_CORES = -(-options.jobs // len(slurm_cluster.NODES))
    slurm_cluster.NODE_MEMORY_MIB = 10 * options.jobs
    result: dict[str, Any] = {"machine": machine, "jobs": options.jobs}
    cluster = slurm_cluster.SlurmCluster()
    try:
        cluster.start()
        with tempfile.TemporaryDirectory() as folder:
            result["urlbench"] = submitted_by_urlbench(cluster, Path(folder), options.jobs)
            end_all(cluster)
            result["one_sbatch_each"] = submitted_one_by_one(cluster, options.jobs)
    finally:
        cluster.stop()
    print(json.dumps({name: result[name] for name in ("urlbench", "one_sbatch_each")}, indent=2))
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
