"""Meta-World's reach task (v3): a Sawyer arm whose hand is to come within 0.05 m of a goal it is told nothing about.

Source: Meta-World (Yu et al. 2019; Farama's v3); goal sets, camera and success as reward are Choreographer's (Mazzaglia
et al. 2023, sec. 4.2 and app. B.2). The simulation uses Meta-World's model and computes what its environment computes,
bit for bit (that is tested), but without importing it: its resets draw from global random streams and ignore their
seed, and it loads gymnasium and libraries for windows. Leaving out what a step does not need also makes it faster.
"""

import copy
import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from urlbench.core.errors import UserError, unknown_name
from urlbench.core.interfaces import Array, TimeStep
from urlbench.core.types import DEFAULT_IMAGE, ImageFormat
from urlbench.suites.image_environment import ImageEnvironment
from urlbench.suites.metaworld.reach_goals import GOALS, goal_set as rows_of_goal_set
from urlbench.suites.rendering import Renderer, imported_without_graphics

with imported_without_graphics():
    import mujoco

TASKS = ("reach",)
EPISODE_FRAMES = 500
"""Meta-World's own limit."""
SUCCESS_RADIUS = 0.05
"""Distance of the hand from the goal, in metres, up to which a frame is a success."""

_MODEL = "assets/sawyer_xyz/sawyer_reach_v3.xml"
_FRAME_STEPS = 5  # of physics, 2.5 ms each
_HAND_START = (0.0, 0.6, 0.2)  # m
_HAND_DOWN = (1.0, 0.0, 1.0, 0.0)
_START_FRAMES = 50  # in which the hand goes from the model's pose to where it starts
_HAND_LOW, _HAND_HIGH = np.array([-0.5, 0.4, 0.05]), np.array([0.5, 1.0, 0.5])  # m, where actions can lead
_LARGEST_MOVE = 1 / 100  # m, in one frame along one axis
_WELD = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 5.0)
_OPEN_FINGERS = 0.1  # m, between the fingers of an open gripper

# The camera was moved for these suites. Its name is Meta-World's.
_CAMERA = "corner2"
_CAMERA_PLACE = (0.75, 0.075, 0.7)  # m

_NOW = 18  # observations of one frame: hand 3, gripper 1, object's place 3 and orientation 4, 7 that stay 0
# Meta-World clips what steps return, not what resets return.
_OBSERVED_LOW = np.full(2 * _NOW + 3, -np.inf)
_OBSERVED_HIGH = np.full(2 * _NOW + 3, np.inf)
for _start in (0, _NOW):
    _OBSERVED_LOW[_start : _start + 4] = -0.525, 0.348, -0.0525, -1.0
    _OBSERVED_HIGH[_start : _start + 4] = 0.525, 1.025, 0.7, 1.0
_INTEGRATION: int = mujoco.mjtState.mjSTATE_INTEGRATION.value


def make_states(task: str, seed: int, action_repeat: int, *, goal_set: int) -> "ReachEnvironment":
    """Reach from Meta-World's 39 observations, the goal hidden.

    Args:
        task: `reach`.
        seed: of the stream that resets draw goals from, in [0, 2^32).
        action_repeat: frames an action is applied for.
        goal_set: number of the set, in [0, 2^32).

    Raises:
        UserError: if there is no such task.
    """
    _check(task)
    return ReachEnvironment(seed, action_repeat, goal_set)


def make_pixels(
    task: str, seed: int, action_repeat: int, *, goal_set: int, image: ImageFormat | None = DEFAULT_IMAGE
) -> "PixelReachEnvironment":
    """Reach from pictures in which the goal is drawn; `image` None draws nothing, the rest as in `make_states`."""
    _check(task)
    return PixelReachEnvironment(ReachEnvironment(seed, action_repeat, goal_set, observed=False), image)


def _check(task: str) -> None:
    if task not in TASKS:
        raise unknown_name("task", task, TASKS, see="urlbench list tasks")


class ReachSimulation:
    """The arm, the object on its table and the goal.

    Every start is computed from the same state, so that nothing is carried from one episode to the next.

    Attributes:
        model: Meta-World's, its camera `corner2` at the place it has in these suites.
        goal: xyz in metres.
    """

    def __init__(self) -> None:
        self.model = copy.copy(_compiled(_model_file()))
        self.model.eq_data[0] = _WELD
        self.camera = self.model.camera(_CAMERA).id
        self.model.cam_pos[self.camera] = _CAMERA_PLACE
        self.data = mujoco.MjData(self.model)
        # These are windows on MuJoCo's own memory, always up to date.
        self._mocap = self.data.mocap_pos[0]
        self._fingertips = tuple(self.data.site(side + "EndEffector").xpos for side in ("right", "left"))
        self._claws = tuple(self.data.body(side + "claw").xpos for side in ("right", "left"))
        self._hand, self._object = (self.data.body(name).xpos for name in ("hand", "obj"))
        self._object_turn = self.data.geom("objGeom").xmat
        self.goal = np.zeros(3)
        self._delta: Array = np.zeros(3, np.float32)
        self._start_state = self._settled()

    def _settled(self) -> Array:
        """The state in which the hand has come to where it starts."""
        self._mocap[:] = _HAND_START
        self.data.mocap_quat[0] = _HAND_DOWN
        self.data.ctrl[:] = -1, 1
        mujoco.mj_step(self.model, self.data, nstep=_START_FRAMES * _FRAME_STEPS)
        state = np.empty(mujoco.mj_stateSize(self.model, _INTEGRATION))
        mujoco.mj_getState(self.model, self.data, state, _INTEGRATION)
        return state

    def start(self, object_place: Array, goal: Array) -> None:
        """Put the hand at its start, the object at `object_place` [3] and the goal at `goal` [3]."""
        mujoco.mj_setState(self.model, self.data, self._start_state, _INTEGRATION)
        joint = self.data.joint("objjoint")
        joint.qpos[:3], joint.qvel[:] = object_place, 0.0
        self.goal[:] = goal
        self.model.site("goal").pos = goal
        mujoco.mj_forward(self.model, self.data)

    def choose(self, action: Array) -> None:
        """The action [4] of the frames to come: a move of the hand along x, y and z, and the gripper's effort.

        In [-1, 1]; what is beyond is clipped.
        """
        # In float32, as in Meta-World.
        self._delta = np.clip(action[:3], -1, 1) * _LARGEST_MOVE
        self.data.ctrl[:] = action[3], -action[3]

    def advance(self) -> bool:
        """Simulate one frame; whether the hand is at the goal after it."""
        np.add(self._mocap, self._delta, out=self._mocap)
        np.maximum(self._mocap, _HAND_LOW, out=self._mocap)
        np.minimum(self._mocap, _HAND_HIGH, out=self._mocap)
        mujoco.mj_step(self.model, self.data, nstep=_FRAME_STEPS)
        # For the places after the step, and for the accelerations from which the next step's solver starts.
        mujoco.mj_forward(self.model, self.data)
        away = self.hand() - self.goal
        return bool(np.sqrt(away.dot(away)) <= SUCCESS_RADIUS)

    def hand(self) -> Array:
        """The point between the fingertips, float64 [3]: the one that is to come to the goal."""
        right, left = self._fingertips
        middle: Array = (right + left) / 2
        return middle

    def observation(self) -> Array:
        """Meta-World's observation of one frame, float64 [18].

        Hand (xyz), gripper (0 closed, 1 open), object (xyz, then its quaternion xyzw), seven zeros.
        """
        seen = np.zeros(_NOW)
        seen[:3] = self._hand
        right, left = self._claws
        apart = right - left
        seen[3] = min(np.sqrt(apart.dot(apart)) / _OPEN_FINGERS, 1.0)
        seen[4:7] = self._object
        seen[7:11] = _quaternion(self._object_turn)
        return seen


def _model_file() -> Path:
    # Finding a package does not import it.
    spec = importlib.util.find_spec("metaworld")
    if spec is None or spec.submodule_search_locations is None:
        raise UserError("the suites of Meta-World need the package metaworld; pip install metaworld==3.1.1.")
    return Path(spec.submodule_search_locations[0]) / _MODEL


@functools.cache
def _compiled(file: Path) -> mujoco.MjModel:
    """The model in `file`, to be copied: reading its meshes takes ten times as long, and its 20 MB are kept."""
    return mujoco.MjModel.from_xml_path(str(file))


def _quaternion(rotation: Array) -> Array:
    """The rotation matrix [9] as xyzw, its sign as SciPy chooses it: the component known best is positive."""
    wxyz = np.empty(4)
    mujoco.mju_mat2Quat(wxyz, rotation)
    xx, yy, zz = rotation[0], rotation[4], rotation[8]
    xyzw = wxyz[[1, 2, 3, 0]]
    known_best = max(range(4), key=(xx, yy, zz, xx + yy + zz).__getitem__)
    return -xyzw if xyzw[known_best] < 0 else xyzw


class ReachEnvironment:
    """Reach with the goals of one set; implements `urlbench.core.interfaces.GoalEnvironment`.

    Observations are Meta-World's, float32 [39]: of this frame 18 (see `ReachSimulation.observation`), of the frame
    before 18, and zeros for the goal, which is hidden.

    Attributes:
        simulation: of this environment.
        goals: the goal set, [50, 6]: object xyz, goal xyz.
    """

    def __init__(self, seed: int, action_repeat: int, goal_set: int, *, observed: bool = True) -> None:
        """Load the model.

        Args:
            seed: of the stream that resets draw goals from, in [0, 2^32).
            action_repeat: frames an action is applied for.
            goal_set: number of the set, in [0, 2^32).
            observed: False for observations of no numbers, which cost nothing.
        """
        self.simulation = ReachSimulation()
        self.goals = rows_of_goal_set(goal_set)
        self.action_dim, self.action_repeat = 4, action_repeat
        self.observation_shape: tuple[int, ...] = (2 * _NOW + 3 if observed else 0,)
        self.observation_dtype: np.dtype[Any] = np.dtype(np.float32)
        self._random = np.random.default_rng(seed)
        self._goal: int | None = None
        self._frame = EPISODE_FRAMES
        self._seen = np.zeros(_NOW)

    def set_goal(self, goal: int | None) -> None:
        """The goal, by its place in the set, of all episodes from the next reset on; None draws one at each reset."""
        assert goal is None or 0 <= goal < GOALS, f"goal {goal} of a set of {GOALS}"
        self._goal = goal

    def reset(self) -> TimeStep:
        """Start an episode; only this draws from the random stream, and only if no goal was set."""
        row = self.goals[self._random.integers(GOALS) if self._goal is None else self._goal]
        self.simulation.start(row[:3], row[3:])
        self._frame = 0
        return TimeStep(self._first_observation(), 0.0, 1.0, True, False)

    def step(self, action: Array) -> TimeStep:
        """Apply `action` [4] for `action_repeat` frames, or until the episode ends.

        The reward is the number of frames after which the hand was at the goal.

        Raises:
            RuntimeError: before the first reset and after the last step of an episode.
        """
        if self._frame == EPISODE_FRAMES:
            raise RuntimeError("no episode is under way: call reset() first and after a step with is_last.")
        assert action.shape == (4,), f"action has shape {action.shape}, expected (4,)"
        frames = min(self.action_repeat, EPISODE_FRAMES - self._frame)
        self._frame += frames
        self.simulation.choose(np.asarray(action, np.float32))
        successes = 0
        for _ in range(frames):
            successes += self.simulation.advance()
            observation = self._next_observation()
        return TimeStep(observation, float(successes), 1.0, False, self._frame == EPISODE_FRAMES)

    def random_state(self) -> dict[str, Any]:
        """The state of the stream that the next `reset` draws from, as plain JSON values."""
        return dict(self._random.bit_generator.state)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self._random.bit_generator.state = state

    def reseed(self, seed: int) -> None:
        """Start the random stream anew, from `seed` in [0, 2^32)."""
        self._random = np.random.default_rng(seed)

    def _first_observation(self) -> Array:
        if self.observation_shape == (0,):
            return np.zeros(0, np.float32)
        self._seen = self.simulation.observation()
        return np.concatenate([self._seen, self._seen, np.zeros(3)]).astype(np.float32)

    def _next_observation(self) -> Array:
        if self.observation_shape == (0,):
            return np.zeros(0, np.float32)
        before, self._seen = self._seen, self.simulation.observation()
        observation = np.concatenate([self._seen, before, np.zeros(3)])
        np.maximum(observation, _OBSERVED_LOW, out=observation)
        return np.minimum(observation, _OBSERVED_HIGH, out=observation).astype(np.float32)


class PixelReachEnvironment(ImageEnvironment):
    """Reach in pictures, in which a red ball marks the goal; implements `urlbench.core.interfaces.GoalEnvironment`.

    They are upright and mirrored, as the published ones, which were read bottom row first from a camera that is upside
    down.
    """

    environment: ReachEnvironment

    def __init__(self, environment: ReachEnvironment, image: ImageFormat | None) -> None:
        """Look at `environment`, or draw nothing if `image` is None."""
        super().__init__(environment, image)
        self._renderer: Renderer | None = None

    def set_goal(self, goal: int | None) -> None:
        """The goal, by its place in the set, of all episodes from the next reset on; None draws one at each reset."""
        self.environment.set_goal(goal)

    def look(self, size: int) -> Array:
        """A picture of the present state, uint8 [3, size, size]."""
        simulation = self.environment.simulation
        if self._renderer is None:
            self._renderer = Renderer(simulation.model, height=size, width=size, camera=simulation.camera)
        return np.ascontiguousarray(self._renderer.render(simulation.data)[::-1].transpose(2, 0, 1))
