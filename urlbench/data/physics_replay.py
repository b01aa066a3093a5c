"""Replaying the physics of a data set: does one step lead from each state to the next, and are the rewards theirs?

A state holds positions, velocities and activations, which is all that walker and quadruped go on from. Jaco's contact
solver also starts from its last solution, which no data set holds: one step is then off by some thousandths.
"""

from collections.abc import Sequence
from importlib import metadata
from typing import cast

import numpy as np

from urlbench.core import exorl
from urlbench.core.interfaces import Array, PhysicsEnvironment
from urlbench.core.registry import load_suite, make_environment
from urlbench.core.requirements import check_requirements
from urlbench.data.checks import DataCheck, Largest
from urlbench.episodes.datasets import Dataset, DatasetIndex, EpisodeFile
from urlbench.episodes.format import format_of, read_arrays
from urlbench.episodes.physics import steps_again

STATE_TOLERANCE = 1e-6
"""Of a state after one step of the simulator that recorded it."""
OBSERVATION_TOLERANCE = 1e-4
"""Of what is observed there."""
REWARD_TOLERANCE = 1e-5

CLOSE_STEPS = 0.9
MOTION_SHARE = 0.25
MOTION_FLOOR = 1e-3
"""Of jaco, and with another simulator than the recording one, or one that is not known: at least `CLOSE_STEPS` of the
steps must lead to positions that are off by at most `MOTION_SHARE` of the median motion of a step, or by
`MOTION_FLOOR` (m or rad) where that is more."""


def offline_environment(domain: str, task: str | None = None, seed: int = 0) -> PhysicsEnvironment:
    """The environment of a data set, reset, with the rewards of `task` (default: the domain's primal task)."""
    suite = load_suite(exorl.suite_name(exorl.MAIN_METHOD))
    check_requirements(suite)
    task = task or suite.domain(domain).primal_task
    assert task is not None, f"{suite.name} pretrains in every domain"
    environment = make_environment(suite, task, seed)
    environment.reset()
    return cast(PhysicsEnvironment, environment)


def recorded_here(index: DatasetIndex) -> bool:
    """True if the simulator that is installed recorded the data set."""
    return index.simulator is not None and all(
        metadata.version(package) == version for package, version in index.simulator.items()
    )


def replay_checks(dataset: Dataset, files: Sequence[EpisodeFile]) -> list[DataCheck]:
    """Replay all steps of some episodes.

    Args:
        dataset: whose files are sound.
        files: to replay.
    """
    index = dataset.index
    exact = recorded_here(index) and index.domain != "jaco"
    environment = offline_environment(index.domain, index.task)
    states, observations, rewards = Largest(), Largest(), Largest()
    misses, motions = [], []
    positions = format_of(index.domain).positions
    for file in files:
        arrays = read_arrays((dataset.buffer / file.name).read_bytes(), file.name)
        following, observed = one_step_each(environment, arrays["physics"], arrays["action"])
        recorded = arrays["physics"][1:].astype(np.float64)
        difference = np.abs(following - recorded)
        states.update(difference.max(1), file.name, first_row=1)
        scale = np.maximum(np.abs(arrays["observation"][1:]), 1)
        observations.update((np.abs(observed - arrays["observation"][1:]) / scale).max(1), file.name, first_row=1)
        misses.append(difference[:, :positions].max(1))
        motions.append(np.abs(np.diff(arrays["physics"][:, :positions].astype(np.float64), axis=0)).max(1))
        if index.task is not None:
            # The reset's reward is 0 unless it was computed, too.
            first = 0 if index.relabelled else 1
            computed = static_rewards(environment, arrays["physics"][first:])
            rewards.update(np.abs(computed - arrays["reward"][first:, 0]), file.name, first_row=first)
    steps = f"steps of {len(files)} episodes"
    if exact:
        checks = [
            states.check("physics", STATE_TOLERANCE, f"{steps} replayed from the state before"),
            observations.check("replayed observations", OBSERVATION_TOLERANCE, f"{steps}, as seen after the replay"),
        ]
    else:
        checks = [_close(np.concatenate(misses), np.concatenate(motions), steps)]
    if index.task is None:
        return [*checks, DataCheck(name="rewards", result="skipped", detail="it is not known of which task they are")]
    return [*checks, rewards.check("rewards", REWARD_TOLERANCE, f"rewards of {index.task} computed from the physics")]


def _close(misses: Array, motions: Array, steps: str) -> DataCheck:
    """The looser criterion, for simulators and states that are not exactly those of the recording."""
    allowed = max(MOTION_SHARE * float(np.median(motions)), MOTION_FLOOR)
    share = float(np.mean(misses <= allowed))
    detail = (
        f"{len(misses)} {steps} replayed from the state before: {share:.1%} lead to positions within {allowed:.2g}, "
        f"at least {CLOSE_STEPS:.0%} must; median difference {np.median(misses):.2g}, largest {misses.max():.2g}"
    )
    return DataCheck(name="physics", result="ok" if share >= CLOSE_STEPS else "failed", detail=detail)


def one_step_each(environment: PhysicsEnvironment, physics: Array, action: Array) -> tuple[Array, Array]:
    """Where one step leads from each state, and what is observed there.

    Args:
        environment: of the domain; new episodes are begun.
        physics: states [T + 1, P].
        action: [T + 1, A]; the action of row t + 1 is applied in the state of row t.

    Returns:
        States [T, P] and observations [T, O].
    """
    states, observations = [], []
    for timestep in steps_again(environment, physics, action):
        states.append(environment.physics_state())
        observations.append(timestep.observation)
    return np.stack(states), np.stack(observations)


def static_rewards(environment: PhysicsEnvironment, physics: Array) -> Array:
    """The reward of each state [T, P], without a step: [T] float32.

    Source: how ExORL labels recorded states with the rewards of another task.
    """
    rewards = np.empty(len(physics), np.float32)
    for row, state in enumerate(physics):
        environment.set_physics_state(state)
        rewards[row] = environment.present_reward()
    return rewards
