"""`urlbench doctor`: is this machine ready, and if not, what is missing?"""

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from urlbench import __version__
from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.machine import usable_cores, visible_gpus
from urlbench.core.requirements import advice, unmet, unmet_by_suite
from urlbench.local.check import Check, made

_LEAST_FREE_BYTES = 5 * 2**30
_LONGEST_DRAWING = 120  # s


def run_checks(runs: Path) -> Iterator[Check]:
    """All checks, one after another, as they are made; `runs` is the folder of the runs."""
    for name, check in _CHECKS.items():
        yield made(name, partial(check, name, runs))


def _python(name: str, runs: Path) -> Check:
    version, needed = platform.python_version(), SpecifierSet(_own_metadata()["Requires-Python"])
    right = needed.contains(version, prereleases=True)
    return Check(
        name=name,
        result="ok" if right else "failed",
        detail=f"{version}, urlbench {__version__}" + ("" if right else f"; install urlbench with a Python {needed}"),
    )


def _packages(name: str, runs: Path) -> Check:
    lines = [
        line
        for line in _own_metadata().get_all("Requires-Dist", [])
        if (marker := Requirement(line).marker) is None or marker.evaluate({"extra": ""})
    ]
    if problems := unmet(lines):
        return Check(name=name, result="failed", detail=f"urlbench needs {advice(problems)}")
    # Only a checkout has a list of the versions that were tried together.
    pins = _pins(Path(__file__).parents[2] / "constraints.txt")
    different = []
    for package in sorted(Requirement(line).name for line in lines):
        found = metadata.version(package).partition("+")[0]
        if pins.get(canonicalize_name(package), found) != found:
            different.append(f"{package} {found} (tried with {pins[canonicalize_name(package)]})")
    if different:
        return Check(name=name, result="warning", detail=f"other versions: {', '.join(different)}; to pin: make venv")
    as_where = "in constraints.txt" if pins else "urlbench needs them"
    return Check(name=name, result="ok", detail=f"{len(lines)} packages as {as_where}")


def _suites(name: str, runs: Path) -> Check:
    unfit = {suite: unmet_by_suite(registry.load_suite(suite)) for suite in registry.names("suite")}
    problems = {str(problem): problem for found in unfit.values() for problem in found}
    if problems:
        stopped = ", ".join(suite for suite, found in unfit.items() if found)
        return Check(name=name, result="failed", detail=f"{stopped}: {advice(problems.values())}")
    return Check(name=name, result="ok", detail=f"{len(unfit)} with the packages that they were checked with")


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
    "suites": _suites,
    "torch": _torch,
    "cores": _cores,
    "memory": _memory,
    "runs folder": _runs_folder,
    "environment": _environment,
    "rendering": _rendering,
}


def _pins(constraints: Path) -> dict[str, str]:
    if not constraints.is_file():
        return {}
    lines = [line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines()]
    parts = (line.partition("==") for line in lines if line)
    return {canonicalize_name(package): version for package, _, version in parts}


def _own_metadata() -> metadata.PackageMetadata:
    """What urlbench was installed with; UserError if it is not installed."""
    try:
        return metadata.metadata("urlbench")
    except metadata.PackageNotFoundError as error:
        raise UserError("urlbench is imported from a folder without being installed; run: make venv") from error
