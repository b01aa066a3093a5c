"""Processes that tests start, and waiting for what they do; nothing here says how long anything takes.

`conftest.py` sees to it that they take signals however the tests were started.
"""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

# What takes longer hangs: far longer than anything here takes on a machine that has much else to do.
HANG_SECONDS = 1800.0
_POLL_SECONDS = 0.02


def run_program(command: Sequence[str], *, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; its exit code and, as text, what it says.

    Args:
        command: the program and its arguments.
        check: it must succeed.
        options: of `subprocess.run`.
    """
    given = {"capture_output": True, "text": True, "timeout": HANG_SECONDS, **options}
    done = subprocess.run(command, check=False, **given)
    assert not check or done.returncode == 0, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that runs beside the test, and is killed at the end if it still does.

    Args:
        command: the program and its arguments.
        options: of `subprocess.Popen`; what it says is kept for `finish`, unless they say otherwise.
    """
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, **options}
    with subprocess.Popen(command, **given) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> str:
    """What a process has said, once it has ended by itself."""
    return process.communicate(timeout=HANG_SECONDS)[0]


def wait_until(condition: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None) -> None:
    """Wait until a condition holds; the test fails if the process that is to bring it about ends before."""
    limit = time.monotonic() + HANG_SECONDS
    while not condition():
        # What it did last may have been what is waited for.
        if process is not None and process.poll() is not None and not condition():
            pytest.fail(f"{what}: not before the process ended with exit code {process.returncode}")
        if time.monotonic() > limit:
            pytest.fail(f"{what}: not within {HANG_SECONDS:.0f} s")
        time.sleep(_POLL_SECONDS)


@contextmanager
def signalled(number: int, when: Callable[[], object]) -> Iterator[None]:
    """Send this process a signal as soon as something is so; what the block does has to wait for the signal."""
    over, limit = threading.Event(), time.monotonic() + HANG_SECONDS

    def watch() -> None:
        while not when() and time.monotonic() < limit:
            if over.wait(_POLL_SECONDS):
                return
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
