"""Python files that users start from: their own tests and the linters must pass on them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETTINGS = str(ROOT / "pyproject.toml")


def checked(folder: Path, names: Sequence[str]) -> None:
    """Lint, check the types of and test the files of `folder` with these names; all must succeed."""
    ignored = "lint.per-file-ignores={'test_*'=['D']}"
    _run(folder, "ruff", "check", "--config", SETTINGS, "--config", ignored, *names)
    _run(folder, "ruff", "format", "--check", "--config", SETTINGS, *names)
    _run(folder, "mypy", "--config-file", SETTINGS, "--cache-dir", str(ROOT / ".mypy_cache"), *names)
    tests = [name for name in names if name.startswith("test_")]
    _run(folder, "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *tests)


def _run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MYPYPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
