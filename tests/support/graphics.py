"""Whether this machine can render; tests that have to look skip otherwise, with what to install."""

import functools
import sys

import pytest
from processes import run_program


@functools.cache
def obstacle() -> str:
    """Why nothing can be rendered here, in one line; "" if it can."""
    command = [sys.executable, "-m", "urlbench.suites.rendering"]
    done = run_program(command)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


needs_renderer = pytest.mark.skipif(bool(obstacle()), reason=f"needs a renderer: {obstacle()}")
