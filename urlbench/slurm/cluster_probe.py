"""What the doctor's job looks at on a node of the cluster.

The job runs twice. First it makes its checks and asks Slurm to announce the end of its slot, as happens to runs whose
slot is too short; submitit then queues it again, and the second start shows that this works.
"""

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from submitit.helpers import DelayedSubmission

from urlbench import __version__
from urlbench.core.durable import write_atomic
from urlbench.core.machine import usable_cores, visible_gpus
from urlbench.local.check import Check, made
from urlbench.runs.manifest import code_snapshot
from urlbench.slurm.profile import Profile

# Files of the probe's folder, in the order in which they appear.
TOKEN, LOCK, FOUND, TOLD, RESTARTED = "token", "lock", "found.json", "told", "restarted.json"

_SECONDS_OF_SLURM = 60
# Drawing a picture alone may take two minutes where there is no GPU.
_LONGEST_DOCTOR = 240
_TOLD_WITHIN = 60.0


def installed() -> dict[str, str]:
    """Versions of all packages that can be imported, by name."""
    return {package.name: package.version for package in metadata.distributions()}


class Probe:
    """The callable that submitit stores and starts on a node.

    Args:
        folder: of the probe, below the runs folder.
        root: the runs folder.
        token: what the file TOKEN holds.
        code: digest of the copy of urlbench that the job is to run.
        packages: `installed()` where the job was submitted.
        profile: of the cluster; the job asks for the resources of pretraining.
    """

    def __init__(
        self, folder: Path, root: Path, token: str, code: str, packages: dict[str, str], profile: Profile
    ) -> None:
        self._folder, self._root, self._token, self._code = folder, root, token, code
        self._packages, self._profile = packages, profile

    def __call__(self) -> None:
        """Make the checks and wait to be told; at the second start only say so."""
        if (self._folder / TOLD).exists():
            count = os.environ.get("SLURM_RESTART_COUNT", "0")
            self._write(RESTARTED, json.dumps({"host": socket.gethostname(), "restarts": int(count)}))
            return
        self._write(FOUND, json.dumps([check.model_dump() for check in self.checks()]))
        # Like Slurm before the end of a slot: to the steps of the job, not to its script.
        command = ["scancel", "--signal=USR2", os.environ["SLURM_JOB_ID"]]
        subprocess.run(command, check=True, timeout=_SECONDS_OF_SLURM)
        time.sleep(_TOLD_WITHIN)
        print(f"not told by USR2 within {_TOLD_WITHIN:.0f} s", flush=True)

    def checkpoint(self) -> DelayedSubmission:
        """What submitit calls when Slurm announces the end; the submission that is queued again."""
        self._write(TOLD, socket.gethostname())
        return DelayedSubmission(self)

    def checks(self) -> Iterator[Check]:
        """What a run would meet here."""
        for name, check in (
            ("node", self._node),
            ("shared folder", self._shared_folder),
            ("file locks", self._file_locks),
            ("code", self._running_code),
            ("packages", self._same_packages),
            ("GPUs", self._gpus),
            ("scratch", self._scratch),
        ):
            name = name if name == "node" else f"node {name}"
            yield made(name, partial(check, name))
        yield from self._doctor()

    def _write(self, name: str, content: str) -> None:
        write_atomic(self._folder / name, content, remedy="run the doctor again")

    def _node(self, name: str) -> Check:
        asked, cores = self._profile.pretrain.cpus, usable_cores()
        found = f"{socket.gethostname()}, {cores} cores"
        if cores < asked:
            return Check(name=name, result="warning", detail=f"{found}, although the profile asks for {asked}")
        return Check(name=name, result="ok", detail=found)

    def _shared_folder(self, name: str) -> Check:
        if (self._folder / TOKEN).read_text(encoding="utf-8") == self._token:
            return Check(name=name, result="ok", detail=f"{self._root} is the same here")
        detail = f"{self._root} is another one here; give --runs a folder on a disk that all nodes share"
        return Check(name=name, result="failed", detail=detail)

    def _file_locks(self, name: str) -> Check:
        with (self._folder / LOCK).open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Check(name=name, result="ok", detail="a lock that is held elsewhere holds here")
            except OSError as error:
                detail = f"{self._root} has no file locks ({error.strerror}); give --runs a folder on another disk"
                return Check(name=name, result="failed", detail=detail)
        detail = (
            f"a lock in {self._root} that is held elsewhere does not hold here: two processes could write one run; "
            "never run the same jobs on the cluster and by --executor local at once, or use another disk"
        )
        return Check(name=name, result="warning", detail=detail)

    def _running_code(self, name: str) -> Check:
        running = (code_snapshot() or {}).get("sha256")
        if running == self._code:
            return Check(name=name, result="ok", detail=f"urlbench {__version__}, the copy that was submitted")
        detail = f"another urlbench than was submitted, {__version__}; see what the setup lines of the profile do"
        return Check(name=name, result="failed", detail=detail)

    def _same_packages(self, name: str) -> Check:
        here = installed()
        different = [
            f"{package} {here.get(package, 'missing')} (submitted with {version})"
            for package, version in sorted(self._packages.items())
            if here.get(package) != version
        ]
        if different:
            detail = f"other versions: {', '.join(different)}; let the nodes see the same environment"
            return Check(name=name, result="failed", detail=detail)
        return Check(name=name, result="ok", detail=f"{len(self._packages)} packages as where it was submitted")

    def _gpus(self, name: str) -> Check:
        asked, device = self._profile.pretrain.all_gpus, self._profile.device
        if device == "cpu" or (not asked and device == "auto"):
            return Check(name=name, result="ok", detail="none asked for")
        given, wanted = len(visible_gpus()), max(asked, 1)
        if given < wanted:
            detail = f"Slurm gives {given} of {wanted}; ask for them by gpus or, with a type, by gres in the profile"
            return Check(name=name, result="failed", detail=detail)
        code = "import torch; print(torch.cuda.device_count())"
        usable = int(_run([sys.executable, "-c", code], _LONGEST_DOCTOR).stdout or 0)
        if usable < wanted:
            detail = (
                f"Slurm gives {given}, torch can use {usable}; install a CUDA build of torch that fits the node's "
                "driver, or write device: cpu"
            )
            return Check(name=name, result="failed", detail=detail)
        return Check(name=name, result="ok", detail=f"Slurm gives {given}, torch can use {usable}")

    def _scratch(self, name: str) -> Check:
        parent = os.path.expandvars(self._profile.scratch) if self._profile.scratch else tempfile.gettempdir()
        try:
            with tempfile.TemporaryFile(dir=parent):
                pass
        except OSError as error:
            detail = f"cannot write in {parent}: {error.strerror}; correct scratch in the profile"
            return Check(name=name, result="failed", detail=detail)
        return Check(name=name, result="ok", detail=f"{parent} can be written")

    def _doctor(self) -> Iterator[Check]:
        """What `urlbench doctor` says of the node."""
        command = [sys.executable, "-m", "urlbench", "doctor", "--runs", str(self._root), "--json"]
        try:
            done = _run(command, _LONGEST_DOCTOR)
        except subprocess.TimeoutExpired:
            detail = (
                f"urlbench did not come to an end on the node within {_LONGEST_DOCTOR} s; see whether it is overloaded"
            )
            yield Check(name="node doctor", result="failed", detail=detail)
            return
        try:
            found: list[dict[str, Any]] = json.loads(done.stdout)
        except json.JSONDecodeError:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            yield Check(name="node doctor", result="failed", detail=f"urlbench does not run on the node: {last}")
            return
        for one in map(Check.model_validate, found):
            # Compared above: the copy of the package has no list of pinned versions beside it.
            if one.name not in ("packages", "cores"):
                yield one.model_copy(update={"name": f"node {one.name}"})


def _run(command: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
