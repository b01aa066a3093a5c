"""The environment of Slurm's commands: what a caller has set there does not overrule the profile.

sbatch and srun take `SBATCH_TIMELIMIT` or `SLURM_MEM_PER_CPU` for options that were given, before those of the script,
and sbatch hands its whole environment on to the job. Users set such variables for calls of their own, and an
interactive job sets dozens.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_OPTIONS = ("SBATCH_", "SLURM_", "SRUN_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_")
# Where the cluster is, and who asks.
_ACCESS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")


def without_options(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment without what Slurm's commands would take for options."""
    return {name: value for name, value in environment.items() if name in _ACCESS or not name.startswith(_OPTIONS)}


@contextmanager
def options_hidden() -> Iterator[None]:
    """Hide from submitit, which calls sbatch in the environment of this process, what Slurm would take for options."""
    kept = without_options(os.environ)
    hidden = {name: value for name, value in os.environ.items() if name not in kept}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
