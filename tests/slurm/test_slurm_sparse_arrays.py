"""On a real cluster: arrays with gaps, whose elements stand behind those elements of an array that are not done."""

from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from slurm_fakes import profile, put, toy_plan
from slurm_runs import starting_points

from urlbench.core.jobs import Job
from urlbench.runs.store import RunDirectory
from urlbench.slurm.grouping import Place
from urlbench.slurm.profile import Profile, Resources
from urlbench.slurm.queue import Queue, call
from urlbench.slurm.records import Records
from urlbench.slurm.run import run_on_slurm

pytestmark = pytest.mark.slow


@pytest.fixture
def held(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> Profile:
    """A profile whose jobs wait until they are released."""
    slurm.enter(monkeypatch)
    asked = Resources(slot_minutes=30, extra={"hold": True})
    return profile(pretrain=asked, finetune=asked)


def finish(root: Path, jobs: list[Job]) -> None:
    """Make runs done, and take them out of the queue."""
    places = Queue.look().of_runs(Records(root).all())
    call("scancel", *(places[job.path][1].job_id for job in jobs if job.path in places))
    for job in jobs:
        put(root, job, "done")


def test_children_of_300_parents_of_which_some_are_done_are_five_arrays(
    slurm: SlurmCluster, held: Profile, tmp_path: Path
) -> None:
    plan = toy_plan(seeds=tuple(range(300)), snapshots="all")
    parents = [job for job in plan.jobs if job.spec.phase == "pretrain"]
    assert run_on_slurm(toy_plan(seeds=tuple(range(300)), phase="pretrain"), tmp_path, held, retry_failed=False) == 0
    finish(tmp_path, parents[::2])
    assert run_on_slurm(plan, tmp_path, held, retry_failed=False) == 0
    first, free, *behind = Records(tmp_path).all()
    assert (len(free.indices), free.dependency) == (600, None)
    gaps = tuple(range(1, 300, 2))
    assert [(record.indices, record.dependency) for record in behind] == [(gaps, f"aftercorr:{first.slurm_id}")] * 4
    in_queue = Queue.look().entries
    for record in behind:
        assert sorted(place.element for place in in_queue if place.array == record.name) == list(gaps)
    waits = call("squeue", "--noheader", f"--name={behind[0].name}", "--format=%E")
    assert waits.strip() == f"aftercorr:{first.slurm_id}_*(unfulfilled)"
    call("scancel", *(str(record.slurm_id) for record in (first, free, *behind)))


def test_each_child_starts_once_its_own_parent_is_done(slurm: SlurmCluster, held: Profile, tmp_path: Path) -> None:
    plan = toy_plan(seeds=(0, 1, 2), tasks=("ball_left",))
    assert run_on_slurm(toy_plan(seeds=(0, 1, 2), phase="pretrain"), tmp_path, held, retry_failed=False) == 0
    finish(tmp_path, [plan.jobs[0], plan.jobs[3]])
    assert run_on_slurm(plan, tmp_path, held, retry_failed=False) == 0
    parents, children = Records(tmp_path).all()
    assert (children.indices, children.dependency) == ((1, 2), f"aftercorr:{parents.slurm_id}")

    call("scontrol", "release", str(children.slurm_id), f"{parents.slurm_id}_2")
    runs = [RunDirectory(tmp_path / job.path) for job in plan.jobs]
    slurm.wait_until(runs[5].done_file.exists, "the child of the parent that was released is done")
    assert starting_points(runs[2]) == starting_points(runs[5]) == [0]
    assert not runs[4].attempts_file.exists(), "the other one waits for its own parent"
    assert Queue.look().entries[Place(children.name, 1)].reason == "Dependency"
    call("scancel", str(parents.slurm_id), str(children.slurm_id))
