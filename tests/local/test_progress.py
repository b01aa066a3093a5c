"""What a person sees while a plan runs."""

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from toy_runs import PLUGIN

from urlbench.local.executor import JobView
from urlbench.local.progress import LiveDisplay, PlainDisplay, Tracker, format_seconds, make_display
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory


@pytest.fixture
def views(tmp_path: Path) -> list[JobView]:
    """Two pretrainings of 100 frames and two fine-tunings of 80 frames, all waiting."""
    request = PlanRequest(
        suite="toy-states",
        agents=("toy",),
        tasks=("ball_left",),
        seeds=(0, 1),
        preset="smoke",
        plugins=(str(PLUGIN),),
    )
    views = []
    for job in make_plan(request).jobs:
        directory = RunDirectory(tmp_path / job.path)
        directory.prepare(job)
        views.append(JobView(job, directory, "waiting"))
    return views


def report(view: JobView, frame: int, speed: float | None) -> None:
    status = view.directory.read_status()
    assert status is not None
    changes = {"state": "running", "progress": frame, "per_second": speed}
    view.directory.write_status(status.model_copy(update=changes))


def begin(tracker: Any, view: JobView) -> None:
    view.state = "running"
    tracker.changed(view)


def test_time_left_is_unknown_before_anything_was_measured(views: list[JobView]) -> None:
    tracker = Tracker(views, workers=1)
    begin(tracker, views[0])
    with views[0].directory.lock():
        report(views[0], 40, None)
        tracker.refresh()
        assert tracker.remaining_seconds(views[0]) is None
        assert tracker.total_remaining_seconds() is None
        report(views[0], 40, 20.0)
        tracker.refresh()
    assert tracker.remaining_seconds(views[0]) == pytest.approx(60 / 20)


def test_a_kind_of_job_that_was_not_measured_counts_like_the_others(views: list[JobView]) -> None:
    tracker = Tracker(views, workers=1)
    begin(tracker, views[0])
    with views[0].directory.lock():
        report(views[0], 40, 20.0)
        tracker.refresh()
    # 60 frames of the first pretraining, 100 of the second, 80 of each fine-tuning, at 20 frames/s.
    assert tracker.total_remaining_seconds() == pytest.approx((60 + 100 + 80 + 80) / 20)


@pytest.mark.parametrize(("workers", "left"), [(1, 10 + 20), (2, 20)])
def test_time_left_is_shared_by_the_workers(views: list[JobView], workers: int, left: float) -> None:
    tracker = Tracker(views, workers=workers)
    for view, seconds in ((views[0], 50.0), (views[2], 20.0)):
        begin(tracker, view)
        view.state, view.seconds = "done", seconds
        tracker.changed(view)
    begin(tracker, views[1])
    with views[1].directory.lock():
        report(views[1], 90, 1.0)
        tracker.refresh()
    # 10 frames at 1 frame/s, and a fine-tuning, which took 20 s before.
    assert tracker.total_remaining_seconds() == pytest.approx(left)
    assert tracker.counts() == "2 done, 1 running, 1 waiting of 4 jobs"


def test_a_continued_job_counts_only_the_frames_it_made_now(views: list[JobView]) -> None:
    tracker = Tracker(views[:2], workers=1)
    report(views[0], 75, None)
    begin(tracker, views[0])
    views[0].state, views[0].seconds = "done", 5.0
    tracker.changed(views[0])
    # 25 frames in 5 s are 5 frames/s, so the 100 frames of the other pretraining take 20 s.
    assert tracker.total_remaining_seconds() == pytest.approx(20)


def test_plain_lines_for_changes_and_progress(views: list[JobView]) -> None:
    stream = io.StringIO()
    tracker = Tracker(views, workers=1)
    with PlainDisplay(tracker, stream, line_seconds=0) as display:
        begin(display, views[0])
        with views[0].directory.lock():
            report(views[0], 50, 25.0)
            display.tick()
        views[0].state, views[0].reason = "failed", "no [room] left"
        display.changed(views[0])
    assert stream.getvalue().splitlines() == [
        "running     toy pretrain ball seed 0",
        "progress    1 running, 3 waiting of 4 jobs; time left, about: 12s",
        "            toy pretrain ball seed 0: 50 of 100 frames, 25 frames/s, time left: 2s",
        "failed      toy pretrain ball seed 0: no [room] left",
    ]


def test_progress_lines_come_every_30_seconds_only(views: list[JobView]) -> None:
    stream = io.StringIO()
    display = PlainDisplay(Tracker(views, workers=1), stream)
    display.tick()
    assert stream.getvalue() == ""


@pytest.mark.parametrize(("width", "label"), [(80, "toy ball seed 0"), (140, "toy pretrain ball seed 0")])
def test_the_live_table_shows_what_runs_and_keeps_what_ended(views: list[JobView], width: int, label: str) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width, color_system=None)
    with LiveDisplay(Tracker(views, workers=1), console) as display:
        with views[0].directory.lock():
            report(views[0], 50, 25.0)
            begin(display, views[0])
        views[0].state, views[0].reason = "failed", "no [room] left"
        display.changed(views[0])
    text = stream.getvalue()
    assert label in text
    assert "50/100" in text
    assert "failed      toy pretrain ball seed 0: no [room] left\n" in text
    assert "3 waiting" in text


def test_a_pipe_gets_plain_lines(views: list[JobView]) -> None:
    assert isinstance(make_display(Tracker(views, workers=1), io.StringIO()), PlainDisplay)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "unknown"), (0, "0s"), (59.6, "1m 00s"), (125, "2m 05s"), (7260, "2h 01m")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert format_seconds(seconds) == text
