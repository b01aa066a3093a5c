"""Meta-World reach: the goal sets, the task as Meta-World computes it, the pictures, and what can be reached."""

import hashlib
import importlib.util
import json
import math
import os
import pickle
import random
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from graphics import needs_renderer
from processes import run_program

from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import TimeStep
from urlbench.core.types import ImageFormat
from urlbench.suites.metaworld import sawyer_reach
from urlbench.suites.metaworld.reach_ceiling import proportional_action, reached_goals
from urlbench.suites.metaworld.reach_goals import GOALS, goal_set
from urlbench.suites.metaworld.sawyer_reach import (
    SUCCESS_RADIUS,
    ReachEnvironment,
    ReachSimulation,
    make_pixels,
    make_states,
)
from urlbench.suites.rendering import imported_without_graphics

with imported_without_graphics():
    import mujoco

PIXELS, STATES = registry.load_suite("metaworld-reach"), registry.load_suite("metaworld-reach-states")
SUITES = pytest.mark.parametrize("suite", [PIXELS, STATES], ids=["pixels", "states"])

# Of the (50, 6) float64 arrays of the published files.
PUBLISHED_SETS = (
    "dbfd6df70a0e263633606561b4ddb1d64fa497abdc348218ff57f13ebc847c4f",
    "61c0397174f6e5dc139fa2abd8ba694a0193b1716028944bf592c5fdd52206b2",
    "4927ac0df314c85a6aacb9aa5513e7393440100bcadc73567eb521c4f9e97d7e",
    "07626c4aeac87080cee3408c5c7f69c1d5b76f96e1c9f84b92ffca4999de4535",
    "894c07d401f376117fcf62d19a4a8750998add569ec42ce55fc3c5b1778a6f1d",
    "2b5c9c012afc1d16bf78a76aa6479df0432fb5c70b7ccdf9429313f2917de246",
    "50f23e4260154426a20532b2dc1c96e0a08872e17728bdf1962e87abe5449788",
    "3642a73d743c6e61aec446e1d40e34f2c7cef2b87c674934c98062ada15319bd",
    "caed7a8406094b31b2cfd04f20b57833909aea351d9488a03d0ab71ea1374876",
    "dc6a78cc67a112e482c084243d38c909107bb3e9dbcc5e44116740066b3ff70b",
)


def uniform_actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 4)).astype(np.float32)


def play(environment: Any, actions: np.ndarray) -> list[TimeStep]:
    return [environment.reset(), *map(environment.step, actions)]


def goals_of(environment: ReachEnvironment, resets: int) -> list[int]:
    """Which goals the next resets start with."""
    found = []
    for _ in range(resets):
        environment.reset()
        found += np.flatnonzero((environment.goals[:, 3:] == environment.simulation.goal).all(axis=1)).tolist()
    assert len(found) == resets
    return found


# --- Goal sets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(10))
def test_the_goal_sets_are_the_published_ones(number: int) -> None:
    rows = goal_set(number)
    assert (rows.shape, rows.dtype) == ((50, 6), np.float64)
    assert hashlib.sha256(np.ascontiguousarray(rows, "<f8")).hexdigest() == PUBLISHED_SETS[number]


@pytest.mark.parametrize("number", [10, 2**32 - 1])
def test_every_number_has_a_goal_set(number: int) -> None:
    rows = goal_set(number)
    np.testing.assert_array_equal(rows, goal_set(number))
    assert (rows[:, :3] >= np.float32([-0.1, 0.6, 0.02])).all()
    assert (rows[:, :3] <= np.float32([0.1, 0.7, 0.02])).all()
    assert (rows[:, 3:] >= np.float32([-0.45, 0.3, 0.1])).all()
    assert (rows[:, 3:] <= np.float32([0.45, 0.9, 0.5])).all()
    assert (np.linalg.norm(rows[:, :2] - rows[:, 3:5], axis=1) >= 0.15).all()
    assert len(np.unique(rows, axis=0)) == 50


def test_goal_sets_do_not_touch_the_global_random_stream() -> None:
    np.random.seed(0)  # noqa: NPY002 - the global stream is what this is about
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    goal_set(1)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# --- The suites -------------------------------------------------------------------------------------


@SUITES
def test_the_search_is_the_published_one(suite: Any) -> None:
    paper, mean = suite.protocols["paper"], suite.protocols["paper-mean-actions"]
    assert (suite.action_repeat, suite.domains[0].max_episode_frames, suite.goal_sets.goals) == (2, 500, GOALS)
    assert (paper.pretrain_frames, paper.eval_episodes) == (2_000_000, 100)
    assert paper.snapshots == (100_000, 500_000, 1_000_000, 2_000_000)
    assert paper.search.model_dump() == {
        "goals": 50,
        "found_reward": 1.0,
        "criterion": "step_reward",
        "actions": "sampled",
        "skill_steps": 50,
        "stop_when_found": True,
    }
    assert mean.search == paper.search.model_copy(update={"actions": "mean"})
    assert (paper.reduced, mean.reduced, suite.protocols["smoke"].reduced) == (False, False, True)


def test_the_suites_differ_in_what_is_seen_only() -> None:
    ours, theirs = STATES.model_dump(), PIXELS.model_dump()
    assert {key for key in ours if ours[key] != theirs[key]} == {"name", "description", "observation", "environment"}


def test_the_specification_needs_no_simulator() -> None:
    code = (
        "import sys, urlbench.suites.metaworld.metaworld_reach\n"
        "print(sorted({'mujoco', 'metaworld', 'gymnasium', 'torch', 'pandas'} & set(sys.modules)))"
    )
    assert run_program([sys.executable, "-c", code], check=True).stdout.strip() == "[]"


def test_states_need_no_graphics_and_nothing_of_metaworld_but_its_model() -> None:
    code = (
        "import sys\nfrom urlbench.suites.metaworld.sawyer_reach import make_states\n"
        "make_states('reach', 1, 2, goal_set=1).reset()\n"
        "print(sorted({'OpenGL', 'glfw', 'pygame', 'imageio', 'gymnasium', 'metaworld'} & set(sys.modules)))"
    )
    without = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    done = run_program([sys.executable, "-W", "error", "-c", code], env=without, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown task 'reech'; did you mean 'reach'"):
        make_states("reech", 1, 2, goal_set=1)
    with pytest.raises(UserError, match="unknown task 'push'"):
        make_pixels("push", 1, 2, goal_set=1)


def test_a_missing_metaworld_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="need the package metaworld; pip install"):
        make_states("reach", 1, 2, goal_set=1)


# --- The task, as Meta-World computes it ------------------------------------------------------------


class MetaWorld:
    """Meta-World's own environment of a goal set, one frame a step."""

    def __init__(self, number: int) -> None:
        from metaworld.envs.sawyer_reach_v3 import SawyerReachEnvV3
        from metaworld.types import Task

        self.rows, self.environment, self._task = goal_set(number), SawyerReachEnvV3(), Task

    def reset(self, goal: int) -> np.ndarray:
        data = {
            "rand_vec": self.rows[goal],
            "env_cls": type(self.environment),
            "partially_observable": True,
        }
        self.environment.set_task(self._task("reach-v3", pickle.dumps(data)))
        return self.environment.reset()[0]


@pytest.fixture(scope="module")
def metaworld() -> MetaWorld:
    return MetaWorld(1)


def push_the_object(simulation: ReachSimulation, step: int) -> np.ndarray:
    """The hand goes for the object, opening and closing; it tumbles."""
    noise = np.random.default_rng(step).normal(0, 0.3, 3)
    place = simulation.data.body("obj").xpos
    move = np.clip(10 * (place - simulation.hand()) + noise, -1, 1)
    return np.append(move, math.sin(step / 20)).astype(np.float32)


POLICIES = {
    "uniform": lambda simulation, step: uniform_actions(1, step)[0],
    "beyond the range": lambda simulation, step: 3 * uniform_actions(1, step // 20)[0],
    "into the corners": lambda simulation, step: uniform_actions(1, step // 60)[0].round(),
    "pushing the object": push_the_object,
    "to the goal": lambda simulation, step: proportional_action(simulation.hand(), simulation.goal),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_every_frame_equals_that_of_metaworld_bit_for_bit(policy: str, metaworld: MetaWorld) -> None:
    """The plain environment is the oracle of everything that ours leaves out."""
    ours, theirs = make_states("reach", 1, 1, goal_set=1), metaworld.environment
    play(ours, uniform_actions(7))
    successes, turned = 0, 0.0
    ours.set_goal(5)
    timestep, observation = ours.reset(), metaworld.reset(5)
    np.testing.assert_array_equal(timestep.observation, observation.astype(np.float32))
    for step in range(500):
        action = POLICIES[policy](ours.simulation, step)
        timestep, (observation, _, _, truncated, info) = ours.step(action), theirs.step(action)
        np.testing.assert_array_equal(ours.simulation.data.qpos, theirs.data.qpos)
        np.testing.assert_array_equal(ours.simulation.data.qvel, theirs.data.qvel)
        np.testing.assert_array_equal(ours.simulation.hand(), theirs.tcp_center)
        np.testing.assert_array_equal(timestep.observation, observation.astype(np.float32))
        assert (timestep.reward, timestep.is_last) == (info["success"], truncated)
        successes += info["success"]
        turned = max(turned, abs(observation[9]))
    # What these are for.
    assert successes or policy != "to the goal"
    assert turned > 0.1 or policy != "pushing the object"


def test_simulations_have_models_of_their_own_that_equal_the_file_s() -> None:
    def numbers(model: Any) -> np.ndarray:
        stored = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, stored)
        return stored

    used, fresh = ReachSimulation(), ReachSimulation()
    np.testing.assert_array_equal(numbers(used.model), numbers(fresh.model))
    used.start(np.array([0, 0.6, 0.02]), np.array([0.1, 0.7, 0.2]))
    assert not np.array_equal(used.model.site("goal").pos, fresh.model.site("goal").pos)
    from_file = mujoco.MjModel.from_xml_path(str(sawyer_reach._model_file()))
    np.testing.assert_array_equal(numbers(ReachSimulation().model), numbers(fresh.model))
    # What a simulation changes in its model, and nothing else.
    from_file.eq_data[0], from_file.cam_pos[fresh.camera] = fresh.model.eq_data[0], fresh.model.cam_pos[fresh.camera]
    np.testing.assert_array_equal(numbers(fresh.model), numbers(from_file))


@pytest.mark.parametrize(
    "axis_angle", [(0, 0, 1, 0.0), (1, 0, 0, 3.0), (0, 1, 0, 3.1), (0, 0, 1, -3.0), (1, -1, 0.5, 2.0), (-1, 2, 3, 2.2)]
)
def test_orientations_have_the_sign_that_scipy_gives_them(axis_angle: tuple[float, ...]) -> None:
    from scipy.spatial.transform import Rotation

    axis, angle = np.array(axis_angle[:3]), axis_angle[3]
    matrix = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    ours = sawyer_reach._quaternion(matrix.ravel())
    np.testing.assert_allclose(ours, Rotation.from_matrix(matrix).as_quat(), atol=1e-12)


@pytest.mark.parametrize(("distance", "found"), [(0.045, True), (0.055, False)])
def test_a_frame_is_a_success_within_the_radius(distance: float, found: bool) -> None:
    simulation = ReachSimulation()
    simulation.start(np.array([0, 0.6, 0.02]), np.zeros(3))
    goal = simulation.hand() + np.array([0, 0, distance])
    simulation.start(np.array([0, 0.6, 0.02]), goal)
    simulation.choose(np.zeros(4, np.float32))
    assert simulation.advance() == found
    assert SUCCESS_RADIUS == 0.05


# --- Episodes ---------------------------------------------------------------------------------------


def to_the_goal(environment: ReachEnvironment) -> list[TimeStep]:
    steps = [environment.reset()]
    while not steps[-1].is_last:
        simulation = environment.simulation
        steps.append(environment.step(proportional_action(simulation.hand(), simulation.goal)))
    return steps


def test_a_step_sums_the_successes_of_its_frames() -> None:
    environment = make_states("reach", 1, 2, goal_set=1)
    environment.set_goal(1)
    rewards = [step.reward for step in to_the_goal(environment)]
    assert len(rewards) == 251
    assert set(rewards) == {0.0, 1.0, 2.0}


@pytest.mark.parametrize(("action_repeat", "steps"), [(1, 500), (2, 250), (3, 167)])
def test_an_episode_is_500_frames_whatever_the_action_repeat(action_repeat: int, steps: int) -> None:
    environment = ReachEnvironment(1, action_repeat, 1, observed=False)
    for _ in range(2):
        episode = play(environment, uniform_actions(steps))
        assert [step.is_last for step in episode] == [False] * steps + [True]
        assert environment.simulation.data.time == pytest.approx(550 * 0.0125)
        with pytest.raises(RuntimeError, match="reset"):
            environment.step(np.zeros(4, np.float32))


def test_stepping_before_the_first_reset_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="reset"):
        make_states("reach", 1, 2, goal_set=1).step(np.zeros(4, np.float32))


def test_an_episode_depends_on_its_goal_and_the_actions_only() -> None:
    used, fresh = make_states("reach", 1, 2, goal_set=1), make_states("reach", 2, 2, goal_set=1)
    for seed in range(3):
        play(used, 5 * uniform_actions(40, seed))
    np.random.seed(7)  # noqa: NPY002 - the global streams must not matter
    random.seed(7)
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    actions = uniform_actions(60)
    for environment in (used, fresh):
        environment.set_goal(17)
    for one, other in zip(play(used, actions), play(fresh, actions), strict=True):
        assert one[1:] == other[1:]
        np.testing.assert_array_equal(one.observation, other.observation)
    assert random.getstate() == before[1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002


def test_observations_hold_two_frames_and_hide_the_goal() -> None:
    environment, other = (make_states("reach", 1, 1, goal_set=1) for _ in range(2))
    other.goals[0, 3:] = other.goals[1, 3:]
    for each in (environment, other):
        each.set_goal(0)
    actions = uniform_actions(30)
    observations, others = ([step.observation for step in play(each, actions)] for each in (environment, other))
    np.testing.assert_array_equal(observations, others)
    assert not np.array_equal(environment.simulation.goal, other.simulation.goal)
    for before, now in pairwise(observations):
        np.testing.assert_array_equal(now[18:36], before[:18])
        assert not now[[*range(11, 18), *range(29, 39)]].any()
        assert 0 < now[3] <= 1
        assert np.linalg.norm(now[7:11]) == pytest.approx(1)
    np.testing.assert_array_equal(observations[0][18:36], observations[0][:18])
    np.testing.assert_allclose(observations[0][:2], [0, 0.6], atol=0.01)
    np.testing.assert_allclose(observations[0][4:7], environment.goals[0, :3], atol=1e-6)


# --- Which goal an episode has ----------------------------------------------------------------------


def test_without_a_goal_every_reset_draws_one_of_the_set() -> None:
    drawn = goals_of(make_states("reach", 1, 2, goal_set=2), 2000)
    counts = np.bincount(drawn, minlength=GOALS)
    # 40 expected of each, with a standard deviation of 6.
    assert counts.min() >= 15
    assert counts.max() <= 75


def test_a_goal_that_was_set_stays_and_draws_nothing() -> None:
    environment, undisturbed = (make_states("reach", 1, 2, goal_set=2) for _ in range(2))
    expected = goals_of(undisturbed, 6)
    assert goals_of(environment, 3) == expected[:3]
    state = environment.random_state()
    environment.set_goal(31)
    assert goals_of(environment, 3) == [31, 31, 31]
    assert environment.random_state() == state
    environment.set_goal(None)
    assert goals_of(environment, 3) == expected[3:]


def test_the_stream_of_goals_is_the_seed_s_own() -> None:
    environment = make_states("reach", 1, 2, goal_set=1)
    first = goals_of(environment, 10)
    assert goals_of(make_states("reach", 2, 2, goal_set=1), 10) != first
    assert goals_of(make_states("reach", 1, 2, goal_set=2), 10) == first
    saved = json.dumps(environment.random_state())
    following = goals_of(environment, 10)
    environment.reseed(1)
    assert goals_of(environment, 10) == first
    environment.set_random_state(json.loads(saved))
    assert goals_of(environment, 10) == following


@pytest.mark.parametrize("goal", [-1, 50])
def test_a_goal_outside_the_set_is_our_bug(goal: int) -> None:
    environment = make_states("reach", 1, 2, goal_set=1)
    with pytest.raises(AssertionError, match=f"goal {goal} of a set of 50"):
        environment.set_goal(goal)


# --- Pictures ---------------------------------------------------------------------------------------


def test_an_agent_that_does_not_look_gets_the_same_episodes_and_nothing_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sawyer_reach, "Renderer", None)
    monkeypatch.setattr(ReachSimulation, "observation", None)
    blind = make_pixels("reach", 1, 2, goal_set=1, image=None)
    episode = play(blind, uniform_actions(40))
    monkeypatch.undo()
    seeing = make_states("reach", 1, 2, goal_set=1)
    assert [step[1:] for step in episode] == [step[1:] for step in play(seeing, uniform_actions(40))]
    assert {(step.observation.shape, step.observation.dtype.name) for step in episode} == {((0,), "uint8")}
    np.testing.assert_array_equal(blind.environment.simulation.data.qpos, seeing.simulation.data.qpos)
    assert blind.random_state() == seeing.random_state()


def test_one_picture_is_drawn_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = make_pixels("reach", 1, 2, goal_set=1, image=ImageFormat(size=8, frame_stack=2))
    times = []

    def look(size: int) -> np.ndarray:
        times.append(round(environment.environment.simulation.data.time / 0.0125))
        return np.zeros((3, size, size), np.uint8)

    monkeypatch.setattr(environment, "look", look)
    steps = play(environment, uniform_actions(3))
    # The hand has gone to its start for 50 frames.
    assert times == [50, 52, 54, 56]
    assert {step.observation.shape for step in steps} == {environment.observation_shape} == {(6, 8, 8)}


def place_in_picture(simulation: ReachSimulation, point: np.ndarray, size: int) -> tuple[float, float]:
    """Row and column of a point as the camera sees it, by the equations of a pinhole, the bottom row first."""
    camera = simulation.camera
    right, up, back = simulation.data.cam_xmat[camera].reshape(3, 3).T
    away = point - simulation.data.cam_xpos[camera]
    scale = size / 2 / math.tan(math.radians(simulation.model.cam_fovy[camera]) / 2) / -(away @ back)
    # The rows of a picture whose top row comes first count against `up`; in these they count along it.
    return size / 2 - 0.5 + away @ up * scale, size / 2 - 0.5 + away @ right * scale


@needs_renderer
@pytest.mark.parametrize("goal", [[-0.2, 0.65, 0.1], [0.15, 0.8, 0.1], [0.0, 0.5, 0.3]])
def test_the_goal_is_a_red_ball_in_its_place_from_the_first_picture_on(goal: list[float]) -> None:
    size = 128
    environment = make_pixels("reach", 1, 2, goal_set=1, image=ImageFormat(size=size))
    inner = environment.environment
    inner.goals[0], inner.goals[1] = inner.goals[2], inner.goals[2]
    inner.goals[0, 3:], inner.goals[1, 3:] = goal, [0, 0, -9]
    pictures = []
    for number in (0, 1):
        environment.set_goal(number)
        pictures.append(environment.reset().observation.astype(int))
    (red, green, blue), without = pictures[0], pictures[1]
    ball = (np.abs(pictures[0] - without).sum(axis=0) > 60) & (red > 2 * green) & (red > 2 * blue)
    assert ball.sum() >= 8
    rows, columns = np.nonzero(ball)
    row, column = place_in_picture(inner.simulation, np.array(goal), size)
    np.testing.assert_allclose([rows.mean(), columns.mean()], [row, column], atol=2)


def test_higher_points_are_higher_in_the_picture() -> None:
    """Upright and mirrored."""
    simulation = ReachSimulation()
    simulation.start(np.array([0, 0.6, 0.02]), np.zeros(3))
    (row, column), above, farther = (
        place_in_picture(simulation, np.array(point), 64) for point in ([0, 0.6, 0.1], [0, 0.6, 0.2], [0, 0.8, 0.1])
    )
    assert above[0] < row - 3
    # From where the camera is, what is farther from the arm's foot is on the right.
    assert farther[1] < column - 3


# --- What can be reached ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_the_reachable_goals_are_those_that_the_controller_reaches(number: int) -> None:
    assert STATES.goal_sets is not None
    assert sum(reached_goals(number)) == STATES.goal_sets.reachable[number]


def test_swinging_the_arm_reaches_a_goal_that_the_controller_does_not() -> None:
    """So what the suites call reachable is no bound."""
    environment = ReachEnvironment(1, 2, 3, observed=False)
    environment.set_goal(12)
    assert not any(step.reward for step in to_the_goal(environment))
    timestep, simulation = environment.reset(), environment.simulation
    start = np.array([-simulation.goal[0], 0.6, 0.3])
    for step in range(250):
        target = start if step < 40 else simulation.goal
        move = np.clip(100 * (target - simulation.hand()), -1, 1)
        timestep = environment.step(np.append(move, -1).astype(np.float32))
        if timestep.reward:
            break
    assert timestep.reward
