"""`urlbench run`: prepare the run directories, run what is left, and say how it ended."""

import sys
from collections import Counter
from pathlib import Path
from typing import Literal

from urlbench.core.errors import UserError
from urlbench.core.jobs import Plan
from urlbench.core.machine import usable_cores
from urlbench.core.registry import load_suite
from urlbench.local.executor import (
    Executor,
    ExecutorOptions,
    JobView,
    exit_code,
    set_aside,
    wait_for_orphans,
)
from urlbench.local.progress import Tracker, make_display
from urlbench.runs.plan import PlanRequest, format_frames, pretraining_lines
from urlbench.runs.store import RunDirectory

_ORPHAN_SECONDS = 10.0
Rerun = Literal["failed", "stale"]


def describe_request(request: PlanRequest, plan: Plan) -> str:
    """What the request came to: every name, every seed and the number of jobs."""
    specs, suite = [job.spec for job in plan.jobs], load_suite(request.suite)
    pretrainings = sum(spec.phase == "pretrain" for spec in specs)
    snapshots = sorted({spec.snapshot for spec in specs if spec.snapshot})
    tasks = list(dict.fromkeys(spec.task for spec in specs if spec.phase != "pretrain"))
    goal_sets = sorted({spec.goal_set for spec in specs if spec.goal_set is not None and spec.phase != "pretrain"})
    protocol = suite.protocols[request.preset]
    lines = [
        f"suite {suite.full_name}, preset {request.preset}: "
        f"{len(specs)} jobs, {pretrainings} pretrain and {len(specs) - pretrainings} {suite.measured_phase}",
        f"agents: {', '.join(dict.fromkeys(request.agents))}",
        *pretraining_lines(request, plan),
        f"domains: {', '.join(dict.fromkeys(spec.domain for spec in specs))}",
        *([f"tasks: {', '.join(tasks)}"] if tasks else []),
        *([f"snapshots: {', '.join(map(format_frames, snapshots))} {protocol.pretrain_unit}"] if snapshots else []),
        *([f"goal sets: {', '.join(map(str, goal_sets))}"] if goal_sets else []),
        f"seeds: {', '.join(map(str, request.seeds))}",
    ]
    if protocol.reduced:
        lines.append(f"REDUCED BUDGET: {protocol.description}; marked in every result, never mixed with the paper's")
    return "\n".join(lines)


def run_plan(plan: Plan, root: Path, options: ExecutorOptions, rerun: Rerun | None) -> int:
    """Run what is left of the plan; the exit code.

    Args:
        plan: all jobs, also those that are done.
        root: folder of all runs.
        options: of this machine.
        rerun: `failed` runs jobs again that have failed; `stale` moves directories of other versions or
            specifications aside and runs their jobs from nothing.

    Raises:
        UserError: if a run directory belongs to something else or cannot be written, or if an agent's precision does
            nothing on this CPU.
    """
    if not options.gpus:
        _check_precisions(plan)
    if rerun == "stale":
        set_others_aside(plan, root)
    wait_for_orphans(plan, root, _ORPHAN_SECONDS)
    executor = Executor(plan, root, options, retry_failed=rerun == "failed")
    executor.prepare()
    views = executor.views
    total, done = len(views), sum(view.state == "done" for view in views)
    if done == total:
        print(f"nothing to do: all {total} jobs are done")
        return 0
    old_failures = [view for view in views if view.state == "failed"]
    left = sum(view.state == "waiting" for view in views)
    if left:
        _announce(total, done, left, options)
        tracker = Tracker(views, options.workers)
        with make_display(tracker, sys.stdout) as display:
            executor.listener = display
            executor.run()
    _summarise(executor, old_failures, root)
    return exit_code(views)


def _check_precisions(plan: Plan) -> None:
    """Refuse at once what each job would refuse on a CPU; GPUs are left to the jobs that they are shared out to."""
    from urlbench.core.precision import check_effect
    from urlbench.training.assembly import precision_of

    for precision in sorted({precision_of(job.spec) for job in plan.jobs}):
        check_effect(precision, "cpu")


def set_others_aside(plan: Plan, root: Path) -> None:
    """Move run directories of other versions or specifications out of the plan's way, and say so."""
    for job in plan.jobs:
        directory = RunDirectory(root / job.path)
        if directory.spec_file.exists() and _stored_id(directory) != job.id:
            with directory.lock():
                print(f"moved aside: {directory.path} is now {set_aside(directory.path)}")


def _stored_id(directory: RunDirectory) -> str | None:
    """The id in spec.json; None if that is damaged or of another version of urlbench."""
    try:
        return str(directory.read_spec()["id"])
    except UserError:
        return None


def _announce(total: int, done: int, left: int, options: ExecutorOptions) -> None:
    each = f"{options.threads} thread(s) each"
    if options.env_workers > 1:
        each += f", evaluations in {options.env_workers} processes each"
    print(f"{left} of {total} jobs to run, {done} are done; {options.workers} at a time, {each}")
    if options.gpus:
        print(f"GPUs shared out: {', '.join(options.gpus)}")
    cores = usable_cores()
    if options.cores > cores:
        print(
            f"note: {options.workers} workers of {options.threads} thread(s) and {options.env_workers} evaluation "
            f"process(es) are more than the {cores} cores; "
            "everything will be slower than with --workers, --threads and --env-workers left away"
        )
    sys.stdout.flush()


def _summarise(executor: Executor, old_failures: list[JobView], root: Path) -> None:
    views = executor.views
    failed = [view for view in views if view.state == "failed"]
    for view in failed:
        again = ", in an earlier run" if view in old_failures else ""
        print(f"failed{again}: {view.job.label}\n    reason: {view.reason or 'none given'}\n    log: {view.log}")
    for reason, number in Counter(view.reason for view in views if view.state == "blocked").items():
        print(f"not started: {number} {'job' if number == 1 else 'jobs'}, {reason}")
    done = sum(view.state == "done" for view in views)
    print(f"{done} of {len(views)} jobs are done, in {root}")
    if failed:
        print("failed jobs are not run again by themselves: mend the cause, then the same command with --rerun failed")
    if executor.interrupted:
        print("stopped on request; everything is saved, and the same command continues where it stopped")
    elif exit_code(views) == 3:
        print("not everything has run; the same command continues")


def check_folder(root: Path) -> Path:
    """The runs folder as an absolute path; UserError if it is a file."""
    if root.exists() and not root.is_dir():
        raise UserError(f"{str(root)!r} is a file; give --runs a folder.")
    return root.resolve()
