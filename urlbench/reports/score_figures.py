"""Figures with a row for each agent: the aggregates with their intervals, and the mean score of each domain."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from urlbench.reports.appearance import Look, looks
from urlbench.reports.figure_parts import mark_panel, shows
from urlbench.reports.figures import Canvas, name_rows, row_height, shown
from urlbench.statistics.aggregates import AGGREGATES
from urlbench.statistics.estimates import Estimate

_LOWER_IS_BETTER = frozenset({"Optimality gap"})
_MOST_COLUMNS = 4


def aggregates_figure(
    overall: Mapping[str, Mapping[str, Estimate]],
    title: str,
    foot: Sequence[str],
    score: str,
    published: Collection[str],
) -> Figure:
    """A panel for each aggregate, a row for each agent: the estimate as its marker, the interval as a bar.

    Args:
        overall: estimates by agent label and aggregate.
        title: of the figure.
        foot: what is said below it.
        score: what a score is called.
        published: labels of agents whose scores are summaries; their marks are hollow and their bars outlined.
    """
    agents = list(overall)
    canvas = Canvas.of(0.55 + row_height(agents) * len(agents), title, foot)
    palette = looks(agents, published)
    # Of sources without numbers of seeds there is the mean alone.
    known = [name for name in AGGREGATES if any(row[name].value is not None for row in overall.values())]
    names = known or AGGREGATES
    for column, (axes, name) in enumerate(zip(canvas.grid(1, len(names), len(names)), names, strict=True)):
        for row, agent in enumerate(agents):
            with shows(axes, agent):
                _draw_interval(axes, row, overall[agent][name], palette[agent])
        axes.set_title(f"{name} {'↓' if name in _LOWER_IS_BETTER else '↑'}")
        name_rows(axes, agents, with_names=column == 0)
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
    return canvas.finished(f"{score} (↑ higher is better, ↓ lower is better)")


def domains_figure(
    domains: Mapping[str, Mapping[str, Estimate]],
    title: str,
    foot: Sequence[str],
    score: str,
    published: Collection[str],
) -> Figure:
    """A panel for each domain, a bar for each agent: its mean score, the interval as a line across its end.

    Source: the form of Mazzaglia et al. 2023 (Choreographer), fig. 3, whose lines are standard deviations.

    Args:
        domains: estimates by agent label and domain.
        title: of the figure.
        foot: what is said below it; tells what the intervals are.
        score: what a score is called.
        published: labels of agents whose scores are summaries; their marks are hollow and their bars outlined.
    """
    agents = list(domains)
    names = list(next(iter(domains.values())))
    columns = min(_MOST_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    canvas = Canvas.of(rows * (0.55 + row_height(agents) * len(agents)), title, foot)
    palette = looks(agents, published)
    panels = canvas.grid(rows, columns, len(names))
    for panel, (axes, name) in enumerate(zip(panels, names, strict=True)):
        for row, agent in enumerate(agents):
            with shows(axes, agent):
                _draw_bar(axes, row, domains[agent][name], palette[agent])
        mark_panel(axes, name)
        axes.set_title(shown(name))
        name_rows(axes, agents, with_names=panel % columns == 0)
        axes.locator_params(axis="x", nbins=5)
    known = [axes.dataLim for axes in panels if np.isfinite(axes.dataLim.x0)]
    if known:
        # The same for all, and bars that point to one side begin at the edge.
        low, high = min(0.0, *(limits.x0 for limits in known)), max(0.0, *(limits.x1 for limits in known))
        for axes in panels:
            axes.set_xlim(low * 1.06, high * 1.06 or 1.0)
    return canvas.finished(f"mean {score}")


def _draw_interval(axes: Axes, row: int, estimate: Estimate, look: Look) -> None:
    if estimate.value is None:
        _draw_absence(axes, row)
        return
    if estimate.low is not None and estimate.high is not None:
        _bar(axes, row, estimate.low, estimate.high, look, height=0.74, alpha=0.35)
    axes.plot([estimate.value], [row], look.marker, color=look.colour, markerfacecolor=look.face, markersize=3.6)


def _draw_bar(axes: Axes, row: int, estimate: Estimate, look: Look) -> None:
    if estimate.value is None:
        _draw_absence(axes, row)
        return
    _bar(axes, row, 0.0, estimate.value, look, height=0.66, alpha=0.75)
    if estimate.low is not None and estimate.high is not None:
        axes.plot([estimate.low, estimate.high], [row, row], color="black", linewidth=1.0, solid_capstyle="butt")


def _bar(axes: Axes, row: int, start: float, end: float, look: Look, *, height: float, alpha: float) -> None:
    if look.filled:
        axes.barh(row, end - start, left=start, height=height, color=look.colour, alpha=alpha, linewidth=0)
    else:
        axes.barh(row, end - start, left=start, height=height, color=look.colour, alpha=alpha / 4, linewidth=0)
        axes.barh(row, end - start, left=start, height=height, facecolor="none", edgecolor=look.colour, linewidth=0.7)


def _draw_absence(axes: Axes, row: int) -> None:
    axes.text(
        0.5,
        row,
        "no value",
        transform=axes.get_yaxis_transform(),
        ha="center",
        va="center",
        fontsize=6.5,
        color="#555555",
    )
