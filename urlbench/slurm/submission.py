"""Hands arrays to Slurm, through submitit."""

import re
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import JobPaths, temporary_save_path
from submitit.helpers import DelayedSubmission

from urlbench.core.errors import UserError
from urlbench.slurm.element import Element
from urlbench.slurm.environment import options_hidden
from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.profile import Profile
from urlbench.slurm.records import ArrayRecord, Records

# submitit counts announced ends of a slot and gives up at a limit; a run is requeued as often as its budget needs.
_NEVER = 10**9
# What submitit raises when sbatch fails or answers something else, or when a program is not there.
REFUSALS = (RuntimeError, subprocess.SubprocessError, OSError)


class Refused(UserError):
    """Slurm does not take an array."""


def dependency_text(array: ArrayPlan, parents: ArrayRecord) -> str:
    """What an array waits for, in the words of sbatch.

    Args:
        array: with a dependency.
        parents: the array that it waits for; it was submitted.
    """
    assert array.dependency is not None, f"{array.name} waits for nothing"
    # A plain job, which has no index, follows the element 0.
    if array.dependency.kind == "aftercorr" and len(array.packs) > 1:
        return f"aftercorr:{parents.slurm_id}"
    return f"afterok:{parents.job_id(array.dependency.element or 0)}"


def submit(record: ArrayRecord, records: Records, code: Path) -> ArrayRecord:
    """Submit an array; its record with the id that Slurm gave it, which is written.

    Args:
        record: of an array that Slurm has not seen.
        records: of the runs folder.
        code: the copy of the package that the jobs run.

    Raises:
        Refused: with Slurm's reason; the record is gone then.
        UserError: if the record cannot be written.
    """
    records.write(record)
    try:
        executor = SlurmExecutor(records.log_folder(record.name), max_num_timeout=_NEVER)
        executor.update_parameters(**parameters(record, code))
        with options_hidden(), executor.batch():
            # submitit counts elements from 0 without gaps; what it stores for those in the gaps, nothing loads.
            jobs = [executor.submit(_element(record, records, index)) for index in range(len(record.elements))]
    except REFUSALS as error:
        records.remove(record.name)
        raise Refused(refusal(error)) from error
    submitted = record.model_copy(update={"slurm_id": str(jobs[0].job_id).partition("_")[0]})
    records.write(submitted)
    return submitted


def adopt(record: ArrayRecord, records: Records, slurm_id: str) -> ArrayRecord:
    """Complete an array that Slurm has although its submitting command was killed: its id, and what its jobs load.

    Args:
        record: of an array without an id.
        records: of the runs folder.
        slurm_id: of the array in the queue.
    """
    adopted = record.model_copy(update={"slurm_id": slurm_id})
    for index in record.indices:
        file = JobPaths(records.log_folder(record.name), adopted.job_id(index)).submitted_pickle
        if not file.exists():
            submission = DelayedSubmission(_element(record, records, index))
            submission.set_timeout(record.profile.for_phase(record.phase).slot_minutes, _NEVER)
            with temporary_save_path(file) as temporary:
                submission.dump(temporary)
    records.write(adopted)
    return adopted


def _element(record: ArrayRecord, records: Records, index: int) -> Element:
    return Element(str(records.root), record.name, index)


def refusal(error: Exception) -> str:
    """What sbatch wrote, without the parts that submitit adds."""
    lines = [line.strip() for line in str(error).splitlines() if "sbatch: error" in line]
    reason = "; ".join(line.removeprefix("sbatch: error:").strip() for line in lines) or " ".join(str(error).split())
    # The names of such limits in associations and qualities of service, and what sbatch says of all of them.
    if re.search(r"Submit\w*Limit|job submit limit", reason):
        reason += "; if you may have only so many jobs in the queue, write their number as max_submitted in the profile"
    return reason


def parameters(record: ArrayRecord, code: Path) -> dict[str, Any]:
    """What submitit is told about an array."""
    profile = record.profile
    resources = profile.for_phase(record.phase)
    extra = {**resources.extra, "requeue": True, "kill-on-invalid-dep": "yes"}
    if record.is_array:
        extra["array"] = f"{_ranges(record.indices)}%{resources.array_parallelism or len(record.indices)}"
    given: Mapping[str, Any] = {
        "partition": resources.partition,
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "gpus_per_node": (resources.gpus or None) if not resources.gpus_in_gres else None,
        "dependency": record.dependency,
        "mem": None if resources.memory_gib is None else f"{round(1024 * resources.memory_gib)}M",
    }
    return {
        "job_name": record.name,
        "time": resources.slot_minutes,
        "nodes": 1,
        "ntasks_per_node": 1,
        "cpus_per_task": resources.cpus,
        "signal_delay_s": profile.signal_seconds,
        "stderr_to_stdout": True,
        "wckey": None,
        "setup": list(_setup(profile, code)),
        # Else srun would take the job's own `export`, of which NONE loses what the lines above have set.
        "srun_args": ["--export=ALL"],
        "additional_parameters": extra,
        **{name: value for name, value in given.items() if value is not None},
    }


def _ranges(indices: Sequence[int]) -> str:
    """Indices, which ascend, in the words of sbatch: 0-3,5."""
    # Neighbours are as far from their positions.
    runs = [[index for _, index in run] for _, run in groupby(enumerate(indices), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _setup(profile: Profile, code: Path) -> Iterator[str]:
    """Shell lines before the job: the user's, then the code that is run, whatever folder the job starts in."""
    yield from profile.setup
    yield f"export PYTHONPATH={shlex.quote(str(code))}${{PYTHONPATH:+:$PYTHONPATH}}"
    yield "export PYTHONSAFEPATH=1"
    # srun would empty the log at each new start.
    yield "export SLURM_OPEN_MODE=append"
