"""How many goals of a set the arm can reach: no agent can find more.

Run as `python -m urlbench.suites.metaworld.reach_ceiling` to measure the published sets; the suites hold the result.
"""

import numpy as np

from urlbench.core.interfaces import Array
from urlbench.suites.metaworld.reach_goals import GOALS
from urlbench.suites.metaworld.sawyer_reach import ReachEnvironment

ACTION_REPEAT = 2
_GAIN = 10.0  # 1/m: the hand moves as fast as it can until it is 0.1 m away along an axis


def proportional_action(hand: Array, goal: Array) -> Array:
    """The action, float32 [4], that leads straight from `hand` [3] to `goal` [3], both in metres."""
    return np.append(np.clip(_GAIN * (goal - hand), -1, 1), 0).astype(np.float32)


def reached_goals(goal_set: int) -> list[bool]:
    """Which goals of a set a controller that is told the goal comes to in an episode."""
    environment = ReachEnvironment(0, ACTION_REPEAT, goal_set, observed=False)
    return [_is_reached(environment, goal) for goal in range(GOALS)]


def _is_reached(environment: ReachEnvironment, goal: int) -> bool:
    environment.set_goal(goal)
    timestep, simulation = environment.reset(), environment.simulation
    while not (timestep.reward or timestep.is_last):
        timestep = environment.step(proportional_action(simulation.hand(), simulation.goal))
    return timestep.reward > 0


if __name__ == "__main__":
    for number in range(10):
        print(f"goal set {number}: {sum(reached_goals(number))} of {GOALS} reached")
