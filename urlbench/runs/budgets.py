"""How long a job is, and what that is counted in."""

from typing import Literal

from urlbench.core.jobs import JobSpec

Unit = Literal["frames", "updates", "episodes"]


def budget_of(spec: JobSpec) -> int:
    """The length of the job's phase, in `budget_unit`."""
    protocol = spec.protocol
    if spec.phase == "pretrain":
        return protocol.pretrain_budget
    return protocol.eval_episodes * protocol.search.goals if protocol.search else protocol.finetune_frames


def budget_unit(spec: JobSpec) -> Unit:
    """What the job's progress is counted in."""
    if spec.phase == "pretrain":
        return spec.protocol.pretrain_unit
    return "episodes" if spec.phase == "search" else "frames"
