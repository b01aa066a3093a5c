"""`urlbench run --executor slurm`: submits what is neither done nor in the queue, and returns."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from urlbench.core.errors import UserError
from urlbench.core.types import Job, Plan
from urlbench.local.executor import Executor, ExecutorOptions, JobView
from urlbench.runs.plan import format_frames
from urlbench.runs.store import RunDirectory, queued_status
from urlbench.slurm.code_snapshot import take_snapshot
from urlbench.slurm.element import digest_of
from urlbench.slurm.grouping import ArrayPlan, Place, group
from urlbench.slurm.profile import Profile
from urlbench.slurm.queue import Entry, Queue, call
from urlbench.slurm.records import ArrayRecord, Records, new_names, record_of
from urlbench.slurm.submission import adopt, dependency_text, submit

# Slurm's own default, for clusters that do not say.
_USUAL_MAX_ARRAY_SIZE = 1001


class Standing(NamedTuple):
    """Where the jobs of a plan stand, files and queue together.

    Attributes:
        views: all jobs, as the local executor would see them.
        queue: where Slurm has those that it has, by the job's path.
        to_submit: jobs that have to be submitted.
        obstacles: why a job is neither done, in the queue nor to be submitted, by its path.
    """

    views: list[JobView]
    queue: dict[str, tuple[Place, Entry]]
    to_submit: list[Job]
    obstacles: dict[str, str]


def stand(plan: Plan, root: Path, *, retry_failed: bool) -> Standing:
    """How far a plan is; changes nothing.

    Raises:
        UserError: if squeue does not answer, or a run directory belongs to something else.
    """
    executor = Executor(plan, root, ExecutorOptions(workers=1), retry_failed=retry_failed)
    executor.check_identities()
    records = Records(root).all()
    queue = {
        path: found
        for path, found in Queue.look().of_runs(records).items()
        if not RunDirectory(root / path).done_file.exists()
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
    return Standing(executor.views, queue, list(submitted.values()), obstacles)


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


def plan_arrays(standing: Standing, profile: Profile) -> list[ArrayPlan]:
    """The arrays that submitting would make; asks the cluster for its array limit if the profile does not say."""
    in_queue = {
        view.job.id: standing.queue[view.job.path][0] for view in standing.views if view.job.path in standing.queue
    }
    for job in standing.to_submit:
        if job.parent_path in standing.queue and job.spec.parent is not None:
            in_queue[job.spec.parent] = standing.queue[job.parent_path][0]
    return group(
        standing.to_submit,
        in_queue,
        runs_per_element=profile.runs_per_gpu,
        most_elements=profile.max_array_size or max_array_size(),
        names=new_names(),
    )


def max_array_size() -> int:
    """The most elements that an array may have on this cluster."""
    for line in call("scontrol", "show", "config").splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "MaxArraySize" and value.strip().isdigit():
            return max(int(value), 1)  # 0 where there are no arrays, only plain jobs
    return _USUAL_MAX_ARRAY_SIZE


def run_on_slurm(plan: Plan, root: Path, profile: Profile, *, retry_failed: bool) -> int:
    """Submit what is left of a plan and say how to watch it; the exit code.

    0 if everything is done or in the queue, 1 if jobs have failed and are left alone, 3 if others cannot be submitted.

    Raises:
        UserError: if Slurm does not answer or refuses, or a folder cannot be used.
    """
    check_path(root)
    records = Records(root)
    with records.lock():
        standing = stand(plan, root, retry_failed=retry_failed)
        known = {record.name: record for record in records.all()}
        for place, entry in standing.queue.values():
            if known[place.array].slurm_id is None:
                known[place.array] = adopt(known[place.array], records, entry.job_id.partition("_")[0])
        submitted: list[ArrayRecord] = []
        if standing.to_submit:
            arrays = plan_arrays(standing, profile)
            _prepare(standing, root)
            code, digest = take_snapshot(records.folder / "code")
            for array in arrays:
                waits = array.dependency
                dependency = None if waits is None else dependency_text(array, known[waits.array])
                record = submit(record_of(array, dependency, profile, digest, _plugins(array)), records, code)
                known[record.name] = record
                submitted.append(record)
                print(describe_array(array, profile, record), flush=True)
    return _summarise(standing, submitted, root)


def check_path(root: Path) -> None:
    """UserError for a runs folder whose name Slurm, submitit or Python would take apart."""
    for character, who in (("%", "Slurm"), (":", "Python"), ("\n", "a batch script")):
        if character in str(root):
            raise UserError(
                f"the path of the runs folder {str(root)!r} has a {character!r} in it, which {who} takes for "
                "something else; give another folder with --runs"
            )


def _prepare(standing: Standing, root: Path) -> None:
    """Make the runs visible as queued, also those that are run again after a failure."""
    for job in standing.to_submit:
        directory = RunDirectory(root / job.path)
        directory.prepare(job)
        status = directory.read_status()
        if status is not None and status.state == "failed":
            directory.write_status(queued_status(job.spec))


def _plugins(array: ArrayPlan) -> dict[str, str]:
    files = {plugin for pack in array.packs for job in pack for plugin in job.plugins if Path(plugin).is_file()}
    return {file: digest_of(Path(file)) for file in sorted(files)}


def describe_array(array: ArrayPlan, profile: Profile, record: ArrayRecord | None = None) -> str:
    """A line about an array that was submitted, or, without a record, would be."""
    runs = sum(map(len, array.packs))
    starts = sorted({job.spec.snapshot for pack in array.packs for job in pack} - {0})
    what = sorted(
        {job.spec.domain if array.phase == "pretrain" else job.spec.task for pack in array.packs for job in pack}
    )
    shown = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
    start = f" from {', '.join(map(format_frames, starts))}" if starts else ""
    name = "array" if record is None else f"{record.slurm_id} {record.name}"
    number = len(array.indices)
    elements = f"{number} element{'s' if number > 1 else ''}"
    wait = ""
    if array.dependency is not None:
        each = "each after its" if array.dependency.kind == "aftercorr" else "after its" if runs == 1 else "after their"
        wait = f", {each} pretraining" + (f" ({record.dependency})" if record is not None else "")
    slot = profile.for_phase(array.phase).slot_minutes
    return f"{name}: {runs} {array.phase} runs in {elements}, {shown}{start}, slots of {slot} min{wait}"


def _summarise(standing: Standing, submitted: Sequence[ArrayRecord], root: Path) -> int:
    done = sum(view.state == "done" for view in standing.views)
    before = len({view.job.path for view in standing.views} & standing.queue.keys() - standing.obstacles.keys())
    failed = [view for view in standing.views if view.state == "failed" and view.job.path in standing.obstacles]
    for line in _obstacle_lines(standing):
        print(line)
    total = len(standing.views)
    print(
        f"{len(standing.to_submit)} of {total} jobs submitted in {len(submitted)} arrays; "
        f"{done} were done and {before} in the queue before, in {root}"
    )
    if failed:
        print("failed jobs are not run again by themselves: mend the cause, then the same command with --rerun failed")
    if done == total:
        print(f"nothing to do: all {total} jobs are done")
    elif standing.to_submit or before:
        print(
            f"to watch: urlbench status --watch --runs {shlex.quote(str(root))}; "
            "the same command again submits what is missing"
        )
    return 1 if failed else 3 if standing.obstacles else 0


def _obstacle_lines(standing: Standing) -> Iterator[str]:
    for view in standing.views:
        if reason := standing.obstacles.get(view.job.path):
            word = "failed" if view.state == "failed" else "not submitted"
            yield f"{word}: {view.job.label}: {reason}"
