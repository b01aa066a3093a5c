"""Whose part of a figure something is, so that a page can fade what its reader leaves out.

It is written as the gid of an artist, which becomes the id of its group in SVG; a figure has each id once.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def mark(artist: Artist, place: str, agents: Sequence[str] = (), domain: str = "") -> None:
    """Say that `artist` shows these agents and this domain; `place` is that of no other artist of the figure."""
    artist.set_gid(json.dumps({"agents": list(agents), "domain": domain, "place": place}))


def mark_panel(axes: Axes, domain: str) -> None:
    """Say that all of `axes` shows one domain."""
    mark(axes, f"panel-{_number(axes)}", domain=domain)


def mark_rows(axes: Axes, agents: Sequence[str]) -> None:
    """Say that the labels of the rows are these agents."""
    for row, (label, agent) in enumerate(zip(axes.get_yticklabels(), agents, strict=True)):
        mark(label, f"row-{_number(axes)}-{row}", [agent])


@contextmanager
def shows(axes: Axes, *agents: str) -> Iterator[None]:
    """Say of everything that is drawn meanwhile that it shows these agents."""
    before = set(axes.get_children())
    yield
    for number, artist in enumerate(axes.get_children()):
        if artist not in before:
            mark(artist, f"part-{_number(axes)}-{number}", agents)


def _number(axes: Axes) -> int:
    figure = axes.figure
    assert isinstance(figure, Figure), "panels lie in a figure, not in a part of one"
    return figure.axes.index(axes)
