"""Comparisons on a real cluster, as users run them; how they survive is in test_slurm_interruptions.py."""

import json
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from slurm_runs import TOY, SlurmRuns, starting_points
from toy_runs import PLUGIN, assert_same_run

pytestmark = pytest.mark.slow
SMOKE = (*TOY, "--preset", "smoke", "--tasks", "ball_left")


def test_two_agents_as_on_this_machine(slurm: SlurmCluster, tmp_path: Path) -> None:
    plan = (*SMOKE, "--agent", "toy,random", "--seeds", "2")
    cluster, local = SlurmRuns(slurm, tmp_path / "on the cluster"), SlurmRuns(slurm, tmp_path / "here")
    assert "6 of 6 jobs submitted" in cluster.submit(*plan)
    cluster.wait_for_done(6)
    assert "nothing to do: all 6 jobs are done" in cluster.submit(*plan)

    local.urlbench("run", *plan, "--device", "cpu", "--workers", "2")
    ours, others = cluster.runs(), local.runs()
    assert ours.keys() == others.keys()
    for label, directory in ours.items():
        assert_same_run(directory, others[label])

    chosen = ("--suite", "toy-states", "--plugin", str(PLUGIN), "--agents", "toy,random", "--tasks", "ball_left")
    cluster.urlbench("report", *chosen, "--seeds", "2", "--preset", "smoke", "--reps", "100", "--format", "md")
    (report,) = cluster.folder.rglob("report-*.md")
    assert "2 agents, 1 of the suite's 4 tasks, 2 seeds: 4 runs." in report.read_text()


@pytest.mark.parametrize("runs_per_element", [1, 3])
def test_a_failure_in_the_middle_harms_nobody_else(slurm: SlurmCluster, tmp_path: Path, runs_per_element: int) -> None:
    runs = SlurmRuns(slurm, tmp_path, runs_per_gpu=runs_per_element)
    plan = (*SMOKE, "--agent", "toy-fail", "--seeds", "3")
    runs.submit(*plan)
    runs.wait_for_done(4)
    states = {run["seed"]: run["state"] for run in overview(runs) if run["phase"] == "pretrain"}
    assert states == {0: "done", 1: "failed", 2: "done"}
    assert [run["seed"] for run in overview(runs) if run["phase"] == "finetune" and run["state"] == "done"] == [0, 2]
    assert "the toy agent fails on purpose" in runs.urlbench("status")
    again = runs.submit(*plan, code=1)
    assert "failed: toy-fail pretrain ball seed 1" in again
    assert "0 of 6 jobs submitted" in again
    assert runs.queued() == 0


def test_a_pending_run_is_cancelled_and_submitted_again(slurm: SlurmCluster, tmp_path: Path) -> None:
    runs = SlurmRuns(slurm, tmp_path, extra={"hold": True})
    plan = (*TOY, "--preset", "smoke", "--phase", "pretrain", "--agent", "toy", "--seeds", "3")
    runs.submit(*plan)
    middle = runs.runs()["toy pretrain ball seed 1"]
    assert "cancelled: " in runs.urlbench("cancel", str(middle.path))
    runs.release()
    runs.wait_for_done(2)
    (left,) = (run for run in overview(runs) if run["state"] != "done")
    assert (left["seed"], left["state"], left["starts"]) == (1, "interrupted", 0)
    assert "the same run command submits it again" in left["message"]

    assert "1 of 3 jobs submitted" in runs.submit(*plan)
    runs.release()
    runs.wait_for_done(3)
    assert [starting_points(directory) for directory in runs.runs().values()] == [[0], [0], [0]]


def test_a_published_suite(slurm: SlurmCluster, tmp_path: Path) -> None:
    runs = SlurmRuns(slurm, tmp_path)
    plan = ("--suite", "urlb-states", "--domains", "walker", "--tasks", "walker_walk", "--preset", "smoke")
    assert "2 of 2 jobs submitted" in runs.submit(*plan, "--agent", "random,ddpg", "--seeds", "1")
    runs.wait_for_done(2)
    chosen = ("--suite", "urlb-states", "--agents", "random,ddpg", "--domains", "walker", "--tasks", "walker_walk")
    runs.urlbench("report", *chosen, "--seeds", "1", "--preset", "smoke", "--reps", "100", "--format", "md")
    assert len(list(runs.folder.rglob("report-*.md"))) == 1


def overview(runs: SlurmRuns) -> list[dict[str, object]]:
    """What `urlbench status` says of each run."""
    rows: list[dict[str, object]] = json.loads(runs.urlbench("status", "--json"))["runs"]
    return rows
