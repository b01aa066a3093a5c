"""The probability that a run of one agent scores higher than a run of another, for all pairs of a report."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from urlbench.reports.figure_parts import mark, shows
from urlbench.reports.figures import WIDTH, Canvas, name_rows, row_height, shown, wrapped
from urlbench.statistics.estimates import Estimate

Pairs = Mapping[tuple[str, str], Estimate]
"""P(X > Y) by the labels of X and Y, both ways round."""

# From purple over white to orange: told apart without red or green.
_COLOURS = "PuOr_r"
# So many agents have six pairs, which fit as rows; more are a matrix.
_MOST_AS_ROWS = 4
# In a larger matrix the numbers would be too small to read.
_MOST_WITH_NUMBERS = 16


def by_wins(pairs: Pairs) -> list[str]:
    """The agents, best first: by their mean probability against the others, and of equal ones by name."""
    values: dict[str, list[float]] = {one: [] for pair in pairs for one in pair}
    for (one, _), estimate in pairs.items():
        if estimate.value is not None:
            values[one].append(estimate.value)
    means = {agent: float(np.mean(known)) if known else -1.0 for agent, known in values.items()}
    return sorted(means, key=lambda agent: (-means[agent], agent))


def matrix_notes(pairs: Pairs) -> list[str]:
    """What the matrix of a larger figure shows; nothing for the rows of a smaller one."""
    n = len(by_wins(pairs))
    if n <= _MOST_AS_ROWS:
        return []
    sign = "Bold numbers" if n <= _MOST_WITH_NUMBERS else "Dots"
    return [f"{sign}: the interval leaves 0.5 out. Agents are in the order of their mean probability of improvement."]


def pairs_figure(pairs: Pairs, title: str, foot: Sequence[str]) -> Figure:
    """P(X > Y): a row with its interval for each pair of few agents, a matrix for more.

    Source: Agarwal et al. 2021, sec. 4.3.

    Args:
        pairs: both ways round.
        title: of the figure.
        foot: what is said below it.
    """
    agents = by_wins(pairs)
    if len(agents) <= _MOST_AS_ROWS:
        return _rows_figure(pairs, agents, title, foot)
    return _matrix_figure(pairs, agents, title, foot)


def _rows_figure(pairs: Pairs, agents: Sequence[str], title: str, foot: Sequence[str]) -> Figure:
    shown_pairs = [(x, y) for number, x in enumerate(agents) for y in agents[number + 1 :]]
    names = [f"{x} > {y}" for x, y in shown_pairs]
    canvas = Canvas.of(0.5 + 1.3 * row_height(names) * len(names), title, foot)
    (axes,) = canvas.grid(1, 1, 1)
    for row, pair in enumerate(shown_pairs):
        with shows(axes, *pair):
            _draw_row(axes, row, pairs[pair])
    axes.axvline(0.5, color="black", linewidth=0.8, linestyle="--")
    axes.set_xlim(0, 1.08)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
    name_rows(axes, names, with_names=True)
    return canvas.finished("probability P(X > Y)")


def _draw_row(axes: Axes, row: int, estimate: Estimate) -> None:
    if estimate.value is None:
        axes.text(0.5, row, "no value", ha="center", va="center", color="#555555")
        return
    if estimate.low is not None and estimate.high is not None:
        axes.barh(row, estimate.high - estimate.low, left=estimate.low, height=0.5, color="#0072B2", alpha=0.3)
    axes.plot([estimate.value], [row], "o", color="#0072B2", markersize=4)
    axes.text(1.02, row, f"{estimate.value:.2f}", va="center", fontsize=7)


def _matrix_figure(pairs: Pairs, agents: Sequence[str], title: str, foot: Sequence[str]) -> Figure:
    n = len(agents)
    names = [wrapped(agent) for agent in agents]
    size = 7 if n <= 20 else 4.5
    # The names stand beside the rows, and turned by 40 degrees below the columns.
    names_width = 0.009 * size * max(len(line) for name in names for line in name.split("\n"))
    cell = min(0.42, (WIDTH - 1.2 - names_width) / n)
    canvas = Canvas.of(0.55 + cell * n + 0.75 * names_width, title, foot)
    (axes,) = canvas.grid(1, 1, 1)
    values = np.full((n, n), np.nan)
    for row, x in enumerate(agents):
        for column, y in enumerate(agents):
            if x != y and pairs[x, y].value is not None:
                values[row, column] = pairs[x, y].value
    image = axes.pcolormesh(values, cmap=_COLOURS, vmin=0, vmax=1, edgecolors="white", linewidth=0.5)
    for row, x in enumerate(agents):
        for column, y in enumerate(agents):
            if x != y:
                label = _label_cell(axes, row, column, pairs[x, y], numbers=n <= _MOST_WITH_NUMBERS)
                mark(label, f"cell-{row}-{column}", (x, y))
    axes.set_aspect("equal", anchor="N")
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    axes.set_xticks(np.arange(n) + 0.5, names, rotation=40, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(np.arange(n) + 0.5, names, fontsize=size)
    axes.set_xlabel("Y")
    axes.set_ylabel("X")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = canvas.figure.colorbar(image, ax=axes, shrink=0.6, pad=0.02)
    bar.set_label(shown("P(X > Y)"))
    bar.outline.set_visible(False)
    return canvas.finished()


def _label_cell(axes: Axes, row: int, column: int, estimate: Estimate, *, numbers: bool) -> Artist:
    """The number of a cell, bold where the interval leaves 0.5 out; a dot alone where numbers do not fit."""
    if estimate.value is None:
        return axes.text(column + 0.5, row + 0.5, "–", ha="center", va="center", fontsize=6, color="#555555")
    is_known = estimate.low is not None and estimate.high is not None
    resolved = is_known and not estimate.low <= 0.5 <= estimate.high  # type: ignore[operator]
    red, green, blue, _ = mpl.colormaps[_COLOURS](estimate.value)
    ink = "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.52 else "black"
    if numbers:
        return axes.text(
            column + 0.5,
            row + 0.5,
            f"{estimate.value:.2f}",
            ha="center",
            va="center",
            fontsize=6.5,
            color=ink,
            weight="bold" if resolved else "normal",
        )
    (dot,) = axes.plot(column + 0.5, row + 0.5, ".", color=ink, markersize=1.5, visible=resolved)
    return dot
