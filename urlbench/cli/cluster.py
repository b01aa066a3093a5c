"""`--executor slurm` of `urlbench run` and `urlbench plan`, and the command `cancel`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from urlbench.cli.options import (
    RunAgentOption,
    RunPresetOption,
    RunsOption,
    RunSuiteOption,
    words,
)
from urlbench.core.errors import UserError

if TYPE_CHECKING:
    from urlbench.core.jobs import Plan
    from urlbench.local.run import Rerun
    from urlbench.slurm.profile import Profile


class Submission:
    """Hands plans to the cluster of a profile.

    Args:
        profile: of the cluster.
        wait: return when everything has ended.
    """

    def __init__(self, profile: "Profile", wait: bool) -> None:
        self._profile, self._wait = profile, wait

    def __call__(self, plan: "Plan", root: Path, rerun: "Rerun | None") -> int:
        """Submit what is left; the exit code."""
        from urlbench.local.run import set_others_aside
        from urlbench.slurm.run import run_on_slurm
        from urlbench.slurm.wait import run_and_wait

        if rerun == "stale":
            set_others_aside(plan, root)
        run = run_and_wait if self._wait else run_on_slurm
        return run(plan, root, self._profile, retry_failed=rerun == "failed")

    def arrays(self, plan: "Plan", root: Path) -> list[str]:
        """A line about each array that would be submitted, and one about jobs for which the queue has no room."""
        from urlbench.slurm.run import describe_array, no_room, plan_arrays
        from urlbench.slurm.standing import stand

        arrays, left = plan_arrays(stand(plan, root, retry_failed=False), self._profile)
        lines = [f"array: {describe_array(array, self._profile)}" for array in arrays]
        return [*lines, no_room(left, self._profile)] if left else lines


def submission(
    executor: Literal["local", "slurm"],
    cluster: Path | None,
    workers: int | None,
    threads: int | None,
    device: str,
    env_workers: int,
    runs_per_gpu: int | None,
    *,
    fail_fast: bool = False,
    wait: bool = False,
    stored: "Profile | None" = None,
) -> Submission | None:
    """What submits, or None for the local executor; the profile is `stored` where `cluster` names no other.

    Raises:
        UserError: for options that do not go together, or a wrong profile.
    """
    if executor == "local":
        if cluster is not None:
            raise UserError("--cluster is read with --executor slurm only; add that, or leave --cluster away.")
        if wait:
            raise UserError("--wait is for --executor slurm, as runs on this machine are waited for; leave it away.")
        return None
    from urlbench.slurm.profile import load_profile

    local = {
        "--workers": workers is not None,
        "--threads": threads is not None,
        "--device": device != "auto",
        "--env-workers": env_workers != 1,
        "--fail-fast": fail_fast,
    }
    if given := [name for name, is_given in local.items() if is_given]:
        raise UserError(
            f"{' and '.join(given)} {'are' if len(given) > 1 else 'is'} for runs on this machine; with "
            "--executor slurm the cluster profile says array_parallelism, threads, env_workers and device."
        )
    profile = stored if cluster is None else load_profile(cluster)
    if profile is None:
        raise UserError("--executor slurm needs a profile of the cluster; give its YAML file with --cluster.")
    if runs_per_gpu is not None:
        if runs_per_gpu < 1:
            raise UserError(f"--runs-per-gpu {runs_per_gpu} is too few; give at least 1.")
        profile = profile.model_copy(update={"runs_per_gpu": runs_per_gpu})
    return Submission(profile, wait)


def cancel(
    run_names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="job ids, beginnings of them, or run directories")
    ] = None,
    runs: RunsOption = Path("runs"),
    suite: RunSuiteOption = None,
    agent: RunAgentOption = None,
    preset: RunPresetOption = None,
    everything: Annotated[bool, typer.Option("--all", help="All runs of the folder.")] = False,
) -> None:
    """Take runs out of a cluster's queue; those that have begun save first and can be continued.

    A pretraining that other runs start from, too, stays.
    """
    from urlbench.cli.overview import find_run, not_shared, read_overview, uses_cluster
    from urlbench.slurm.control import cancel as cancel_on_slurm

    if not (run_names or suite or agent or preset or everything):
        raise UserError("name the runs to cancel, or choose them with --suite, --agent or --preset, or give --all.")
    overview = read_overview(runs, suite, words(agent), preset)
    if not run_names:
        overview = not_shared(overview, runs)
    root = runs.resolve()
    paths = [run.path for run in overview.runs if run.cluster_job]
    if run_names:
        named = {find_run(runs, name).read_job(root).path for name in run_names}
        paths = [path for path in paths if path in named]
    if overview.queue_problem:
        raise UserError(overview.queue_problem)
    if not paths or not uses_cluster(runs):
        raise UserError("none of these runs is in a cluster's queue; runs on this machine are stopped by Ctrl-C.")
    lines = cancel_on_slurm(root, paths)
    print("\n".join(lines))
    print("fine-tunings that wait for a cancelled pretraining leave the queue, too; to go on: the same run command")
