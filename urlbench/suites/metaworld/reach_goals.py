"""The goal sets of Meta-World reach, regenerated: numbered sets of 50 goals with a place for the object each.

Source: Choreographer (Mazzaglia et al. 2023), sec. 4.2 and app. B.2. The paper gives the box of the goals; the files of
its code (sets 0 to 9, of which it uses 1, 2 and 3) hold what this recipe draws, bit for bit.
"""

import numpy as np

from urlbench.core.interfaces import Array

GOALS = 50
"""Goals in a set."""

# Object xyz, goal xyz, in metres. The published draws come from bounds that were rounded to float32.
_LOW = np.array([-0.1, 0.6, 0.02, -0.45, 0.3, 0.1], np.float32)
_HIGH = np.array([0.1, 0.7, 0.02, 0.45, 0.9, 0.5], np.float32)
_LEAST_DISTANCE = 0.15  # m, between object and goal, seen from above


def goal_set(number: int) -> Array:
    """Goal set `number`, float64 [50, 6]: the object's place and the goal's of each row, xyz in metres.

    Every number in [0, 2^32) has one; 0 to 9 were published.
    """
    random = np.random.RandomState(number)
    rows: list[Array] = []
    while len(rows) < GOALS:
        row = random.uniform(_LOW, _HIGH)
        if np.linalg.norm(row[:2] - row[3:5]) >= _LEAST_DISTANCE:
            rows.append(row)
    return np.stack(rows)
