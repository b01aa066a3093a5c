"""What every benchmark reports in the same way: the machine, medians with their spread, tables."""

import os
import statistics
from collections.abc import Sequence
from typing import Any

from urlbench.runs.manifest import collect_manifest


def describe_machine(threads: int) -> dict[str, Any]:
    """Versions, hardware, command and how busy the machine is; to be called before anything is measured.

    Args:
        threads: of torch.
    """
    manifest = collect_manifest(device="cpu", threads=threads, parent=None)
    del manifest["host"], manifest["parent"], manifest["plugins"]
    return manifest | {"load_average": os.getloadavg()}


def spread(values: Sequence[float], form: str) -> str:
    """Median, and the smallest and largest if there are several, as text."""
    median = f"{statistics.median(values):{form}}"
    return median if len(values) == 1 else f"{median} ({min(values):{form}} to {max(values):{form}})"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown whose columns are as wide as their widest cell."""
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)
