"""The planar walker: stand, walk and run of dm_control, and URLB's flip.

Source: flip is defined by URLB (Laskin et al. 2021); body, resets and observations are dm_control's.
"""

from typing import Any

from dm_control import suite
from dm_control.rl import control
from dm_control.suite import walker
from dm_control.utils import rewards

_TIME_LIMIT = 25.0  # s
_CONTROL_TIMESTEP = 0.025  # s, so 1000 frames an episode

FLIP_SPEED = 5.0
"""Angular momentum of the body about its centre of mass above which the flip reward is full, kg m^2/s."""

_STOCK = ("stand", "walk", "run")
TASKS = (*_STOCK, "flip")


def make(task: str, seed: int) -> control.Environment:
    """The dm_control environment of `task`, one of TASKS."""
    if task in _STOCK:
        return suite.load("walker", task, task_kwargs={"random": seed, "time_limit": _TIME_LIMIT})
    assert task == "flip", task
    physics = walker.Physics.from_xml_string(*walker.get_model_and_assets())
    return control.Environment(physics, Flip(random=seed), time_limit=_TIME_LIMIT, control_timestep=_CONTROL_TIMESTEP)


def flip_reward(stand_reward: float, angular_momentum: float) -> float:
    """Reward of a frame in [0, 1].

    Args:
        stand_reward: reward of the task `stand`, in [0, 1].
        angular_momentum: of the whole body about its centre of mass, y component (positive is forward), kg m^2/s.
    """
    move: float = rewards.tolerance(
        angular_momentum, bounds=(FLIP_SPEED, float("inf")), margin=FLIP_SPEED, value_at_margin=0, sigmoid="linear"
    )
    return stand_reward * (5 * move + 1) / 6


class Flip(walker.PlanarWalker):  # type: ignore[misc]  # dm_control has no types
    """Turn over forward, again and again, while being upright and high."""

    def __init__(self, random: int) -> None:
        # A move speed of 0 makes the inherited reward that of `stand`.
        super().__init__(move_speed=0, random=random)

    def get_reward(self, physics: Any) -> float:
        """Reward of the current state, in [0, 1]."""
        # MuJoCo fills subtree_angmom only because the model has a subtreelinvel sensor.
        angular_momentum = physics.named.data.subtree_angmom["torso"][1]
        return flip_reward(super().get_reward(physics), angular_momentum)
