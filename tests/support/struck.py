"""A process that a signal strikes at a moment that depends on no clock: when it is about to do something to a file.

    python struck.py SIGNAL COUNT FOLDER MODULE [ARGUMENT…]

runs a module as `python -m` does, and sends the process the signal at the COUNT-th time that it is about to open,
rename or remove something below FOLDER. What a killed process leaves behind is decided by what it had done to files.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_FORKS = multiprocessing.get_context("fork")
_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}


def strike(number: int, count: int, folder: Path) -> None:
    """Send this process a signal at the `count`-th time from now that it is about to touch a file below `folder`."""
    left = count

    def touch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if left and event in _EVENTS and str(arguments[0]).startswith(f"{folder}{os.sep}"):
            left -= 1
            if not left:
                os.kill(os.getpid(), number)

    sys.addaudithook(touch)


def killed(function: Callable[[], object], count: int, folder: Path) -> bool:
    """Call a function in a process that kill -9 ends at that time; False if the function came to its end before.

    A fork has everything imported already, so that its work is all that it does.
    """

    def work() -> None:
        with open(os.devnull, "w") as nowhere:
            sys.stdout = sys.stderr = nowhere
            strike(signal.SIGKILL, count, folder)
            function()

    process = _FORKS.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


if __name__ == "__main__":
    signal_name, how_often, below, module = sys.argv[1:5]
    sys.argv[1:] = sys.argv[5:]
    strike(signal.Signals[signal_name], int(how_often), Path(below).resolve())
    runpy.run_module(module, run_name="__main__", alter_sys=True)
