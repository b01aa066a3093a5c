"""Where a run comes from: code, packages, machine and command line. Recorded, not part of its identity."""

import hashlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import urlbench

SNAPSHOT_FILE = "code_snapshot.json"  # beside a copy of the package that jobs of a cluster run
PACKAGES = ("dm_control", "metaworld", "mujoco", "numpy", "pydantic", "scipy", "torch")


def collect_manifest(
    *,
    device: str,
    threads: int,
    parent: dict[str, str] | None,
    plugins: Iterable[str] = (),
    renderer: str | None = None,
) -> dict[str, Any]:
    """What is worth knowing about this process.

    Args:
        device: torch device string the run uses.
        threads: of torch.
        parent: `id`, `path` and `snapshot_sha256` of what a fine-tuning starts from.
        plugins: files, of which the SHA-256 is recorded, or modules.
        renderer: what draws the pictures that the run sees, in words; None if it sees none.
    """
    return {
        "urlbench": urlbench.__version__,
        "git": git_state(),
        "code_snapshot": (code_snapshot() or {}).get("sha256"),
        "packages": _package_versions(),
        "plugins": {plugin: _digest(Path(plugin)) for plugin in plugins},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "gpu": _gpu_name(device),
            "renderer": renderer,
        },
        "host": socket.gethostname(),
        "device": device,
        "threads": threads,
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(),
        "parent": parent,
    }


def manifest_json(manifest: dict[str, Any]) -> str:
    """The text of manifest.json."""
    return json.dumps(manifest, indent=2) + "\n"


def git_state() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it; None if the package does not lie in a git checkout.

    Of a copy of the package that was made for a cluster's jobs, those of its original when the copy was made.
    """
    if (snapshot := code_snapshot()) is not None:
        git: dict[str, Any] | None = snapshot["git"]
        return git
    folder = str(Path(urlbench.__file__).parent)
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def code_snapshot() -> dict[str, Any] | None:
    """What the copy of the package that is running was made from; None if it is no such copy."""
    file = Path(urlbench.__file__).parent.parent / SNAPSHOT_FILE
    if not file.exists():
        return None
    description: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return description


def _git(folder: str, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu_name(device: str) -> str | None:
    if not device.startswith("cuda"):
        return None
    import torch  # only the worker gets here, and has imported it already

    return str(torch.cuda.get_device_name(device))
