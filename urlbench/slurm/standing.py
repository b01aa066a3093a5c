"""Where the jobs of a plan stand on a cluster: done, in the queue, to be submitted, or in the way of something."""

from pathlib import Path
from typing import NamedTuple

from urlbench.core.jobs import Job, Plan
from urlbench.local.executor import Executor, ExecutorOptions, JobView
from urlbench.runs.store import RunDirectory
from urlbench.slurm.grouping import Place
from urlbench.slurm.queue import Entry, Queue
from urlbench.slurm.records import Records


class Standing(NamedTuple):
    """Where the jobs of a plan stand, files and queue together.

    Attributes:
        views: all jobs, as the local executor would see them.
        queue: where Slurm has those that it has, by the job's path.
        to_submit: jobs that have to be submitted.
        obstacles: why a job is neither done, in the queue nor to be submitted, by its path.
        in_queue: how many jobs the user has in the queue, of whatever kind; an element counts as one.
    """

    views: list[JobView]
    queue: dict[str, tuple[Place, Entry]]
    to_submit: list[Job]
    obstacles: dict[str, str]
    in_queue: int


def stand(plan: Plan, root: Path, *, retry_failed: bool) -> Standing:
    """How far a plan is; changes nothing.

    Raises:
        UserError: if squeue does not answer, or a run directory belongs to something else.
    """
    executor = Executor(plan, root, ExecutorOptions(workers=1), retry_failed=retry_failed)
    executor.check_identities()
    records = Records(root).all()
    seen = Queue.look()
    queue = {
        path: found for path, found in seen.of_runs(records).items() if not RunDirectory(root / path).done_file.exists()
    }
    submitted: dict[str, Job] = {}
    obstacles: dict[str, str] = {}
    in_plan = {view.job.id: view for view in executor.views}
    for view in executor.views:
        job = view.job
        if view.state == "done" or (job.path in queue and not _has_failed(root, job.path)):
            continue
        if job.path in queue:
            job_id = queue[job.path][1].job_id
            reason = view.reason or f"it has failed, and its job {job_id} is still in the queue; try again after that"
        elif view.state == "waiting":
            reason = _obstacle(job, root, in_plan, queue, submitted)
        else:
            reason = view.reason or "no reason given"
        if reason:
            obstacles[job.path] = reason
        else:
            submitted[job.id] = job
    return Standing(executor.views, queue, list(submitted.values()), obstacles, seen.jobs)


def _has_failed(root: Path, path: str) -> bool:
    """True if a run has failed; the others of its element may still be in the queue."""
    status = RunDirectory(root / path).read_status()
    return status is not None and status.state == "failed"


def _obstacle(
    job: Job,
    root: Path,
    in_plan: dict[str, JobView],
    queue: dict[str, tuple[Place, Entry]],
    submitted: dict[str, Job],
) -> str:
    """Why a job cannot be submitted; "" if it can."""
    parent, path = job.spec.parent, job.parent_path
    if parent is None or path is None or parent in submitted or (path in queue and not _has_failed(root, path)):
        return ""
    view = in_plan.get(parent)
    status = RunDirectory(root / path).read_status()
    if status is not None and status.state == "done":
        return ""
    if status is not None and status.state == "failed":
        return f"its pretraining {path} has failed"
    if view is not None:
        return f"its pretraining {path} is {view.state}: {view.reason}"
    state = "does not exist" if status is None else f"is {status.state}"
    return f"its pretraining {path} {state}; run it with --phase all"
