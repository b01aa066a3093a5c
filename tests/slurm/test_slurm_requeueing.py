"""What submitit calls on a node: an element, and its checkpoint in the handler of a signal."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import signalled

from urlbench.slurm import element
from urlbench.slurm.element import Element

NAME = "urlbench-0123456789"


class Announced(Exception):
    """Ends a call from a signal handler, as submitit does."""


class Python:
    """A script in place of Python, so that an element's child does what a test says."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.started, self._script = folder / "arguments", folder / "my python"
        monkeypatch.setattr(sys, "executable", str(self._script))

    def does(self, *lines: str) -> None:
        """Write the script; it says first that it has started."""
        head = f"trap 'exit 75' TERM\necho \"$*\" > '{self.started}'"
        self._script.write_text("\n".join(["#!/bin/sh", head, *lines, ""]))
        self._script.chmod(0o755)


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Python:
    return Python(tmp_path, monkeypatch)


def announced(one: Element, when: Callable[[], bool]) -> list[Any]:
    """What `checkpoint` returns to a handler of USR2 that comes while the element runs."""
    found: list[Any] = []

    def handle(number: int, frame: object) -> None:
        found.append(one.checkpoint())
        raise Announced

    before = signal.signal(signal.SIGUSR2, handle)
    try:
        with signalled(signal.SIGUSR2, when), pytest.raises(Announced):
            one()
    finally:
        signal.signal(signal.SIGUSR2, before)
    return found


FOREVER = "while true; do sleep 0.05; done"


def test_an_element_starts_its_own_child(python: Python) -> None:
    python.does("exit 0")
    Element("/my runs", NAME, 4)()
    assert python.started.read_text() == f"-m urlbench.slurm.element /my runs {NAME} 4\n"


@pytest.mark.parametrize(("line", "code"), [("exit 1", "1"), ("kill -KILL $$", "-9"), ("exit 75", "75")])
def test_an_element_that_ends_badly_has_failed(
    python: Python, monkeypatch: pytest.MonkeyPatch, line: str, code: str
) -> None:
    monkeypatch.setattr(element, "_UNTIL_SLURM_ENDS_US", 0.0)
    python.does(line)
    with pytest.raises(RuntimeError, match=f"element 4 of {NAME} ended with exit code {code}"):
        Element("/runs", NAME, 4)()


def test_an_announced_end_saves_and_queues_the_same_element_again(python: Python) -> None:
    python.does(FOREVER)
    (submission,) = announced(Element("/my runs", NAME, 4), python.started.exists)
    python.started.unlink()
    python.does("exit 0")
    submission.function(*submission.args, **submission.kwargs)
    assert python.started.read_text() == f"-m urlbench.slurm.element /my runs {NAME} 4\n"


def test_an_element_that_was_told_to_stop_before_is_queued_again(python: Python) -> None:
    # Preempted, Slurm sends SIGTERM to all processes first.
    python.does("exit 75")
    one = Element("/runs", NAME, 4)

    def has_ended() -> bool:
        return one._child is not None and bool(os.waitid(os.P_PID, one._child, os.WEXITED | os.WNOWAIT | os.WNOHANG))

    assert announced(one, has_ended)[0] is not None


def test_an_element_that_fails_meanwhile_is_not_queued_again(python: Python) -> None:
    python.does("trap 'exit 1' TERM", FOREVER)
    assert announced(Element("/runs", NAME, 4), python.started.exists) == [None]


def test_an_end_that_is_announced_before_the_start_queues_again() -> None:
    assert Element("/runs", NAME, 4).checkpoint() is not None
