"""What an agent looks like in every figure: a colour and a marker that belong to its name.

Both are a function of the name alone, so an agent looks the same in every figure of every report, whatever other agents
are there and in whatever order:

* The registered agents and some methods of published tables have looks of their own, no two the same. Those of one
  family (DDPG, Dreamer) differ in their markers, so that shape alone tells them apart; a Dreamer agent has the colour
  of the DDPG agent with the same objective.
* Any other name takes one of the looks that are left over, by its SHA-256. Two such names can meet in one look, and
  neither moves for the other: in that figure the lines of the second, third and fourth in the order of their names are
  dashed, dash-dotted and dotted. Figures without lines write the name beside each value.

Published scores look like the agent of that name, with a hollow marker.

The colours are Okabe and Ito's (2008) without the yellow, which is too light for lines on white, and wine, olive,
indigo, brown and grey; they stay apart for people who see no red or no green.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "sky": "#56B4E9",
    "vermilion": "#D55E00",
    "pink": "#CC79A7",
    "wine": "#882255",
    "olive": "#999933",
    "indigo": "#332288",
    "brown": "#6F4A3A",
    "black": "#000000",
    "grey": "#B4B4B4",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "d")
_KNOWN = {
    "choreographer": ("blue", "o"),
    "random": ("grey", "d"),
    "ddpg": ("black", "s"),
    "icm": ("sky", "^"),
    "disagreement": ("wine", "v"),
    "rnd": ("olive", "D"),
    "apt": ("green", "P"),
    "proto": ("pink", "X"),
    "smm": ("brown", "*"),
    "diayn": ("orange", "<"),
    "aps": ("indigo", ">"),
    "cic": ("vermilion", "p"),
    "dreamer": ("black", "X"),
    "dreamer-random": ("grey", "s"),
    "dreamer-icm": ("sky", "v"),
    "dreamer-p2e": ("wine", "^"),
    "dreamer-rnd": ("olive", "p"),
    "dreamer-apt": ("green", "D"),
    "dreamer-diayn": ("orange", ">"),
    "dreamer-aps": ("indigo", "<"),
    "dreamer-lbs": ("vermilion", "P"),
    "choreographer-no-resampling": ("sky", "s"),
    "choreographer-single-skill": ("orange", "^"),
    "choreographer-zero-shot": ("vermilion", "D"),
    "edl-dreamer": ("green", "v"),
    "latent-edl": ("pink", "P"),
    "amped-(full)": ("brown", "o"),
    "becl": ("indigo", "p"),
    "cesd": ("green", "s"),
    "comsd": ("pink", "v"),
    "moss": ("wine", "<"),
}
# No source has a space in its name, which an agent such as `AMPED w/o RND` has before its slash.
_SOURCE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*/")
_OTHER_SPELLINGS = {"protorl": "proto"}
_DASHES: tuple[str, ...] = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Look:
    """How one agent is drawn.

    Attributes:
        colour: as hex digits.
        marker: matplotlib's sign for it; all can be filled.
        dash: of its lines; solid unless a name before it has the same colour and marker.
        filled: False for published scores.
    """

    colour: str
    marker: str
    dash: str
    filled: bool

    @property
    def face(self) -> str:
        """The colour inside the marker."""
        return self.colour if self.filled else "white"


def looks(labels: Iterable[str], published: Iterable[str] = ()) -> dict[str, Look]:
    """The look of each agent of a figure.

    Args:
        labels: of the agents; of a baseline the part after the first `/` is its name.
        published: those of the labels that have published scores and no runs.
    """
    hollow = set(published)
    used: dict[tuple[str, str], int] = {}
    found = {}
    for label in sorted(labels):
        own = _colour_and_marker(label)
        found[label] = Look(*own, _DASHES[used.get(own, 0) % len(_DASHES)], label not in hollow)
        used[own] = used.get(own, 0) + 1
    return {label: found[label] for label in labels}


def _colour_and_marker(label: str) -> tuple[str, str]:
    name = re.sub(r"[\s_]+", "-", _SOURCE.sub("", label).strip().lower())
    name = _OTHER_SPELLINGS.get(name, name)
    if name not in _KNOWN:
        left = [(colour, marker) for colour in COLOURS for marker in MARKERS if (colour, marker) not in _TAKEN]
        own = left[int(hashlib.sha256(name.encode()).hexdigest(), 16) % len(left)]
    else:
        own = _KNOWN[name]
    return COLOURS[own[0]], own[1]


_TAKEN = frozenset(_KNOWN.values())
