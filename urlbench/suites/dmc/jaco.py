"""The Kinova Jaco arm: reach one of four places on the table, as in URLB or as in ExORL.

Source: the tasks are defined by URLB (Laskin et al. 2021) and ExORL (Yarats et al. 2022); arm, hand, table and the
random draws of a reset are those of dm_control's manipulation task `reach`.

Three variants:

* `urlb`: the target is a Duplo brick, which is observed (O = 55), has a random yaw and moves when it is pushed.
* `exorl`: the target is a fixed place, which is not observed (O = 42); the hand starts in a larger box; rewards are
  float32, so they underflow to exactly 0 far from the target.
* `exorl_as_in_choreographer`: `exorl` with one more random 3-vector drawn at each reset, so that the starting poses
  differ from ExORL's from the second reset on.
"""

import logging
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from dm_control import composer
from dm_control.entities import props
from dm_control.manipulation import reach
from dm_control.manipulation.shared import arenas, constants, observations, robots
from dm_control.manipulation.shared.workspaces import BoundingBox
from dm_control.utils import rewards

from urlbench.core.interfaces import Array

Variant = Literal["urlb", "exorl", "exorl_as_in_choreographer"]

# Choreographer's release says 10.04 s, which today's dm_control turns into 251 frames.
_TIME_LIMIT = 10.0  # s, at 0.04 s a frame: 250 frames an episode

TARGET_RADIUS = 0.05
"""Distance between hand and target below which the reward is full, m."""

_TARGET_HEIGHT = 0.001  # m, so that the brick does not touch the table before it settles
TARGETS = {
    "reach_top_left": (-0.09, 0.09, _TARGET_HEIGHT),
    "reach_top_right": (0.09, 0.09, _TARGET_HEIGHT),
    "reach_bottom_left": (-0.09, -0.09, _TARGET_HEIGHT),
    "reach_bottom_right": (0.09, -0.09, _TARGET_HEIGHT),
}
"""Where the target is at the start of an episode, m."""

TASKS = tuple(TARGETS)

# Where the hand starts, pointing down, m.
_HAND_URLB = BoundingBox(lower=(-0.1, -0.1, 0.2), upper=(0.1, 0.1, 0.4))
_HAND_EXORL = BoundingBox(lower=(-0.2, -0.2, 0.02), upper=(0.2, 0.2, 0.4))


# A reset tries poses of the arm until one can be reached, and dm_control logs a warning for each that cannot.
logging.getLogger("absl").addFilter(lambda record: not str(record.msg).startswith("Failed to converge after"))


class _Workspace(NamedTuple):
    target_bbox: BoundingBox
    tcp_bbox: BoundingBox
    arm_offset: Any


def make(task: str, seed: int, variant: Variant = "urlb", *, observed: bool = True) -> composer.Environment:
    """The composer environment of `task`, one of TASKS; with nothing to observe if not `observed`."""
    reaching = _reach(task, variant)
    for observable in reaching.observables.values():
        observable.enabled &= observed
    return composer.Environment(reaching, time_limit=_TIME_LIMIT, random_state=seed)


def reach_reward(distance: float) -> float:
    """Reward of a frame: 1 within TARGET_RADIUS, 0.1 at twice and 1e-4 at three times that distance.

    Args:
        distance: between the hand's centre and the target, m.
    """
    reward: float = rewards.tolerance(distance, bounds=(0, TARGET_RADIUS), margin=TARGET_RADIUS)
    return reward


class ReachBrick(reach.Reach):  # type: ignore[misc]  # dm_control has no types
    """Bring the hand to a brick; the classes for a fixed place build on it."""

    def distance(self, physics: Any) -> float:
        """Between the hand's centre and the target, m."""
        return float(np.linalg.norm(self.hand_position(physics) - physics.bind(self._target).xpos))

    def hand_position(self, physics: Any) -> Array:
        """The hand's centre, [3], m."""
        position: Array = physics.bind(self._hand.tool_center_point).xpos
        return position

    def get_reward(self, physics: Any) -> float:
        """Reward of the current state, in [0, 1]."""
        return reach_reward(self.distance(physics))


class ReachPlaceExtraDraw(ReachBrick):
    """Bring the hand to a fixed place; a reset draws a 3-vector for a place that is a single point."""

    def get_reward(self, physics: Any) -> Any:
        """Reward of the current state, in [0, 1]; float32 as in ExORL, and so is its sum over repeated frames."""
        return np.float32(super().get_reward(physics))


class ReachPlace(ReachPlaceExtraDraw):
    """Bring the hand to a fixed place."""

    def __init__(self, *, position: tuple[float, float, float], **parts: Any) -> None:
        super().__init__(**parts)
        self._position = position

    def initialize_episode(self, physics: Any, random_state: np.random.RandomState) -> None:
        """Draw the grasp and the hand's pose, and nothing else."""
        self._hand.set_grasp(physics, close_factors=random_state.uniform())
        self._tcp_initializer(physics, random_state)
        physics.bind(self._target).pos = self._position


def _reach(task: str, variant: Variant) -> ReachBrick:
    assert variant in get_args(Variant), f"variant {variant!r} is none of {get_args(Variant)}"
    position = TARGETS[task]
    settings = observations.PERFECT_FEATURES
    parts: dict[str, Any] = {
        "arena": arenas.Standard(),
        "arm": robots.make_arm(obs_settings=settings),
        "hand": robots.make_hand(obs_settings=settings),
        "prop": None,
        "obs_settings": settings,
        # A box of one point: the stock initialisers still draw from it, as they did in the published runs.
        "workspace": _Workspace(
            BoundingBox(position, position), _HAND_URLB if variant == "urlb" else _HAND_EXORL, robots.ARM_OFFSET
        ),
        "control_timestep": constants.CONTROL_TIMESTEP,
    }
    if variant == "urlb":
        options = observations.make_options(settings, observations.FREEPROP_OBSERVABLES)
        return ReachBrick(**{**parts, "prop": props.Duplo(observable_options=options)})
    place = ReachPlace(position=position, **parts) if variant == "exorl" else ReachPlaceExtraDraw(**parts)
    place.task_observables["target_position"].enabled = False
    return place
