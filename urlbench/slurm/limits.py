"""How much a cluster takes: elements of an array, and jobs in the queue."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from urlbench.core.jobs import Job
from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.queue import call

# Slurm's own default, for clusters that do not say.
_USUAL_MAX_ARRAY_SIZE = 1001


def configuration() -> dict[str, str]:
    """What Slurm is set to; UserError if it does not answer."""
    lines = (line.partition("=") for line in call("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def array_limit(settings: Mapping[str, str]) -> tuple[int, str]:
    """The most elements that an array may have, 0 where there are no arrays, and the setting that says so."""
    size, parameters = settings.get("MaxArraySize", ""), settings.get("SchedulerParameters", "")
    tasks = dict(one.partition("=")[::2] for one in parameters.split(",")).get("max_array_tasks", "")
    limits = {"MaxArraySize": size, "max_array_tasks": tasks}
    known = {name: int(value) for name, value in limits.items() if value.isdigit()}
    known.setdefault("MaxArraySize", _USUAL_MAX_ARRAY_SIZE)
    name = min(known, key=lambda one: known[one])
    return known[name], f"{name}={known[name]}"


def in_room(arrays: Sequence[ArrayPlan], room: int) -> tuple[list[ArrayPlan], list[Job]]:
    """What fits of arrays of which each comes after the one it waits for.

    Args:
        arrays: to be submitted.
        room: for so many elements.

    Returns:
        The arrays up to where there is no more room, the last one with its first elements only, and the runs of the
        elements that are left.
    """
    fitting, left = [], []
    for array in arrays:
        indices = array.indices
        taken, room = indices[: max(room, 0)], room - len(indices)
        if taken:
            fitting.append(replace(array, packs=array.packs[: taken[-1] + 1]))
        left += [job for index in indices[len(taken) :] for job in array.packs[index]]
    return fitting, left
