"""Figures with a line for each agent: what was measured and scores against frames, and performance profiles."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from urlbench.reports.appearance import Look, looks
from urlbench.reports.efficiency import ALL_TASKS, Panels
from urlbench.reports.figure_parts import mark_panel, shows
from urlbench.reports.figures import Canvas, line_style, shown
from urlbench.reports.score_tables import curve, evaluation_frames
from urlbench.results.cells import Results
from urlbench.results.score_kinds import kind_of
from urlbench.statistics.estimates import Floats, task_mean
from urlbench.statistics.profiles import Profile

_MOST_COLUMNS = 4
# With more agents than this their bands hide the lines, and points on every line hide each other.
_MOST_BANDS = 14


def learning_figure(results: Results, title: str, foot: Sequence[str]) -> Figure:
    """A panel per task: what was measured against fine-tuning frames, with a band of one standard error."""
    frames = evaluation_frames(results)
    palette = looks([agent.label for agent in results.agents])
    columns = min(_MOST_COLUMNS, len(results.tasks))
    rows = -(-len(results.tasks) // columns)
    canvas = Canvas.of(0.25 + 1.45 * rows, title, foot, palette)
    for index, (axes, task) in enumerate(
        zip(canvas.grid(rows, columns, len(results.tasks)), results.tasks, strict=True)
    ):
        for label, look in palette.items():
            with shows(axes, label):
                _draw_returns(axes, curve(results, label, task, frames), frames, look, band=len(palette) <= _MOST_BANDS)
        mark_panel(axes, results.suite.task(task).domain)
        axes.set_title(shown(task))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        _frames_axis(axes)
        if index % columns == 0:
            axes.set_ylabel(kind_of(results.suite).measured)
    return canvas.finished("fine-tuning frames")


def score_curves_figure(panels: Panels, title: str, foot: Sequence[str], x_label: str, score: str) -> Figure:
    """A panel per group of tasks: mean score against frames, with the interval as a band.

    Source: the form of Mazzaglia et al. 2023 (Choreographer), fig. 4.

    Args:
        panels: the curves by the name of the group and the agent's label.
        title: of the figure.
        foot: what is said below it.
        x_label: what the frames are.
        score: what a score is called.
    """
    palette = looks(list(next(iter(panels.values()))))
    columns = min(_MOST_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    canvas = Canvas.of(0.25 + 1.75 * rows, title, foot, palette)
    for index, (axes, (name, curves)) in enumerate(
        zip(canvas.grid(rows, columns, len(panels)), panels.items(), strict=True)
    ):
        for label, look in palette.items():
            one = curves[label]
            with shows(axes, label):
                ends = one.values, one.lows, one.highs
                _draw_line(axes, one.frames, ends, look, band=len(palette) <= _MOST_BANDS)
        if name != ALL_TASKS:
            mark_panel(axes, name)
        axes.set_title(shown(name))
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        _frames_axis(axes)
        if index % columns == 0:
            axes.set_ylabel(f"mean {score}")
    return canvas.finished(x_label)


def profiles_figure(profiles: Mapping[str, Profile], title: str, foot: Sequence[str], score: str) -> Figure:
    """The fraction of runs whose score is above each threshold, with the interval as a band.

    Source: Agarwal et al. 2021, sec. 4.2 (score distributions).

    Args:
        profiles: by the agent's label.
        title: of the figure.
        foot: what is said below it.
        score: what a score is called.
    """
    palette = looks(list(profiles))
    band = len(palette) <= _MOST_BANDS
    canvas = Canvas.of(2.9, title, foot, palette)
    (axes,) = canvas.grid(1, 1, 1)
    for label, look in palette.items():
        one = profiles[label]
        every = max(1, len(one.thresholds) // 12)
        with shows(axes, label):
            _draw_line(axes, one.thresholds, (one.values, one.lows, one.highs), look, band=band, every=every)
    axes.set_ylim(0, 1.02)
    thresholds = next(iter(profiles.values())).thresholds
    axes.set_xlim(float(thresholds[0]), float(thresholds[-1]))
    axes.set_ylabel("fraction of runs above τ")
    return canvas.finished(f"{score} τ")


def _draw_returns(axes: Axes, values: Floats, frames: Sequence[int], look: Look, *, band: bool) -> None:
    if not len(values):
        return
    means = [task_mean(column) for column in values.T]
    middle = np.array([mean.mean for mean in means], dtype=np.float64)
    errors = np.array([np.nan if mean.standard_error is None else mean.standard_error for mean in means])
    _draw_line(axes, frames, (middle, middle - errors, middle + errors), look, band=band)


def _draw_line(
    axes: Axes,
    x: Floats | Sequence[int],
    ends: tuple[Floats, Floats, Floats],
    look: Look,
    *,
    band: bool,
    every: int = 1,
) -> None:
    """Draw values, the first of `ends`, with a marker at each `every`th, and the band between the two others."""
    values, lows, highs = ends
    axes.plot(x, values, **line_style(look) | {"markersize": 2.8, "markevery": every})
    if band and not np.isnan(lows).all():
        axes.fill_between(x, lows, highs, color=look.colour, alpha=0.16, linewidth=0)


def _frames_axis(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.locator_params(axis="x", nbins=4)
    axes.set_xlim(left=min(0.0, axes.get_xlim()[0]))
