"""`urlbench run --executor slurm`: submits what is neither done nor in the queue, and returns."""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job, Plan
from urlbench.runs.plan import format_frames
from urlbench.runs.store import RunDirectory, queued_status
from urlbench.slurm.code_snapshot import take_snapshot
from urlbench.slurm.element import digest_of
from urlbench.slurm.grouping import ArrayPlan, group
from urlbench.slurm.limits import array_limit, configuration, in_room
from urlbench.slurm.profile import PHASES, Profile
from urlbench.slurm.records import ArrayRecord, Records, new_names, record_of
from urlbench.slurm.standing import Standing, stand
from urlbench.slurm.submission import Refused, adopt, dependency_text, submit


class Submitted(NamedTuple):
    """What became of the jobs that were to be submitted.

    Attributes:
        arrays: that Slurm has taken.
        refused: arrays that it has not, and those that wait for them.
        left: jobs for which the queue has no room.
    """

    arrays: list[ArrayRecord]
    refused: list[ArrayPlan]
    left: list[Job]


def run_on_slurm(plan: Plan, root: Path, profile: Profile, *, retry_failed: bool) -> int:
    """Submit what is left of a plan and say how to watch it; the exit code.

    0 if everything is done or in the queue, 1 if jobs have failed and are left alone, 3 if others are not submitted.

    Raises:
        UserError: if Slurm does not answer, or a folder cannot be used.
    """
    standing, submitted = submit_plan(plan, root, profile, retry_failed=retry_failed)
    if _failed(standing):
        return 1
    return 3 if standing.obstacles or submitted.refused or submitted.left else 0


def submit_plan(plan: Plan, root: Path, profile: Profile, *, retry_failed: bool) -> tuple[Standing, Submitted]:
    """Submit what is left of a plan and say how to watch it; where the jobs stood before, and what became of them.

    Raises:
        UserError: if Slurm does not answer, or a folder cannot be used.
    """
    check_path(root)
    records = Records(root)
    with records.lock():
        standing = stand(plan, root, retry_failed=retry_failed)
        submitted = submit_jobs(standing, records, profile)
    _summarise(standing, submitted, profile, root)
    return standing, submitted


def plan_arrays(standing: Standing, profile: Profile) -> tuple[list[ArrayPlan], list[Job]]:
    """The arrays that submitting would make, and the jobs for which the queue has no room.

    Asks the cluster for its array limit if the profile does not say.
    """
    in_queue = {
        view.job.id: standing.queue[view.job.path][0] for view in standing.views if view.job.path in standing.queue
    }
    for job in standing.to_submit:
        if job.parent_path in standing.queue and job.spec.parent is not None:
            in_queue[job.spec.parent] = standing.queue[job.parent_path][0]
    arrays = group(
        standing.to_submit,
        in_queue,
        runs_per_element={phase: profile.runs_per_element(phase) for phase in PHASES},
        most_elements=profile.max_array_size or max(array_limit(configuration())[0], 1),
        names=new_names(),
    )
    if profile.max_submitted is None:
        return arrays, []
    return in_room(arrays, profile.max_submitted - standing.in_queue)


def submit_jobs(standing: Standing, records: Records, profile: Profile) -> Submitted:
    """Submit what is to be submitted, as far as the queue has room, and say so; the lock of the records is held.

    Raises:
        UserError: if Slurm does not answer, or a folder cannot be used.
    """
    known = {record.name: record for record in records.all()}
    for place, entry in standing.queue.values():
        if known[place.array].slurm_id is None:
            known[place.array] = adopt(known[place.array], records, entry.job_id.partition("_")[0])
    submitted = Submitted([], [], [])
    if not standing.to_submit:
        return submitted
    arrays, left = plan_arrays(standing, profile)
    submitted.left.extend(left)
    _prepare(standing, records.root)
    if not arrays:
        return submitted
    code, digest = take_snapshot(records.folder / "code")
    for array in arrays:
        waits = array.dependency
        try:
            if waits is not None and waits.array not in known:
                raise Refused("what they wait for was refused")
            dependency = None if waits is None else dependency_text(array, known[waits.array])
            record = submit(record_of(array, dependency, profile, digest, _plugins(array)), records, code)
        except Refused as refusal:
            submitted.refused.append(array)
            print(f"refused: {describe_array(array, profile)}: {refusal}", flush=True)
        else:
            known[record.name] = record
            submitted.arrays.append(record)
            after = f" ({record.dependency})" if record.dependency else ""
            print(f"{record.slurm_id} {record.name}: {describe_array(array, profile)}{after}", flush=True)
    return submitted


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


def describe_array(array: ArrayPlan, profile: Profile) -> str:
    """What is in an array and what it waits for, on one line."""
    runs, elements = sum(map(len, array.packs)), len(array.indices)
    starts = sorted({job.spec.snapshot for pack in array.packs for job in pack} - {0})
    what = sorted({job.spec.place for pack in array.packs for job in pack})
    shown = ", ".join(what[:3]) + (f" and {len(what) - 3} more" if len(what) > 3 else "")
    start = f" from {', '.join(map(format_frames, starts))}" if starts else ""
    wait = ""
    if array.dependency is not None:
        each = "each after its" if array.dependency.kind == "aftercorr" else "after its" if runs == 1 else "after their"
        wait = f", {each} pretraining"
    return (
        f"{runs} {array.phase} runs in {elements} element{'s' if elements > 1 else ''}, {shown}{start}, "
        f"slots of {profile.for_phase(array.phase).slot_minutes} min{wait}{_empty_gpus(array, profile)}"
    )


def _empty_gpus(array: ArrayPlan, profile: Profile) -> str:
    """A warning about GPUs that no run uses; "" without any."""
    each, usable = profile.for_phase(array.phase).all_gpus, profile.usable_gpus(array.phase)
    empty = sum(each - min(usable, len(array.packs[index])) for index in array.indices)
    if not empty:
        return ""
    why = "some elements have fewer runs" if usable else "the profile's device is cpu"
    return f"; warning: {empty} of {each * len(array.indices)} GPUs stay empty, as {why}: ask for fewer"


def no_room(left: list[Job], profile: Profile) -> str:
    """A line about jobs for which the queue has no room."""
    return f"no room in the queue for {len(left)} jobs (max_submitted {profile.max_submitted})"


def _failed(standing: Standing) -> bool:
    """True if jobs have failed and are left alone."""
    return any(view.state == "failed" and view.job.path in standing.obstacles for view in standing.views)


def _summarise(standing: Standing, submitted: Submitted, profile: Profile, root: Path) -> None:
    done = sum(view.state == "done" for view in standing.views)
    before = len({view.job.path for view in standing.views} & standing.queue.keys() - standing.obstacles.keys())
    for line in _obstacle_lines(standing):
        print(line)
    total, new = len(standing.views), sum(len(paths) for record in submitted.arrays for paths in record.elements)
    print(
        f"{new} of {total} jobs submitted in {len(submitted.arrays)} arrays; "
        f"{done} were done and {before} in the queue before, in {root}"
    )
    if submitted.left:
        print(f"{no_room(submitted.left, profile)}; the same command submits them when there is")
    if submitted.refused:
        print("mend what was refused, then the same command submits it; what was submitted stays submitted")
    if _failed(standing):
        print("failed jobs are not run again by themselves: mend the cause, then the same command with --rerun failed")
    if done == total:
        print(f"nothing to do: all {total} jobs are done")
    elif new or before:
        print(
            f"to watch: urlbench status --watch --runs {shlex.quote(str(root))}; "
            "the same command again submits what is missing"
        )


def _obstacle_lines(standing: Standing) -> Iterator[str]:
    for view in standing.views:
        if reason := standing.obstacles.get(view.job.path):
            word = "failed" if view.state == "failed" else "not submitted"
            yield f"{word}: {view.job.label}: {reason}"
