"""A report before it has a format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from urlbench.reports.frame import Frame
from urlbench.reports.origins import Origins
from urlbench.reports.provenance import Provenance
from urlbench.reports.tables import Table


@dataclass(frozen=True)
class Report:
    """Everything that is written.

    Attributes:
        frame: its name and its marks.
        tables: for all formats.
        long_tables: for all formats but LaTeX.
        figures: title and how to draw it, by name; only files with pictures have them drawn.
        provenance: of all of it.
        origins: the runs that single numbers are made of.
    """

    frame: Frame
    tables: tuple[Table, ...]
    long_tables: tuple[Table, ...]
    figures: Mapping[str, tuple[str, Callable[[], Figure]]]
    provenance: Provenance
    origins: Origins
