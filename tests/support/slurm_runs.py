"""`urlbench run --executor slurm` as a user calls it, on the cluster of the tests."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from processes import run_program
from slurm_cluster import SlurmCluster
from toy_runs import PLUGIN, Hold

from urlbench.runs.store import RunDirectory, RunStore, read_jsonl

TOY = ("--suite", "toy-states", "--domains", "ball", "--plugin", str(PLUGIN))
LONG_TOY = (*TOY, "--preset", "paper", "--phase", "pretrain", "--agent", "toy")
_ROOT = Path(__file__).parents[2]


class SlurmRuns:
    """A user's folder with runs on a cluster.

    Args:
        slurm: the cluster.
        folder: in which commands are called; the runs are in `runs`.
        extra: parameters of sbatch for all runs.
        keys: of the cluster's profile.
    """

    def __init__(
        self, slurm: SlurmCluster, folder: Path, *, extra: Mapping[str, Any] | None = None, **keys: Any
    ) -> None:
        self.slurm, self.folder, self.root = slurm, folder, folder / "runs"
        folder.mkdir(exist_ok=True)
        resources = {"slot": "30m", "extra": dict(extra or {})}
        profile = {"resources": resources, "signal_seconds": 30, "device": "cpu", **keys}
        (folder / "cluster.yaml").write_text(yaml.safe_dump(profile))
        # So that the tests run from a checkout that is not installed, too, and lost nodes cost little work.
        own = {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1", "URLBENCH_CHECKPOINT_SECONDS": "0.2"}
        self.environment = {**slurm.environment(), **own}

    def urlbench(self, *arguments: str, code: int = 0, first_on_path: Path | None = None) -> str:
        """What a command prints.

        Args:
            arguments: of `urlbench`.
            code: with which it has to end; CalledProcessError if a signal ends it.
            first_on_path: a folder whose programs take the place of the real ones.
        """
        environment = dict(self.environment)
        if first_on_path:
            environment["PATH"] = f"{first_on_path}{os.pathsep}{environment['PATH']}"
        command = [sys.executable, "-m", "urlbench", *arguments]
        done = run_program(command, cwd=self.folder, env=environment)
        if done.returncode < 0:
            done.check_returncode()
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def submit(self, *arguments: str, code: int = 0, first_on_path: Path | None = None) -> str:
        """Submit what is left of a plan."""
        place = ("--executor", "slurm", "--cluster", "cluster.yaml")
        return self.urlbench("run", *arguments, *place, code=code, first_on_path=first_on_path)

    def queued(self) -> int:
        """How many jobs are in the queue, elements of arrays one by one."""
        return len(self.slurm.run("squeue", "--noheader", "--array").splitlines())

    def release(self) -> None:
        """Let all jobs that are held start."""
        self.slurm.run("scontrol", "release", *set(self.slurm.run("squeue", "--noheader", "--format", "%F").split()))

    def runs(self) -> dict[str, RunDirectory]:
        """All run directories, by labels such as `toy pretrain ball seed 0`."""
        return {directory.read_job(self.root).label: directory for directory in RunStore(self.root).directories()}

    def wait_for_done(self, number: int) -> None:
        """Wait until so many runs are done and no job is left in the queue."""
        self.slurm.wait_until(lambda: len(list(self.root.rglob("DONE"))) >= number, f"{number} runs are done")
        self.wait_for_empty_queue()

    def wait_for_empty_queue(self) -> None:
        self.slurm.wait_until(lambda: self.queued() == 0, "the queue empties")

    def hold(self) -> Hold:
        """Have runs that are submitted from now on wait, saved, in their fourth episode, until a signal or the test."""
        hold = Hold(self.folder / "hold", 30)
        self.environment |= {"URLBENCH_CHECKPOINT_SECONDS": "0", **hold.environment}
        return hold

    def wait_for_hold(self, hold: Hold, number: int = 1) -> None:
        """Wait until so many runs wait."""
        self.slurm.wait_until(lambda: hold.waiting == number, f"{number} runs wait")


def starting_points(directory: RunDirectory) -> list[int]:
    """The frame at which each start of a run has begun."""
    return [row["from_progress"] for row in read_jsonl(directory.attempts_file) if "started" in row]
