"""`urlbench retry --failed`: which jobs a folder's failed runs are, and what waits for them."""

from pathlib import Path
from typing import TYPE_CHECKING

from urlbench.cli.status import Overview, uses_cluster
from urlbench.core.types import Plan
from urlbench.runs.store import RunDirectory

if TYPE_CHECKING:
    from urlbench.slurm.profile import Profile


def failed_jobs(root: Path, overview: Overview) -> Plan:
    """The failed runs among those of `overview`, and those not done that start from them."""
    failed = {run.id for run in overview.runs if run.state == "failed"}
    jobs = [RunDirectory(root / run.path).read_job(root) for run in overview.runs if run.state != "done"]
    chosen = [job for job in jobs if job.id in failed or job.spec.parent in failed]
    return Plan(jobs=tuple(sorted(chosen, key=lambda job: job.spec.phase != "pretrain")))


def last_profile(root: Path, plan: Plan) -> "Profile | None":
    """The cluster profile with which the first of these jobs was last submitted; None if none ever was."""
    if not uses_cluster(root):
        return None
    from urlbench.slurm.records import Records, latest_places

    places = latest_places(Records(root).all())
    return next((places[job.path][0].profile for job in plan.jobs if job.path in places), None)
