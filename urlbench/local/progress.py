"""What a person sees while a plan runs: a live table on a terminal, plain lines everywhere else."""

import time
from collections import defaultdict
from collections.abc import Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self

from urlbench.local.executor import JobState, JobView
from urlbench.runs.budgets import budget_of, budget_unit
from urlbench.runs.plan import format_frames

if TYPE_CHECKING:
    from rich.console import Console, Group

_REFRESH_SECONDS = 1.0
_LINE_SECONDS = 30.0
_MOST_ROWS = 12
_BAR_WIDTH = 20
_WIDE = 120


class Tracker:
    """How far the jobs of a plan are, from their status files, and how long they will still take.

    Attributes:
        frames: frames (updates, episodes) done, by job id.
        speeds: the same per second, of the jobs that run now, by job id.
    """

    def __init__(self, views: Sequence[JobView], workers: int) -> None:
        """Follow `views`, of which at most `workers` run at the same time."""
        self.views, self.workers = views, workers
        self.frames: dict[str, int] = {}
        self.speeds: dict[str, float] = {}
        self._first_frames: dict[str, int] = {}
        self._group_speeds: dict[tuple[str, str], list[float]] = defaultdict(list)

    def refresh(self) -> None:
        """Read the status files of the jobs that run."""
        self.speeds.clear()
        for view in self.views:
            if view.state != "running":
                continue
            status = view.directory.read_status()
            if status is not None and status.state == "running":
                self.frames[view.job.id] = status.progress
                if status.per_second:
                    self.speeds[view.job.id] = status.per_second

    def changed(self, view: JobView) -> None:
        """Note where a job starts, and learn from a job that has ended how fast its kind is."""
        if view.state == "running":
            status = view.directory.read_status()
            self._first_frames[view.job.id] = status.progress if status is not None else 0
        elif view.state == "done" and view.seconds > 0:
            frames = budget_of(view.job.spec) - self._first_frames.get(view.job.id, 0)
            self._group_speeds[_group(view)].append(frames / view.seconds)

    def remaining_seconds(self, view: JobView) -> float | None:
        """Seconds that a running job will still take; None if its speed is not known yet."""
        speed = self.speeds.get(view.job.id)
        return (budget_of(view.job.spec) - self.frames.get(view.job.id, 0)) / speed if speed else None

    def total_remaining_seconds(self) -> float | None:
        """About how many seconds until all jobs are done; None before anything was measured.

        A kind of job (agent and phase) that was not measured yet counts as fast as the others on average.
        """
        measured = {group: list(values) for group, values in self._group_speeds.items()}
        for view in self.views:
            if view.job.id in self.speeds:
                measured.setdefault(_group(view), []).append(self.speeds[view.job.id])
        if not measured:
            return None
        speeds = {group: sum(values) / len(values) for group, values in measured.items()}
        average = sum(speeds.values()) / len(speeds)
        seconds = [0.0]
        for view in self.views:
            if view.state in ("running", "waiting"):
                speed = self.speeds.get(view.job.id) or speeds.get(_group(view), average)
                seconds.append((budget_of(view.job.spec) - self.frames.get(view.job.id, 0)) / speed)
        return max(max(seconds), sum(seconds) / self.workers)

    def counts(self) -> str:
        """One phrase with the number of jobs in each state."""
        states: list[JobState] = ["done", "running", "waiting", "failed", "interrupted", "blocked"]
        counted = [(state, sum(view.state == state for view in self.views)) for state in states]
        return ", ".join(f"{number} {state}" for state, number in counted if number) + f" of {len(self.views)} jobs"


def format_seconds(seconds: float | None) -> str:
    """A duration for people: `3h 05m`, `2m 10s`, `45s`, or `unknown`."""
    if seconds is None:
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h {minutes % 60:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def _group(view: JobView) -> tuple[str, str]:
    return view.job.spec.agent, view.job.spec.phase


class PlainDisplay:
    """One line for each change of state, and a line on the progress every 30 seconds."""

    def __init__(self, tracker: Tracker, stream: IO[str], line_seconds: float = _LINE_SECONDS) -> None:
        """Write to `stream`."""
        self._tracker, self._stream, self._line_seconds = tracker, stream, line_seconds
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        """Nothing to set up."""
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to clean up."""

    def changed(self, view: JobView) -> None:
        """Write what happened to one job."""
        self._tracker.changed(view)
        line = f"{view.state:<11} {view.job.label}"
        if view.state == "done":
            line += f" ({format_seconds(view.seconds)})"
        elif view.reason:
            line += f": {view.reason}"
        self._write(line)

    def tick(self) -> None:
        """Write how far everything is, every 30 seconds."""
        if time.monotonic() - self._last_line < self._line_seconds:
            return
        self._last_line = time.monotonic()
        self._tracker.refresh()
        remaining = format_seconds(self._tracker.total_remaining_seconds())
        self._write(f"progress    {self._tracker.counts()}; time left, about: {remaining}")
        for view in self._tracker.views:
            if view.state == "running":
                self._write(f"            {view.job.label}: {_how_far(self._tracker, view)}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def _short_label(view: JobView) -> str:
    """Agent, domain (of a pretraining) or task (of a fine-tuning), and seed."""
    spec = view.job.spec
    return f"{spec.agent} {spec.domain if spec.phase == 'pretrain' else spec.task} seed {spec.seed}"


def _how_far(tracker: Tracker, view: JobView) -> str:
    frames, speed = tracker.frames.get(view.job.id, 0), tracker.speeds.get(view.job.id)
    unit = budget_unit(view.job.spec)
    rate = f"{_speed(speed)} {unit}/s" if speed else "starting"
    left = format_seconds(tracker.remaining_seconds(view))
    return f"{frames:,} of {format_frames(budget_of(view.job.spec))} {unit}, {rate}, time left: {left}"


def _speed(per_second: float) -> str:
    """Whole frames; slow updates and episodes with two digits."""
    return f"{per_second:.0f}" if per_second >= 10 else f"{per_second:.2g}"


class LiveDisplay:
    """A table of what runs, how far it is and how long it still takes, redrawn once a second."""

    def __init__(self, tracker: Tracker, console: "Console") -> None:
        """Draw on `console`."""
        from rich.live import Live

        self._tracker, self._console = tracker, console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._started = self._last = time.monotonic()

    def __enter__(self) -> Self:
        """Start drawing."""
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing and leave the terminal clean."""
        self._live.__exit__(kind, error, trace)

    def changed(self, view: JobView) -> None:
        """Leave a lasting line about jobs that have ended; the others are in the table."""
        from rich.text import Text

        self._tracker.changed(view)
        if view.state not in ("running", "waiting"):
            colour = {"done": "green", "failed": "red"}.get(view.state, "yellow")
            rest = f" ({format_seconds(view.seconds)})" if view.state == "done" else f": {view.reason}"
            # One print: the live table is redrawn after each.
            line = Text.assemble((f"{view.state:<11} ", colour), view.job.label, rest)
            self._live.console.print(line, highlight=False)
        self._draw()

    def tick(self) -> None:
        """Redraw, at most once a second."""
        if time.monotonic() - self._last >= _REFRESH_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._last = time.monotonic()
        self._tracker.refresh()
        self._live.update(self._picture(), refresh=True)

    def _picture(self) -> "Group":
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        wide = self._live.console.width >= _WIDE
        table = Table(box=None, padding=(0, 1), pad_edge=False, expand=True)
        table.add_column("running", ratio=1, no_wrap=True)
        if wide:
            table.add_column("", width=_BAR_WIDTH)
        for heading in ("done", "a second", "time left"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
        running = [view for view in self._tracker.views if view.state == "running"]
        for view in running[:_MOST_ROWS]:
            frames, speed = self._tracker.frames.get(view.job.id, 0), self._tracker.speeds.get(view.job.id)
            budget = budget_of(view.job.spec)
            table.add_row(
                view.job.label if wide else _short_label(view),
                *([ProgressBar(total=budget, completed=frames, width=_BAR_WIDTH)] if wide else []),
                f"{frames}/{format_frames(budget)} {budget_unit(view.job.spec)}",
                _speed(speed) if speed else "starts",
                format_seconds(self._tracker.remaining_seconds(view)),
            )
        more = [Text(f"… and {len(running) - _MOST_ROWS} more")] if len(running) > _MOST_ROWS else []
        passed = format_seconds(time.monotonic() - self._started)
        left = format_seconds(self._tracker.total_remaining_seconds())
        return Group(table, *more, Text(f"{self._tracker.counts()}; {passed} passed, left, about: {left}"))


def make_display(tracker: Tracker, stream: IO[str]) -> PlainDisplay | LiveDisplay:
    """The live table if `stream` is a terminal, else plain lines."""
    if not stream.isatty():
        return PlainDisplay(tracker, stream)
    from rich.console import Console

    return LiveDisplay(tracker, Console(file=stream))
