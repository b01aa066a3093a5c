"""The command line as a user calls it: in a process and a folder of its own, or in this one."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from processes import run_program

_ROOT = Path(__file__).parents[2]


def urlbench(folder: Path, *arguments: str) -> str:
    """What a command prints; it must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "urlbench", *arguments]
    done = run_program(command, cwd=folder, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Outcome:
    """Exit code and output of one command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Command = Callable[..., Outcome]
