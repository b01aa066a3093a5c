"""Whether this machine can render; tests that have to look skip otherwise, with what to install."""

import functools
import subprocess
import sys

import pytest


@functools.cache
def obstacle() -> str:
    """Why nothing can be rendered here, in one line; "" if it can."""
    command = [sys.executable, "-m", "urlbench.suites.rendering"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


needs_renderer = pytest.mark.skipif(bool(obstacle()), reason=f"needs a renderer: {obstacle()}")
