"""What every task of every registered suite promises."""

import json
import os
import sys
from typing import Any

import numpy as np
import pytest
from graphics import needs_renderer
from processes import run_program

from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import CoveredEnvironment, Environment, TimeStep
from urlbench.core.types import ImageFormat, Suite
from urlbench.suites.dmc.environment import make_environment

# Those that come with urlbench: other test modules register suites of their own, without environments.
SUITES = {name: registry.load_suite(name) for name, entry in registry._SUITES.items() if entry.origin == "urlbench"}
# Suites that share a factory share their environments, too.
FACTORIES = {suite.environment: suite for suite in reversed(SUITES.values())}


def _tasks(looks: bool) -> list[Any]:
    """Each factory's tasks; the fast tests take one a domain of those that are seen in states."""
    parameters = []
    for suite in FACTORIES.values():
        fast = {domain.primal_task for domain in suite.domains} if suite.observation == "states" else set()
        for task in suite.tasks:
            marks = [] if task.name in fast else [pytest.mark.slow]
            if looks and suite.observation == "pixels":
                marks.append(needs_renderer)
            parameters.append(pytest.param(suite, task.name, id=f"{suite.name}-{task.name}", marks=marks))
    return parameters


every_suite = pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES.keys())
every_task = pytest.mark.parametrize(("suite", "task"), _tasks(looks=True))
every_task_unseen = pytest.mark.parametrize(("suite", "task"), _tasks(looks=False))
SMALL_IMAGE = ImageFormat(size=16)


def make(suite: Suite, task: str, seed: int = 3, image: ImageFormat | None = SMALL_IMAGE) -> Environment:
    return registry.make_environment(suite, task, seed, image=image, goal_set=1)


def few(suite: Suite, count: int) -> int:
    """`count` steps, or one if each costs a picture."""
    return 1 if suite.observation == "pixels" else count


def actions(environment: Environment, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, environment.action_dim)).astype(np.float32)


def play(environment: Environment, sequence: np.ndarray) -> list[TimeStep]:
    return [environment.reset(), *(environment.step(action) for action in sequence)]


def assert_bit_equal(first: list[TimeStep], second: list[TimeStep]) -> None:
    assert [step[1:] for step in first] == [step[1:] for step in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.observation, other.observation)


# --- Specifications ---------------------------------------------------------------------------------


@every_suite
def test_the_specification_is_complete(suite: Suite) -> None:
    names = [task.name for task in suite.tasks]
    assert len(set(names)) == len(names)
    if suite.measured_phase == "finetune":
        assert suite.normaliser is not None
        assert set(suite.normaliser.references) == set(names)
        assert all(reference > 0 for reference in suite.normaliser.references.values())
    else:
        assert suite.normaliser is None
        assert all(protocol.search is not None for protocol in suite.protocols.values())
    assert {task.domain for task in suite.tasks} == {domain.name for domain in suite.domains}
    for domain in suite.domains:
        assert suite.task(domain.primal_task).domain == domain.name
    assert {"paper", "small", "smoke"} <= set(suite.protocols)


@every_suite
def test_every_budget_ends_with_an_episode_of_every_domain(suite: Suite) -> None:
    for preset, protocol in suite.protocols.items():
        assert protocol.preset == preset
        budgets = [protocol.pretrain_frames, protocol.finetune_frames, protocol.eval_every_frames]
        budgets += protocol.snapshots if protocol.pretrain_unit == "frames" else [protocol.data_transitions]
        for domain in suite.domains:
            assert [budget % domain.max_episode_frames for budget in budgets] == [0] * len(budgets)


def test_the_paper_protocol_is_the_published_one() -> None:
    paper = SUITES["urlb-states"].protocols["paper"]
    assert (paper.pretrain_frames, paper.finetune_frames) == (2_000_000, 100_000)
    assert paper.snapshots == (100_000, 500_000, 1_000_000, 2_000_000)
    assert (paper.eval_every_frames, paper.eval_episodes) == (10_000, 10)


def test_the_specification_needs_no_simulator() -> None:
    code = (
        "import sys, urlbench.suites.dmc.urlb_states\n"
        "print(sorted({'dm_control', 'mujoco', 'torch', 'pandas'} & set(sys.modules)))"
    )
    assert run_program([sys.executable, "-c", code], check=True).stdout.strip() == "[]"


def test_environments_need_no_graphics_and_warn_of_nothing() -> None:
    code = (
        "import sys\nfrom urlbench.suites.dmc.environment import make_environment\n"
        "for task in ('walker_stand', 'quadruped_walk', 'jaco_reach_top_left'): make_environment(task, 1, 1).reset()\n"
        "print(sorted({'OpenGL', 'glfw'} & set(sys.modules)))"
    )
    without = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")}
    done = run_program([sys.executable, "-W", "error", "-c", code], env=without, check=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# --- Every task -------------------------------------------------------------------------------------


@every_task_unseen
def test_an_episode_keeps_to_the_specification(suite: Suite, task: str) -> None:
    environment = make(suite, task, image=None)
    frames = suite.domain(suite.task(task).domain).max_episode_frames
    assert frames % suite.action_repeat == 0
    count = frames // suite.action_repeat
    steps = play(environment, actions(environment, count))

    assert environment.action_repeat == suite.action_repeat
    assert [step.is_first for step in steps] == [True] + [False] * count
    assert [step.is_last for step in steps] == [False] * count + [True]
    # Only the time limit ends these episodes, so nothing is ever terminal.
    assert {step.discount for step in steps} == {1.0}
    assert steps[0].reward == 0.0
    for step in steps:
        assert step.observation.shape == environment.observation_shape
        assert step.observation.dtype == environment.observation_dtype
        assert type(step.reward) is type(step.discount) is float
        assert type(step.is_first) is type(step.is_last) is bool
    observations = np.stack([step.observation for step in steps])
    assert np.isfinite(observations).all()
    rewards = np.array([step.reward for step in steps[1:]])
    assert rewards.min() >= 0
    assert rewards.max() <= suite.action_repeat
    # Goals of a set are hidden from the states, and seldom found at random.
    if suite.goal_sets is None:
        assert (observations.std(axis=0) > 0).all()
        assert rewards.std() > 0

    with pytest.raises(RuntimeError, match="reset"):
        environment.step(np.zeros(environment.action_dim, np.float32))
    assert environment.reset().is_first


@every_task
def test_the_seed_decides_everything(suite: Suite, task: str) -> None:
    first, second, other = make(suite, task), make(suite, task), make(suite, task, seed=4)
    sequence = actions(first, few(suite, 20))
    for _ in range(2):
        episode = play(first, sequence)
        assert_bit_equal(episode, play(second, sequence))
        assert not np.array_equal(episode[0].observation, other.reset().observation)


@every_task
def test_a_new_seed_starts_the_stream_anew(suite: Suite, task: str) -> None:
    environment, fresh = make(suite, task), make(suite, task, seed=2**32 - 1)
    environment.reset()
    environment.reseed(2**32 - 1)
    sequence = actions(environment, few(suite, 3))
    for _ in range(2):
        assert_bit_equal(play(environment, sequence), play(fresh, sequence))
    assert environment.random_state() == fresh.random_state()


@every_task
def test_a_new_environment_continues_from_a_random_state_and_the_actions(suite: Suite, task: str) -> None:
    original = make(suite, task)
    sequence = actions(original, few(suite, 30))
    play(original, sequence[:7])
    play(original, sequence[:3])
    saved = json.dumps(original.random_state())
    episode, following = play(original, sequence), play(original, sequence[:5])

    resumed = make(suite, task, seed=99)
    play(resumed, sequence[:2])
    resumed.set_random_state(json.loads(saved))
    assert_bit_equal(episode, play(resumed, sequence))
    assert_bit_equal(following, play(resumed, sequence[:5]))
    assert resumed.random_state() == original.random_state() != json.loads(saved)


@every_task
def test_observations_are_not_overwritten_by_later_steps(suite: Suite, task: str) -> None:
    environment = make(suite, task)
    steps = play(environment, actions(environment, 3))
    assert len({step.observation.tobytes() for step in steps}) == 4
    for step in steps:
        assert (step.observation.shape, step.observation.dtype) == (
            environment.observation_shape,
            environment.observation_dtype,
        )


# --- The wrapper ------------------------------------------------------------------------------------


def test_stepping_before_the_first_reset_is_an_error() -> None:
    environment = make_environment("walker_stand", 1, 1)
    with pytest.raises(RuntimeError, match="reset"):
        environment.step(np.zeros(6, np.float32))


@pytest.mark.parametrize("task", ["walker_run", "quadruped_jump", "jaco_reach_top_left"])
def test_action_repeat_sums_the_rewards_of_repeated_actions(task: str) -> None:
    once, twice = make_environment(task, 1, 1), make_environment(task, 1, 2)
    sequence = actions(once, 10)
    singles = play(once, sequence.repeat(2, axis=0))
    doubles = play(twice, sequence)
    for index, double in enumerate(doubles[1:]):
        one, two = singles[2 * index + 1], singles[2 * index + 2]
        assert double.reward == one.reward + two.reward
        np.testing.assert_array_equal(double.observation, two.observation)


def test_action_repeat_stops_at_the_last_frame() -> None:
    # 250 frames are 83 steps of three and one of one.
    environment = make_environment("jaco_reach_top_left", 1, 3)
    steps = play(environment, np.zeros((84, 9), np.float32))
    assert [step.is_last for step in steps] == [False] * 84 + [True]
    assert environment.physics.time() == pytest.approx(10.0)


def test_actions_are_scaled_linearly_to_asymmetric_ranges() -> None:
    environment = make_environment("quadruped_walk", 1, 1)
    low, middle, high = (environment.control(np.full(12, value, np.float32)) for value in (-1, 0, 1))
    # yaw, lift, extend of four legs
    np.testing.assert_allclose(low, [-1, -1, -0.8] * 4, rtol=1e-6)
    np.testing.assert_allclose(middle, [0, 0.05, 0] * 4, atol=1e-7)
    np.testing.assert_allclose(high, [1, 1.1, 0.8] * 4, rtol=1e-6)
    np.testing.assert_array_equal(high, high.astype(np.float32))


def test_the_physics_clamps_actions_beyond_the_range() -> None:
    beyond, within = make_environment("walker_run", 1, 1), make_environment("walker_run", 1, 1)
    sequence = 6 * actions(beyond, 10)
    assert_bit_equal(play(beyond, sequence), play(within, np.clip(sequence, -1, 1)))


@pytest.mark.parametrize("task", ["walker_flip", "quadruped_walk"])
def test_an_unknown_task_is_named_with_the_nearest(task: str) -> None:
    with pytest.raises(UserError, match=f"unknown task '{task}y'; did you mean '{task}'"):
        make_environment(f"{task}y", 1, 1)


@every_task_unseen
def test_dmc_environments_say_which_cell_they_are_in(suite: Suite, task: str) -> None:
    environment = make(suite, task, image=None)
    if not isinstance(environment, CoveredEnvironment):
        assert suite.name.startswith("metaworld")
        return
    environment.reset()
    cells = []
    for action in actions(environment, 20):
        before = environment.random_state()
        cells.append(environment.cell())
        assert environment.cell() == cells[-1]
        assert environment.random_state() == before
        environment.step(action)
    assert {len(cell) for cell in cells} == {3}
    assert all(type(number) is int for cell in cells for number in cell)
    assert len(set(cells)) > 1


# --- Jaco's variants --------------------------------------------------------------------------------


def reset_observations(variant: Any) -> list[np.ndarray]:
    environment = make_environment("jaco_reach_top_left", 1, 1, variant=variant)
    return [environment.reset().observation for _ in range(2)]


def test_the_exorl_variants_part_at_the_second_reset() -> None:
    exorl, choreographer = reset_observations("exorl"), reset_observations("exorl_as_in_choreographer")
    assert exorl[0].shape == (42,)
    np.testing.assert_array_equal(exorl[0], choreographer[0])
    assert not np.allclose(exorl[1], choreographer[1])


def test_exorl_rewards_are_float32() -> None:
    environment = make_environment("jaco_reach_top_left", 1, 1, variant="exorl")
    rewards = np.array([step.reward for step in play(environment, actions(environment, 50))[1:]])
    assert rewards.max() > 0
    np.testing.assert_array_equal(rewards, rewards.astype(np.float32))


@pytest.mark.parametrize("variant", ["urlb", "exorl", "exorl_as_in_choreographer"])
@pytest.mark.parametrize(("corner", "place"), [("top_left", (-0.09, 0.09)), ("bottom_right", (0.09, -0.09))])
def test_the_target_is_at_its_corner(corner: str, place: tuple[float, float], variant: Any) -> None:
    environment = make_environment(f"jaco_reach_{corner}", 1, 1, variant=variant)
    for _ in range(2):
        environment.reset()
        data = environment.physics.named.data
        position = data.xpos["duplo2x4/"] if variant == "urlb" else data.site_xpos["target_site"]
        # The brick settles on the table and may slide by fractions of a millimetre.
        np.testing.assert_allclose(position[:2], place, atol=1e-3)
