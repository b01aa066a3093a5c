"""The figures of a report, as PNG and PDF whose bytes depend on nothing but what they show."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from urlbench.reports.tables import curve
from urlbench.results.cells import Results
from urlbench.statistics.aggregates import AGGREGATES
from urlbench.statistics.estimates import Estimate, task_mean

# Okabe and Ito's palette, without its yellow, which is too light for lines on white.
_PALETTE = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C564B", "#000000")
_OWN_COLOURS = {"choreographer": "#0072B2", "random": "#8A8A8A"}
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.hashsalt": "urlbench",
    "savefig.dpi": 160,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """The style of all figures, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def colours(agents: Sequence[str]) -> dict[str, str]:
    """A colour per agent label; agents with a colour of their own keep it in every report."""
    others = [agent for agent in sorted(agents) if agent not in _OWN_COLOURS]
    assigned = {agent: _PALETTE[index % len(_PALETTE)] for index, agent in enumerate(others)}
    return {agent: _OWN_COLOURS.get(agent) or assigned[agent] for agent in agents}


def aggregates_figure(overall: Mapping[str, Mapping[str, Estimate]], title: str, foot: Sequence[str]) -> Figure:
    """One panel per aggregate, one row per agent: the estimate and its interval."""
    agents = list(overall)
    palette = colours(agents)
    figure, height = empty_figure(10.0, 0.9 + 0.42 * len(agents), title, foot)
    for column, name in enumerate(AGGREGATES):
        axes = figure.add_subplot(1, len(AGGREGATES), column + 1)
        for row, agent in enumerate(agents):
            estimate = overall[agent][name]
            if estimate.value is None:
                axes.text(0.5, row, "no value", transform=axes.get_yaxis_transform(), ha="center", va="center")
                continue
            if estimate.low is not None and estimate.high is not None:
                axes.barh(
                    row, estimate.high - estimate.low, left=estimate.low, height=0.56, color=palette[agent], alpha=0.35
                )
            axes.plot([estimate.value], [row], marker="|", markersize=14, markeredgewidth=2.4, color=palette[agent])
        axes.set_title(f"{name} {'(lower is better)' if name == 'Optimality gap' else ''}".strip())
        axes.set_ylim(len(agents) - 0.4, -0.6)
        axes.set_yticks(range(len(agents)), agents if column == 0 else [""] * len(agents))
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.use_sticky_edges = False
        axes.margins(x=0.12)
        axes.locator_params(axis="x", nbins=4)
    return finished(figure, height, "normalised score")


def domains_figure(domains: Mapping[str, Mapping[str, Estimate]], title: str, foot: Sequence[str]) -> Figure:
    """Bars of the mean normalised score per domain, with intervals."""
    agents = list(domains)
    names = list(next(iter(domains.values())))
    palette = colours(agents)
    figure, height = empty_figure(max(5.0, 1.2 + len(names) * (0.6 + 0.34 * len(agents))), 3.4, title, foot)
    axes = figure.add_subplot()
    width = 0.8 / len(agents)
    for index, agent in enumerate(agents):
        for position, name in enumerate(names):
            estimate = domains[agent][name]
            x = position + (index - (len(agents) - 1) / 2) * width
            if estimate.value is None:
                axes.text(x, 0, "no value", rotation=90, ha="center", va="bottom", fontsize=7)
                continue
            axes.bar(x, estimate.value, width * 0.92, color=palette[agent], label=agent if position == 0 else None)
            if estimate.low is not None and estimate.high is not None:
                axes.plot([x, x], [estimate.low, estimate.high], color="black", linewidth=1.2)
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("mean normalised score")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    if len(agents) > 1:
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finished(figure, height)


def curves_figure(results: Results, title: str, foot: Sequence[str]) -> Figure:
    """A panel per task: mean return against fine-tuning frames, with a band of one standard error."""
    protocol = results.suite.protocols[results.preset]
    frames = list(range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames))
    labels = [agent.label for agent in results.agents]
    palette = colours(labels)
    columns = min(4, len(results.tasks))
    rows = -(-len(results.tasks) // columns)
    figure, height = empty_figure(max(6.0, 1.4 + 2.3 * columns), 0.7 + 2.0 * rows, title, foot)
    for index, task in enumerate(results.tasks):
        axes = figure.add_subplot(rows, columns, index + 1)
        for label in labels:
            _draw_curve(axes, results, label, task, frames, palette[label])
        axes.set_title(task)
        axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.locator_params(axis="x", nbins=4)
        if index % columns == 0:
            axes.set_ylabel("return")
    if len(labels) > 1:
        corner = figure.axes[columns - 1]
        corner.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return finished(figure, height, "fine-tuning frames")


def _draw_curve(axes: Axes, results: Results, label: str, task: str, frames: Sequence[int], colour: str) -> None:
    values = curve(results, label, task, frames)
    if not len(values):
        axes.plot([], [], color=colour, label=f"{label} (no run)")
        return
    means = [task_mean(column) for column in values.T]
    middle = [mean.mean or 0.0 for mean in means]
    axes.plot(frames, middle, color=colour, linewidth=1.4, marker="o", markersize=2.5, label=label)
    if len(values) > 1:
        errors = [mean.standard_error or 0.0 for mean in means]
        low = [value - error for value, error in zip(middle, errors, strict=True)]
        high = [value + error for value, error in zip(middle, errors, strict=True)]
        axes.fill_between(frames, low, high, color=colour, alpha=0.2, linewidth=0)


def save(figure: Figure, path: Path, description: str) -> None:
    """Write `figure` as PNG or PDF, by the ending of `path`, with its origin in the file's metadata."""
    if path.suffix == ".pdf":
        # Without a date, or the same report twice would not be the same bytes.
        details = {"Creator": "urlbench", "Subject": description, "CreationDate": None, "ModDate": None}
    else:
        details = {"Software": "urlbench", "Description": description}
    figure.savefig(path, metadata=details)


def empty_figure(width: float, height: float, title: str, foot: Sequence[str]) -> tuple[Figure, dict[str, float]]:
    """An empty figure with room for a title above and the origin below; sizes in inches."""
    characters = int(width * 19.5)
    below = [line for text in foot for line in textwrap.wrap(text, characters)]
    above = [line for text in title.split("\n") for line in textwrap.wrap(text, int(width * 11.5))]
    top, bottom = 0.12 + 0.19 * len(above), 0.10 + 0.115 * len(below)
    total = height + top + bottom
    figure = Figure(figsize=(width, total))
    FigureCanvasAgg(figure)
    figure.text(0.012, 1 - 0.08 / total, "\n".join(above), ha="left", va="top", fontsize=10, weight="bold")
    figure.text(0.012, 0.05 / total, "\n".join(below), ha="left", va="bottom", fontsize=5.5, color="#555555")
    return figure, {"bottom": bottom / total, "top": 1 - top / total}


def finished(figure: Figure, room: Mapping[str, float], x_label: str = "") -> Figure:
    """`figure` with its parts moved into the room that title and origin leave, and a label below them all."""
    bottom = room["bottom"]
    if x_label:
        step = 0.22 / figure.get_figheight()
        figure.text(0.5, bottom + step * 0.15, x_label, ha="center", va="bottom", fontsize=9)
        bottom += step
    figure.tight_layout(rect=(0, bottom, 1, room["top"]))
    return figure
