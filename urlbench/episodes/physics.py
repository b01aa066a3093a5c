"""Taking recorded actions again from the states of the physics they were taken in."""

from collections.abc import Iterator

import numpy as np

from urlbench.core.interfaces import Array, PhysicsEnvironment, TimeStep


def steps_again(environment: PhysicsEnvironment, physics: Array, action: Array) -> Iterator[TimeStep]:
    """What one step gives from each state; the environment is left in the state that the step leads to.

    Args:
        environment: of the domain, of whatever task; new episodes are begun.
        physics: states [T + 1, P].
        action: [T + 1, A]; the action of row t + 1 is applied in the state of row t.

    Yields:
        T time steps.
    """
    environment.reset()
    for state, following in zip(physics[:-1], action[1:], strict=True):
        environment.set_physics_state(state)
        timestep = environment.step(following)
        yield timestep
        if timestep.is_last:
            environment.reset()


def rewards_again(environment: PhysicsEnvironment, physics: Array, action: Array) -> Array:
    """The rewards of an episode in the environment of another task, [T + 1] float32; 0 at the reset, as there.

    Arguments as for `steps_again`.
    """
    rewards = [0.0, *(timestep.reward for timestep in steps_again(environment, physics, action))]
    return np.array(rewards, np.float32)
