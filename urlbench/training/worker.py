"""One process that runs one run directory: `python -m urlbench.training.worker RUN_DIR --runs ROOT`.

The local executor, a cluster and a test all start a job like this. Exit codes: 0 done, 1 failed (the reason is in
status.json, the traceback in the output), 75 interrupted with a checkpoint: the same command continues.
"""

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from urlbench.core.errors import UserError
from urlbench.core.registry import load_plugin
from urlbench.runs.store import RunDirectory

EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED = 0, 1, 75
CHECKPOINT_SECONDS_VARIABLE = "URLBENCH_CHECKPOINT_SECONDS"
_PARENT_CHECK_SECONDS = 1.0


class StopRequest:
    """Knows whether the run must stop: a signal came, or the process that started us is gone.

    Args:
        parent_pid: of the process that started us; None to outlive it.
    """

    def __init__(self, parent_pid: int | None) -> None:
        self._parent_pid, self._reason, self._next_check = parent_pid, "", 0.0

    def listen(self) -> None:
        """Take SIGTERM and SIGINT as requests."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._reason = f"stopped by {signal.Signals(number).name}"

    def __call__(self) -> str:
        """Why to stop, or an empty string."""
        now = time.monotonic()
        if not self._reason and self._parent_pid is not None and now >= self._next_check:
            self._next_check = now + _PARENT_CHECK_SECONDS
            if os.getppid() != self._parent_pid:
                self._reason = f"stopped because process {self._parent_pid}, which started it, is gone"
        return self._reason


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a prepared run directory; the exit code."""
    options = _parser().parse_args(arguments)
    stop = StopRequest(options.parent_pid)
    stop.listen()
    directory = RunDirectory(options.run_dir)
    try:
        job = directory.read_job(options.runs)
        with directory.lock():
            for plugin in job.plugins:
                load_plugin(plugin)
            # Only here, so that a refused second worker costs no import of torch.
            from urlbench.training.job import run_job

            outcome = run_job(
                job,
                directory,
                runs_root=options.runs,
                threads=options.threads,
                device=options.device,
                stop=stop,
                checkpoint_seconds=options.checkpoint_seconds,
                env_workers=options.env_workers,
            )
    except UserError as error:
        print(error, file=sys.stderr, flush=True)
        return EXIT_FAILED
    except Exception:
        traceback.print_exc()
        return EXIT_FAILED
    return EXIT_DONE if outcome == "done" else EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m urlbench.training.worker", description="Run one prepared run directory."
    )
    parser.add_argument("run_dir", type=Path, help="the run directory; it holds spec.json")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of all runs")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu", help="a torch device, or auto")
    parser.add_argument("--env-workers", type=int, default=1, help="processes that play evaluation episodes")
    parser.add_argument("--parent-pid", type=int, default=None, help="stop, with a checkpoint, if this process ends")
    parser.add_argument(
        "--checkpoint-seconds",
        type=float,
        default=float(os.environ.get(CHECKPOINT_SECONDS_VARIABLE, "120")),
        help=f"wall-clock time between checkpoints (default: ${CHECKPOINT_SECONDS_VARIABLE} or 120)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
