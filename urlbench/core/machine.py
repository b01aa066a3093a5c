"""What this process may use of the machine it is on."""

import os
import shutil
import subprocess


def usable_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus() -> tuple[str, ...]:
    """Identifiers of the GPUs that this process may use; empty if there are none."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(part.strip() for part in visible.split(",") if part.strip() and part.strip() != "-1")
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    listing = subprocess.run([program, "-L"], capture_output=True, text=True, check=False, timeout=30)
    return tuple(str(index) for index, line in enumerate(listing.stdout.splitlines()) if line.startswith("GPU "))
