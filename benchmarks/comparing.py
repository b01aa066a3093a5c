"""Fast against plain, taking turns: what the benchmarks of single pieces share, and the rows that they report."""

import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import reporting

COLUMNS = ("what", "unit", "plain", "urlbench", "ratio")


class Row(NamedTuple):
    """One comparison.

    Attributes:
        what: was measured, and in which sizes.
        plain: median of the plain version; a time, a rate or memory, as `unit` says; None without one.
        fast: median of urlbench's.
        ratio: how many times as fast, median of turns next to each other, or as little; None without a plain version.
    """

    what: str
    plain: float | None
    fast: float
    unit: str
    ratio: float | None


def take_turns(
    fast: Callable[[], object], plain: Callable[[], object], repetitions: int
) -> tuple[list[float], list[float]]:
    """CPU seconds of both in each repetition, after one to warm up; who goes first changes every time.

    On the CPU, all threads together, since the clock also counts what else the machine does.
    """
    seconds: dict[Callable[[], object], list[float]] = {fast: [], plain: []}
    for repetition in range(-1, repetitions):
        for run in (fast, plain) if repetition % 2 else (plain, fast):
            begin = time.process_time()
            run()
            if repetition >= 0:
                seconds[run].append(time.process_time() - begin)
    return seconds[fast], seconds[plain]


def row(
    what: str, fast: Sequence[float], plain: Sequence[float], *, unit: str, per_second: float = 0, scale: float = 1
) -> Row:
    """A comparison of seconds, as rates of `per_second` things in each, or else as times `scale` to the second."""
    ratio = statistics.median(slow / quick for slow, quick in zip(plain, fast, strict=True))
    both = (statistics.median(plain), statistics.median(fast))
    values = [per_second / one if per_second else scale * one for one in both]
    return Row(what, values[0], values[1], unit, ratio)


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    cells = [(one.what, one.unit, _number(one.plain), _number(one.fast), _number(one.ratio)) for one in rows]
    return reporting.markdown_table(COLUMNS, cells)


def _number(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def write(path: Path, machine: dict[str, Any], rows: Sequence[Row], **settings: Any) -> None:
    """Write the rows as JSON, with what they were measured on and how.

    Args:
        path: of the file.
        machine: see `reporting.describe_machine`.
        rows: under the name that `bench.py` reads.
        settings: how much was measured, and whatever else is to be kept.
    """
    found = {"machine": machine, "settings": settings, "rows": [row._asdict() for row in rows]}
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
