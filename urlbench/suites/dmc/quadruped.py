"""The quadruped: walk and run of dm_control, and URLB's stand and jump.

Source: stand and jump are defined by URLB (Laskin et al. 2021); body, resets and observations are dm_control's.
"""

import warnings
from typing import Any

from dm_control import suite
from dm_control.rl import control
from dm_control.suite import common, quadruped
from dm_control.utils import rewards

_TIME_LIMIT = 20.0  # s
_CONTROL_TIMESTEP = 0.02  # s, so 1000 frames an episode
_FLOOR_SIZE = 10.0  # m, half of the floor's side, as for the stock walk

JUMP_HEIGHT = 1.0
"""Height of the centre of mass at which the jump reward is full, m."""

_STOCK = ("walk", "run")
TASKS = (*_STOCK, "stand", "jump")


def make(task: str, seed: int) -> control.Environment:
    """The dm_control environment of `task`, one of TASKS."""
    with warnings.catch_warnings():
        # dm_control 1.0.28 looks its sensors up with np.in1d, which NumPy deprecates. It keeps the names it found, so
        # asking for both groups of sensors here leaves no warning for later.
        warnings.simplefilter("ignore", DeprecationWarning)
        if task in _STOCK:
            environment = suite.load("quadruped", task, task_kwargs={"random": seed, "time_limit": _TIME_LIMIT})
        else:
            model = quadruped.make_model(floor_size=_FLOOR_SIZE)
            environment = control.Environment(
                quadruped.Physics.from_xml_string(model, common.ASSETS),
                {"stand": Stand, "jump": Jump}[task](random=seed),
                time_limit=_TIME_LIMIT,
                control_timestep=_CONTROL_TIMESTEP,
            )
        environment.physics.imu()
        environment.physics.force_torque()
    return environment


def upright_reward(torso_zz: float) -> float:
    """1 with the torso level, 0 with it upside down.

    Args:
        torso_zz: cosine of the angle between the torso's z axis and the world's, in [-1, 1].
    """
    reward: float = rewards.tolerance(torso_zz, bounds=(1, float("inf")), margin=2, value_at_margin=0, sigmoid="linear")
    return reward


def jump_reward(torso_zz: float, height: float) -> float:
    """Reward of a frame in [0, 1].

    Args:
        torso_zz: as in `upright_reward`.
        height: of the centre of mass, m.
    """
    high: float = rewards.tolerance(
        height, bounds=(JUMP_HEIGHT, float("inf")), margin=JUMP_HEIGHT, value_at_margin=0.5, sigmoid="linear"
    )
    return upright_reward(torso_zz) * high


class Stand(quadruped.Move):  # type: ignore[misc]  # dm_control has no types
    """Stay upright; starts from a random orientation."""

    def __init__(self, random: int) -> None:
        super().__init__(desired_speed=0, random=random)

    def get_reward(self, physics: Any) -> float:
        """Reward of the current state, in [0, 1]."""
        return upright_reward(physics.torso_upright())


class Jump(Stand):
    """Stay upright with the centre of mass high."""

    def get_reward(self, physics: Any) -> float:
        """Reward of the current state, in [0, 1]."""
        height = physics.named.data.sensordata["center_of_mass"][2]
        return jump_reward(physics.torso_upright(), height)
