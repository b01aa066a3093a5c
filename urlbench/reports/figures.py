"""What all figures of a report share: style, room for title, legend and origin, and files whose bytes never change."""

import functools
import html
import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.lines import Line2D

from urlbench.reports.appearance import Look
from urlbench.reports.figure_parts import mark, mark_rows

PICTURES = ("png", "pdf", "svg")
# The width of a page of text, so that a paper shows the letters in the size they have here.
WIDTH = 7.0
_FONT = "DejaVu Sans"
_STYLE: dict[Any, Any] = {
    # Comes with matplotlib: the same letters, and the same bytes, on every machine.
    "font.family": _FONT,
    "font.size": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.markeredgewidth": 0.8,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    # Letters as outlines: a page or a paper shows them as they are here, whatever fonts the reader has.
    "svg.fonttype": "path",
    "svg.hashsalt": "urlbench",
    # An agent may be called `a$b$c`.
    "text.parse_math": False,
    # The same for layout and file, or names would be measured in other pixels than they are drawn in.
    "figure.dpi": 200,
    "savefig.dpi": 200,
}
_LINE = 0.155
_CHARACTER = 0.062


@contextmanager
def figure_style() -> Iterator[None]:
    """The style of all figures, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


@dataclass(frozen=True)
class Canvas:
    """A figure with a title, marks and a legend above, and its origin below.

    Attributes:
        bottom: where the room for the panels begins, as a fraction of the height.
        top: where it ends, and the legend begins.
    """

    figure: Figure
    bottom: float
    top: float

    @staticmethod
    def of(
        height: float, title: str, foot: Sequence[str], legend: Mapping[str, Look] | None = None, width: float = WIDTH
    ) -> "Canvas":
        """An empty canvas.

        Args:
            height: of the room for the panels and their labels, in inches.
            title: its first line is the title, the others are marks.
            foot: what the figure shows and where it comes from.
            legend: the look of each agent; one agent alone needs none.
            width: in inches.
        """
        below = [line for text in foot for line in textwrap.wrap(shown(text), int(width * 21))]
        above = [line for text in title.split("\n") for line in textwrap.wrap(shown(text), int(width * 12.5))]
        labels = list(legend) if legend is not None and len(legend) > 1 else []
        columns, rows = _legend_size(labels, width)
        head, bottom = 0.10 + 0.165 * len(above), 0.08 + 0.105 * len(below)
        total = height + head + bottom + rows * _LINE
        figure = Figure(figsize=(width, total))
        FigureCanvasAgg(figure)
        figure.text(0.01, 1 - 0.06 / total, "\n".join(above), ha="left", va="top", fontsize=8.5, weight="bold")
        figure.text(0.01, 0.04 / total, "\n".join(below), ha="left", va="bottom", fontsize=5, color="#555555")
        if legend is not None and labels:
            handles = [Line2D([], [], **line_style(look)) for look in legend.values()]
            _draw_legend(figure, 1 - head / total, handles, labels, columns)
        return Canvas(figure, bottom / total, 1 - (head + rows * _LINE) / total)

    def with_key(self, handles: Sequence[Line2D], labels: Sequence[str]) -> "Canvas":
        """The canvas with one line that explains `handles` at the top of the room for panels."""
        _draw_legend(self.figure, self.top, handles, labels, len(labels))
        return Canvas(self.figure, self.bottom, self.top - _LINE / self.figure.get_figheight())

    def grid(self, rows: int, columns: int, panels: int) -> list[Axes]:
        """`panels` axes, row by row."""
        return [self.figure.add_subplot(rows, columns, number + 1) for number in range(panels)]

    def finished(self, x_label: str = "") -> Figure:
        """The figure with its panels moved into their room, and a label below them all."""
        bottom = self.bottom
        if x_label:
            step = 0.18 / self.figure.get_figheight()
            self.figure.text(0.5, bottom + step * 0.1, shown(x_label), ha="center", va="bottom", fontsize=7.5)
            bottom += step
        self.figure.tight_layout(rect=(0, bottom, 1, self.top), pad=0.6, w_pad=0.9, h_pad=0.9)
        return self.figure


def line_style(look: Look) -> dict[str, Any]:
    """Settings of matplotlib for the line and the points of an agent."""
    return {
        "color": look.colour,
        "linestyle": look.dash,
        "linewidth": 1.1,
        "marker": look.marker,
        "markersize": 3.6,
        "markerfacecolor": look.face,
        "markeredgecolor": look.colour,
    }


def name_rows(axes: Axes, names: Sequence[str], *, with_names: bool) -> None:
    """Give `axes` one row for each name, the first one on top."""
    # Bars otherwise end at the edge.
    axes.use_sticky_edges = False
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_yticks(range(len(names)), [wrapped(name) for name in names] if with_names else [""] * len(names))
    mark_rows(axes, names)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def row_height(names: Sequence[str]) -> float:
    """Inches for one row of a panel with these names: less for many of them, more where a name takes two lines."""
    lines = max(wrapped(name).count("\n") + 1 for name in names)
    return max(0.2 if len(names) <= 20 else 0.15, 0.14 * lines)


def wrapped(name: str, width: int = 32) -> str:
    """A name in lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(shown(name), width)) or " "


def shown(text: str) -> str:
    """`text` in the letters that the font has; what it has no letter for as its code point."""
    letters = _letters()
    line = "".join(letter if ord(letter) in letters else f"[U+{ord(letter):04X}]" for letter in text)
    # matplotlib leaves entries that begin with `_` out of legends.
    return "\u200a" + line if line.startswith("_") else line


def save(figure: Figure, path: Path, description: str) -> None:
    """Write `figure` as PNG or PDF, by the ending of `path`, with its origin in the file's metadata."""
    # Without a date, or the same report twice would not be the same bytes.
    details: dict[str, dict[str, Any]] = {
        ".pdf": {"Creator": "urlbench", "Subject": description, "CreationDate": None, "ModDate": None},
        ".png": {"Software": "urlbench", "Description": description},
    }
    _draw(figure, path, path.suffix.removeprefix("."), details[path.suffix])


def svg(figure: Figure) -> str:
    """`figure` as an SVG file without metadata; drawing takes a while, and files and pages share it."""
    file = io.StringIO()
    _draw(figure, file, "svg", dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return file.getvalue()


def with_description(drawing: str, description: str) -> str:
    """An SVG file of `svg` that says where it comes from."""
    start = drawing.index(">", drawing.index("<svg")) + 1
    return f"{drawing[:start]}\n <desc>{html.escape(description, quote=False)}</desc>{drawing[start:]}"


def _draw(figure: Figure, file: Path | IO[str], kind: str, metadata: Mapping[str, Any]) -> None:
    """Write `figure` as `kind`, one of `PICTURES`.

    `Figure.savefig` draws everything twice, the first time for layouts that ours have not.
    """
    canvas: Any = _CANVASES[kind](figure)
    dpi = figure.dpi
    try:
        getattr(canvas, f"print_{kind}")(file, metadata=dict(metadata))
    finally:
        # PDF and SVG count in 72 dots.
        figure.dpi = dpi


_CANVASES = {"png": FigureCanvasAgg, "pdf": FigureCanvasPdf, "svg": FigureCanvasSVG}


@functools.cache
def _letters() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())


def _legend_size(labels: Sequence[str], width: float) -> tuple[int, int]:
    """Columns and rows of a legend that is not wider than the figure."""
    if not labels:
        return 1, 0
    widest = 0.45 + _CHARACTER * max(len(shown(label)) for label in labels)
    columns = min(len(labels), max(1, int((width - 0.1) / widest)))
    rows = -(-len(labels) // columns)
    return -(-len(labels) // rows), rows


def _draw_legend(figure: Figure, top: float, handles: Sequence[Line2D], labels: Sequence[str], columns: int) -> None:
    legend = figure.legend(
        handles,
        [shown(label) for label in labels],
        loc="upper left",
        bbox_to_anchor=(0.005, top),
        ncols=columns,
        frameon=False,
        fontsize=7,
        borderaxespad=0,
        columnspacing=1.2,
        handletextpad=0.5,
        handlelength=2.2,
        labelspacing=0.35,
    )
    for number, (line, text, label) in enumerate(zip(legend.get_lines(), legend.get_texts(), labels, strict=True)):
        mark(line, f"line-{top:g}-{number}", [label])
        mark(text, f"name-{top:g}-{number}", [label])
