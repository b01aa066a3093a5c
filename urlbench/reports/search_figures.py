"""The figures of a report about goals: a panel per task or goal set, a bar per agent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from urlbench.reports.appearance import looks
from urlbench.reports.figure_parts import shows
from urlbench.reports.figures import Canvas, name_rows, row_height, shown
from urlbench.reports.proportions import Proportion

_MOST_COLUMNS = 4


@dataclass(frozen=True)
class Bar:
    """One agent in one panel.

    Attributes:
        total: of all its runs; None without any.
        runs: the fraction of each run, shown as dots; empty for none.
    """

    agent: str
    total: Proportion | None
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One task or goal set, or all of them.

    Attributes:
        bars: one for each agent, the same agents in every panel.
        with_intervals: False where an interval would be of runs that belong together.
        ceiling: the fraction of goals within reach; None if that is not known.
    """

    title: str
    bars: tuple[Bar, ...]
    with_intervals: bool
    ceiling: float | None


def found_figure(panels: Sequence[Panel], title: str, foot: Sequence[str], x_label: str) -> Figure:
    """Bars of the fraction found, with intervals, the single runs as dots and the ceiling as a dashed line."""
    agents = [bar.agent for bar in panels[0].bars]
    palette = looks(agents)
    columns = min(_MOST_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    canvas = Canvas.of(rows * (0.45 + 1.15 * row_height(agents) * len(agents)), title, foot)
    for number, (axes, panel) in enumerate(zip(canvas.grid(rows, columns, len(panels)), panels, strict=True)):
        for row, bar in enumerate(panel.bars):
            with shows(axes, bar.agent):
                _draw_bar(axes, row, bar, palette[bar.agent].colour, with_interval=panel.with_intervals)
        if panel.ceiling is not None:
            axes.axvline(panel.ceiling, color="#B00020", linewidth=1.2, linestyle=(0, (4, 2)), zorder=3)
        axes.set_title(shown(panel.title))
        # Beyond 1 there is room for the numbers.
        axes.set_xlim(0, 1.3)
        axes.spines["bottom"].set_bounds(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "", "0.5", "", "1"])
        name_rows(axes, agents, with_names=number % columns == 0)
    return canvas.finished(x_label)


def _draw_bar(axes: Axes, row: int, bar: Bar, colour: str, *, with_interval: bool) -> None:
    if bar.total is None:
        axes.text(0.5, row, "no run", ha="center", va="center", fontsize=6.5, color="#555555")
        return
    total = bar.total
    axes.barh(row, total.value, height=0.62, color=colour, alpha=0.55, linewidth=0)
    axes.plot([total.value] * 2, [row - 0.31, row + 0.31], color=colour, linewidth=2, solid_capstyle="butt")
    if with_interval:
        axes.plot([total.low, total.high], [row, row], color="black", linewidth=1.1, zorder=4, clip_on=False)
    if bar.runs:
        style: dict[str, Any] = {
            "markerfacecolor": "white",
            "markeredgecolor": "black",
            "markeredgewidth": 0.8,
            "markersize": 3.2,
        }
        # Without clipping, or those at 0 and 1 would be half as large.
        axes.plot(bar.runs, [row] * len(bar.runs), "o", **style, zorder=5, clip_on=False)
    axes.text(1.05, row, f"{total.value:.2f}", ha="left", va="center", fontsize=7, color="#333333")
