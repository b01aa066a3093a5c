"""A table of a report: text cells that Markdown, LaTeX and HTML render alike, and the numbers behind them for CSV."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from urlbench.reports.origins import Source
from urlbench.reports.proportions import Proportion
from urlbench.statistics.estimates import Estimate, TaskMean

Numbers = Mapping[str, float | int | None]
"""What a cell says, by the word that its column gets in CSV; the empty word for the cell's main number."""
Value = TaskMean | Estimate | Proportion | Numbers | float | int
_WORD_COLUMNS = frozenset(
    {"agent", "domain", "task", "metric", "verdict", "caution", "not found by", "goals", "baseline", "X", "Y"}
)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: for file names and labels.
        title: without the marks for reduced or partial results.
        rows: each as long as `header`.
        notes: sentences below the table.
        sources: the runs behind each cell, shaped as `rows`, None where a cell is no number; empty if none is known.
        values: what the text of each cell was written from, shaped as `rows`, None where it is only a text; empty if
            all are.
        best: row and column of the cells in bold; the notes say by which rule.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    sources: tuple[tuple[Source | None, ...], ...] = ()
    values: tuple[tuple[Value | None, ...], ...] = ()
    best: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        cells = [len(row) for row in self.rows]
        for name, grid in (("sources", self.sources), ("values", self.values)):
            sizes = [len(row) for row in grid]
            assert sizes in ([], cells), f"table {self.name} has {cells} cells in its rows and {name} for {sizes}"

    @property
    def is_words(self) -> tuple[bool, ...]:
        """Whether each column holds words, which begin at the left, or numbers, which end at the right."""
        return tuple(column in _WORD_COLUMNS for column in self.header)

    @property
    def cells(self) -> list[list[tuple[str, bool]]]:
        """The text of each cell and whether it is bold, row by row."""
        return [
            [(text, (row, column) in self.best) for column, text in enumerate(texts)]
            for row, texts in enumerate(self.rows)
        ]


def to_csv(table: Table, report: str, origin: str) -> str:
    """The table as CSV: every number in a column of its own and with all its digits, nothing where there is none.

    Args:
        table: what to write.
        report: suite, preset and marks; the last column but one of every row.
        origin: one line; the last column of every row.
    """
    values = table.values or tuple((None,) * len(row) for row in table.rows)
    parts = [_parts([row[column] for row in values]) for column in range(len(table.header))]
    names = [
        f"{name} {part}".strip() for name, columns in zip(table.header, parts, strict=True) for part in columns or [""]
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*names, "report", "origin"])
    for texts, row in zip(table.rows, values, strict=True):
        cells: list[object] = []
        for text, value, columns in zip(texts, row, parts, strict=True):
            numbers = {} if value is None else _numbers(value)
            cells += [numbers.get(part) for part in columns] if columns else [text]
        # A dash is for readers; a program finds nothing there.
        writer.writerow([*("" if cell in (None, "—") else cell for cell in cells), report, origin])
    return file.getvalue()


def _parts(column: Sequence[Value | None]) -> list[str]:
    """The columns that a column of values makes; none for texts."""
    return list(dict.fromkeys(part for value in column if value is not None for part in _numbers(value)))


def _numbers(value: Value) -> Numbers:
    match value:
        case TaskMean():
            return {"mean": value.mean, "standard error": value.standard_error, "n": value.n}
        case Estimate():
            return {"": value.value, "low": value.low, "high": value.high}
        case Proportion():
            return {"": value.value, "count": value.count, "total": value.total, "low": value.low, "high": value.high}
        case Mapping():
            return value
        case _:
            return {"": value}


def format_mean(mean: TaskMean, decimals: int = 1, *, with_n: bool = True) -> str:
    """`312.4 ± 20.1 (n=3)`; without a standard error for one run; a dash for none; `n=?` where it is not known."""
    if mean.mean is None:
        return "— (n=0)" if with_n else "—"
    error = "" if mean.standard_error is None else f" ± {mean.standard_error:.{decimals}f}"
    n = f" (n={mean.n or '?'})" if with_n else ""
    return f"{mean.mean:.{decimals}f}{error}{n}"


def format_estimate(estimate: Estimate) -> str:
    """`0.512 [0.401, 0.613]`; `0.512 [no interval]` or a dash where there is none."""
    if estimate.value is None:
        return "—"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} [no interval]"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
