"""The look of agents: theirs in every figure, told apart by colour-blind people, and unambiguous in each figure."""

import itertools

import numpy as np
import pytest

from urlbench.core import registry
from urlbench.reports.appearance import COLOURS, MARKERS, Look, looks

# Machado, Oliveira and Fernandes 2009, table 1, severity 1.0: on linear RGB.
PROTANOPIA = [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
DEUTERANOPIA = [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
# Without those that other tests register.
REGISTERED = sorted(name for name, entry in registry._AGENTS.items() if str(entry.target).startswith("urlbench."))
TABLE_2 = ("DDPG", "ICM", "Disagreement", "RND", "APT", "ProtoRL", "SMM", "DIAYN", "APS", "CIC", "Choreographer")
OTHERS = ("AMPED (full)", "BeCL", "CeSD", "ComSD", "MOSS")


def lab(colour: str, seen_as: list[list[float]]) -> np.ndarray:
    """CIE L*a*b* of a colour, D65, as somebody with that vision sees it."""
    srgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = np.array(TO_XYZ) @ np.clip(np.array(seen_as) @ linear, 0, 1) / [0.95047, 1, 1.08883]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("seen_as", [np.eye(3), PROTANOPIA, DEUTERANOPIA], ids=["normal", "no red", "no green"])
def test_the_colours_stay_apart_without_red_or_green(seen_as):
    seen = {name: lab(colour, seen_as) for name, colour in COLOURS.items()}
    distances = {pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]) for pair in itertools.combinations(seen, 2)}
    # A difference of 2.3 is just noticeable.
    assert min(distances.values()) > 11, min(distances, key=distances.get)


def test_registered_agents_all_look_different():
    assert len(REGISTERED) > 20
    found = {(look.colour, look.marker) for look in looks(REGISTERED).values()}
    assert len(found) == len(REGISTERED)


def test_shape_alone_tells_the_agents_of_the_published_table_apart():
    found = looks([*TABLE_2, "random"]).values()
    assert len({look.marker for look in found}) == len({look.colour for look in found}) == 12


def test_an_agent_looks_the_same_in_every_company():
    labels = [f"agent {number}" for number in range(60)] + ["choreographer", "Zoë_水", "a$b"]
    alone = {label: looks([label])[label] for label in labels}
    for company in (labels, labels[::-1], labels[::3]):
        for label, look in looks(company).items():
            assert (look.colour, look.marker) == (alone[label].colour, alone[label].marker), label
    assert list(looks(labels)) == labels


def test_a_published_method_looks_like_the_agent_of_its_name_with_a_hollow_marker():
    found = looks(["cic", "choreographer-2023/CIC", "choreographer-2023/ProtoRL", "proto"], ["choreographer-2023/CIC"])
    ours, theirs = found["cic"], found["choreographer-2023/CIC"]
    assert (ours.colour, ours.marker) == (theirs.colour, theirs.marker)
    assert (ours.face, theirs.face) == (ours.colour, "white")
    alone, labelled, other = (looks([label])[label] for label in ("AMPED w/o RND", "amped-2025/AMPED w/o RND", "o rnd"))
    assert alone == labelled != other
    assert (found["proto"].colour, found["proto"].marker) == (
        found["choreographer-2023/ProtoRL"].colour,
        found["choreographer-2023/ProtoRL"].marker,
    )


def test_names_that_meet_in_one_look_have_different_lines():
    everybody = looks([f"agent {number}" for number in range(300)])
    groups: dict[tuple[str, str], list[Look]] = {}
    for label in sorted(everybody):
        groups.setdefault((everybody[label].colour, everybody[label].marker), []).append(everybody[label])
    pairs = [looks for looks in groups.values() if len(looks) > 1]
    assert pairs
    for found in pairs:
        assert [look.dash for look in found[:4]] == ["-", "--", "-.", ":"][: len(found)]


def test_other_names_never_take_the_look_of_a_known_agent():
    known = {(look.colour, look.marker) for look in looks([*REGISTERED, *TABLE_2, *OTHERS]).values()}
    others = {(look.colour, look.marker) for look in looks([f"x{number}" for number in range(2000)]).values()}
    assert not known & others
    assert len(others) == len(COLOURS) * len(MARKERS) - len(known)
