"""Keeps status.json fresh while a run is under way."""

import time
from collections import deque

from urlbench.runs.store import RunDirectory, Status

_PERIOD_SECONDS = 2.0
_WINDOW_SECONDS = 30.0


class Heartbeat:
    """Writes where the run stands, at most every two seconds.

    Args:
        directory: of the run.
        status: what is the same in every write.
    """

    def __init__(self, directory: RunDirectory, status: Status) -> None:
        self._directory, self._status = directory, status
        self._next = 0.0
        self._history: deque[tuple[float, int]] = deque()

    def beat(self, progress: int) -> None:
        """Write the status if it is time to."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _PERIOD_SECONDS
        self._history.append((now, progress))
        while now - self._history[0][0] > _WINDOW_SECONDS and len(self._history) > 2:
            self._history.popleft()
        since, start = self._history[0]
        speed = (progress - start) / (now - since) if now > since else None
        self._directory.write_status(self._status.model_copy(update={"progress": progress, "per_second": speed}))
