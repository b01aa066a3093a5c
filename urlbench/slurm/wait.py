"""`urlbench run --executor slurm --wait`: submits, fills the queue up as room appears, and returns at the end."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from time import sleep

from urlbench.core.jobs import Job, Plan
from urlbench.local.executor import exit_code
from urlbench.slurm.profile import Profile
from urlbench.slurm.queue import NoAnswer, ended
from urlbench.slurm.records import Records
from urlbench.slurm.run import Submitted, submit_jobs, submit_plan
from urlbench.slurm.standing import Standing, stand

# Slurm's controllers answer everybody of the cluster, so they are asked seldom.
_POLL_SECONDS = 30.0
# Network file systems show late what other machines have written: so many looks find a run at neither place.
_LOOKS = 3


def run_and_wait(plan: Plan, root: Path, profile: Profile, *, retry_failed: bool) -> int:
    """Submit what is left of a plan, wait until nothing of it is in the queue, and say how it ended; the exit code.

    0 if every job is done, 1 if one has failed, 3 if some have not run to their end, as of runs on this machine. What
    others take out of the queue meanwhile is not submitted again.

    Raises:
        UserError: if Slurm does not answer at first, or a folder cannot be used.
    """
    _, submitted = submit_plan(plan, root, profile, retry_failed=retry_failed)
    try:
        standing, lost = _wait(plan, Records(root), profile, submitted)
    except KeyboardInterrupt:
        print("stopped waiting: what is submitted stays in the queue, and the same command waits for it again")
        return 3
    _summarise(standing, lost, Records(root))
    return exit_code(standing.views)


def _wait(plan: Plan, records: Records, profile: Profile, submitted: Submitted) -> tuple[Standing, list[Job]]:
    """Where everything stands at the end, and the jobs that have left the queue without an end of their own."""
    left = {job.id for job in submitted.left}
    refused = _ids(submitted)
    shown, looks = "", 0
    while True:
        line = ""
        try:
            with records.lock():
                standing = stand(plan, records.root, retry_failed=False)
                waiting, lost = _sorted_out(standing.to_submit, left, refused)
                filled = submit_jobs(standing._replace(to_submit=waiting), records, profile)
        except NoAnswer as error:
            line = f"still waiting: {error}"
        else:
            left = {job.id for job in filled.left}
            refused |= _ids(filled)
            looks = looks + 1 if lost else 0
            in_queue = any(view.job.path in standing.queue for view in standing.views)
            if not (in_queue or left or filled.arrays) and (not lost or looks == _LOOKS):
                return standing, lost
            line = _progress(standing, filled)
        if line != shown:
            print(line, flush=True)
        shown = line
        sleep(_POLL_SECONDS)


def _ids(submitted: Submitted) -> set[str]:
    """Of the jobs that Slurm refused."""
    return {job.id for array in submitted.refused for pack in array.packs for job in pack}


def _sorted_out(jobs: Iterable[Job], left: set[str], refused: set[str]) -> tuple[list[Job], list[Job]]:
    """Of jobs that could be submitted, those that wait for room, and those that have left the queue.

    Args:
        jobs: parents before children.
        left: ids of jobs that were never submitted for lack of room.
        refused: ids of jobs that Slurm does not take.
    """
    waiting: list[Job] = []
    lost: list[Job] = []
    stuck: set[str | None] = set()
    for job in jobs:
        if job.id in left and job.spec.parent not in stuck:
            waiting.append(job)
            continue
        stuck.add(job.id)
        if job.id not in left | refused:
            lost.append(job)
    return waiting, lost


def _progress(standing: Standing, filled: Submitted) -> str:
    """Where everything stands after jobs were submitted."""
    states = Counter(view.state for view in standing.views)
    entries = [standing.queue[view.job.path][1] for view in standing.views if view.job.path in standing.queue]
    waiting = sum(entry.waits for entry in entries)
    new = sum(len(paths) for record in filled.arrays for paths in record.elements)
    numbers = {
        "running": len(entries) - waiting,
        "waiting in the queue": waiting + new,
        "without room in it": len(filled.left),
        "failed": states["failed"],
    }
    others = "".join(f", {number} {what}" for what, number in numbers.items() if number)
    return f"{states['done']} of {len(standing.views)} jobs are done{others}"


def _summarise(standing: Standing, lost: list[Job], records: Records) -> None:
    views = standing.views
    for view in views:
        if view.state == "failed":
            print(f"failed: {view.job.label}\n    reason: {view.reason or 'none given'}\n    log: {view.log}")
    reasons = ended(records, [job.path for job in lost])
    for job in lost:
        print(f"interrupted: {job.label}: {reasons.get(job.path) or 'it has left the queue'}")
    print(f"{sum(view.state == 'done' for view in views)} of {len(views)} jobs are done, in {records.root}")
    if exit_code(views) == 1:
        print("failed jobs are not run again by themselves: mend the cause, then the same command with --rerun failed")
    elif exit_code(views) == 3:
        print("not everything has run; the same command continues")
