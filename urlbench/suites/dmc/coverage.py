"""Cells that the states of a body are sorted into, to see how much of what it can do was visited.

Bodies that walk: height, uprightness and forward speed of the torso, in steps of 0.25 m, 0.5 and 1 m/s, the speed up to
3 m/s either way. The arm: where its hand is, in cubes of 0.1 m.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from urlbench.core.interfaces import Cell

_HEIGHT, _UPRIGHTNESS, _SPEED, _FASTEST = 0.25, 0.5, 1.0, 3.0  # m, -, m/s, m/s
_CUBE = 0.1  # m


def _body(height: float, uprightness: float, speed: float) -> Cell:
    held = min(max(speed, -_FASTEST), _FASTEST)
    return int(height // _HEIGHT), int(min(uprightness, 1 - 1e-9) // _UPRIGHTNESS), int(held // _SPEED)


def walker(task: Any, physics: Any) -> Cell:
    """The cell of the walker."""
    return _body(physics.torso_height(), physics.torso_upright(), physics.horizontal_velocity())


def quadruped(task: Any, physics: Any) -> Cell:
    """The cell of the quadruped; its speed is along its own axis."""
    height = physics.named.data.xpos["torso", "z"]
    return _body(height, physics.torso_upright(), physics.torso_velocity()[0])


def jaco(task: Any, physics: Any) -> Cell:
    """The cell of the arm."""
    x, y, z = np.floor(task.hand_position(physics) / _CUBE).astype(int).tolist()
    return x, y, z


CELLS: dict[str, Callable[[Any, Any], Cell]] = {"walker": walker, "quadruped": quadruped, "jaco": jaco}
"""The cell of each domain, from task and physics."""
