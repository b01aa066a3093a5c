"""`urlbench doctor`: is this machine ready, and if not, what is missing?"""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from urlbench import __version__
from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.machine import usable_cores, visible_gpus
from urlbench.local.check import Check, made

_LEAST_FREE_BYTES = 5 * 2**30
_LONGEST_DRAWING = 120  # s


def run_checks(runs: Path) -> Iterator[Check]:
    """All checks, one after another, as they are made; `runs` is the folder of the runs."""
    for name, check in _CHECKS.items():
        yield made(name, partial(check, name, runs))


def _python(name: str, runs: Path) -> Check:
    version = platform.python_version()
    right = platform.python_version_tuple()[:2] == ("3", "11")
    return Check(
        name=name,
        result="ok" if right else "failed",
        detail=f"{version}, urlbench {__version__}" + ("" if right else "; urlbench needs Python 3.11: make venv"),
    )


def _packages(name: str, runs: Path) -> Check:
    pins = _pins(Path(__file__).parents[2] / "constraints.txt")
    if not pins:
        return Check(name=name, result="warning", detail="no constraints.txt beside the package to compare with")
    different, needed = [], _needed_packages("urlbench")
    for package in sorted(needed):
        found = metadata.version(package).partition("+")[0]
        if pins.get(_normal(package), found) != found:
            different.append(f"{package} {found} (tried with {pins[_normal(package)]})")
    if different:
        return Check(name=name, result="warning", detail=f"other versions: {', '.join(different)}; to pin: make venv")
    return Check(name=name, result="ok", detail=f"{len(needed)} packages as in constraints.txt")


def _torch(name: str, runs: Path) -> Check:
    import torch

    gpus = visible_gpus()
    cuda = torch.cuda.is_available()
    devices = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())) if cuda else ""
    text = f"{torch.__version__}, {'CUDA on ' + devices if cuda else 'CPU only'}"
    if gpus and not cuda:
        return Check(
            name=name,
            result="warning",
            detail=f"{text}, although {len(gpus)} GPU(s) are there; install a CUDA build of torch, or use --device cpu",
        )
    return Check(name=name, result="ok", detail=text)


def _cores(name: str, runs: Path) -> Check:
    return Check(name=name, result="ok", detail=f"{usable_cores()} usable, of {os.cpu_count()}")


def _memory(name: str, runs: Path) -> Check:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Check(
        name=name,
        result="ok" if gib >= 4 else "warning",
        detail=f"{gib:.1f} GiB" + ("" if gib >= 4 else "; use --workers 1"),
    )


def _runs_folder(name: str, runs: Path) -> Check:
    existing = next(folder for folder in (runs, *runs.resolve().parents) if folder.is_dir())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        detail = f"cannot write in {existing}: {error.strerror}; give another folder with --runs"
        return Check(name=name, result="failed", detail=detail)
    free = shutil.disk_usage(existing).free
    enough = free >= _LEAST_FREE_BYTES
    return Check(
        name=name,
        result="ok" if enough else "warning",
        detail=f"{runs} can be written, {free / 2**30:.1f} GiB free"
        + ("" if enough else "; make room before long runs"),
    )


def _environment(name: str, runs: Path) -> Check:
    import numpy as np

    suite = registry.load_suite("urlb-states")
    environment = registry.make_environment(suite, "walker_walk", 0)
    environment.reset()
    step = environment.step(np.zeros(environment.action_dim, np.float32))
    return Check(name=name, result="ok", detail=f"walker_walk made a step, observation {step.observation.shape}")


def _rendering(name: str, runs: Path) -> Check:
    # In a process of its own, which a broken graphics driver may end.
    command = [sys.executable, "-m", "urlbench.suites.rendering"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_DRAWING)
    if done.returncode == 0:
        return Check(name=name, result="ok", detail=done.stdout.strip())
    last = (done.stderr.strip().splitlines() or [""])[-1]
    if done.returncode < 0:
        last = f"drawing a picture ended with {signal.Signals(-done.returncode).name}; try MUJOCO_GL=osmesa or egl"
    return Check(name=name, result="warning", detail=f"only suites from pixels need it: {last}")


_CHECKS: dict[str, Callable[[str, Path], Check]] = {
    "python": _python,
    "packages": _packages,
    "torch": _torch,
    "cores": _cores,
    "memory": _memory,
    "runs folder": _runs_folder,
    "environment": _environment,
    "rendering": _rendering,
}


def _normal(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _pins(constraints: Path) -> dict[str, str]:
    if not constraints.is_file():
        return {}
    lines = [line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    return {_normal(package): version for package, _, version in (line.partition("==") for line in lines if line)}


def _needed_packages(package: str) -> set[str]:
    """Names of the packages that `package` requires, without its extras.

    Raises:
        UserError: if it is not installed.
    """
    try:
        requirements = metadata.requires(package) or []
    except metadata.PackageNotFoundError as error:
        raise UserError(f"{package} is imported from a folder without being installed; run: make venv") from error
    return {
        match[0] for line in requirements if "extra ==" not in line and (match := re.match(r"[A-Za-z0-9._-]+", line))
    }
