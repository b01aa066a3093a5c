"""A plane to move on, and a training loop in the order of the runner's, for learning tests of agents."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from urlbench.core.interfaces import Actor, Agent, AgentContext, Array, TimeStep
from urlbench.episodes.replay import Replay, aligned

EPISODE_STEPS = 30
# With which agents of either family learn there in seconds.
DDPG_SETTINGS: dict[str, Any] = {
    "update_every_steps": 2,
    "seed_frames": 300,
    "batch_size": 64,
    "hidden": 32,
    "lr": 1e-3,
    "discount": 0.95,
    "exploration_std": ((0, 0.4),),
}
DREAMER_SETTINGS: dict[str, Any] = {
    "schedule": {"update_every_frames": 8, "seed_frames": 300, "batch_size": 8, "batch_length": 10},
    # Positions are small beside the model's unit variance: knowing them costs more than it brings.
    "world_model": {
        "deter": 32,
        "hidden": 32,
        "variables": 4,
        "classes": 4,
        "mlp_units": (32, 32),
        "lr": 3e-3,
        "free_nats": 3.0,
    },
    "actor_critic": {
        "units": (32, 32),
        "horizon": 6,
        "discount": 0.95,
        "actor_lr": 1e-3,
        "critic_lr": 3e-3,
        "slow_every": 20,
    },
}
CONTEXT = AgentContext("states", (2,), action_dim=2, action_repeat=1, seed=0)


class Plane:
    """A point in the square [-2, 2]^2 that moves by a tenth of its action, from the middle.

    Args:
        reward: of a position [2].
    """

    def __init__(self, reward: Callable[[Array], float] = lambda position: 0.0) -> None:
        self._reward = reward
        self._position, self._step = np.zeros(2), 0

    def _timestep(self, reward: float) -> TimeStep:
        last = self._step == EPISODE_STEPS
        return TimeStep(self._position.astype(np.float32), reward, 1.0, self._step == 0, last)

    def reset(self) -> TimeStep:
        self._position, self._step = np.zeros(2), 0
        return self._timestep(0.0)

    def step(self, action: Array) -> TimeStep:
        self._position = np.clip(self._position + 0.1 * np.clip(action, -1, 1), -2, 2)
        self._step += 1
        return self._timestep(self._reward(self._position))


def train(agent: Agent, environment: Plane, *, steps: int, seed: int = 0) -> Array:
    """Learn for that many steps; as in a run, actions are random until the first update.

    Returns:
        All positions [steps, 2].
    """
    rng, schedule = np.random.default_rng(seed), agent.schedule
    positions = []
    replay = Replay(None, (2,), np.float32, 2, schedule.replay_capacity_steps, agent.recorded)
    actor = agent.actor(evaluation=False, seed=seed)
    timestep = environment.reset()
    actor.begin_episode()
    replay.add(timestep, None, actor.recorded())
    for step in range(steps):
        if timestep.is_last:
            timestep = environment.reset()
            actor.begin_episode()
            replay.add(timestep, None, actor.recorded())
        actor.before_step(step)
        random = step < schedule.seed_frames
        action = rng.uniform(-1, 1, 2).astype(np.float32) if random else actor.act(aligned(timestep.observation), step)
        if not random and schedule.update_every_frames and step % schedule.update_every_frames == 0:
            agent.update(replay.sample(rng, schedule.sampled[""]))
        timestep = environment.step(action)
        replay.add(timestep, action, actor.recorded())
        positions.append(timestep.observation)
    return np.array(positions)


def play(actor: Actor, environment: Plane, episodes: int) -> list[tuple[Array, float]]:
    """Positions [T, 2] and return of each episode."""
    played, steps = [], itertools.count()
    for _ in range(episodes):
        played.append(_episode(actor, environment, steps))
    return played


def _episode(actor: Actor, environment: Plane, steps: Iterator[int]) -> tuple[Array, float]:
    timestep, positions, total = environment.reset(), [], 0.0
    actor.begin_episode()
    while not timestep.is_last:
        step = next(steps)
        actor.before_step(step)
        timestep = environment.step(actor.act(aligned(timestep.observation), step))
        positions.append(timestep.observation)
        total += timestep.reward
    return np.array(positions), total


def covered(positions: Array, cells: int = 20) -> int:
    """How many cells of a grid of `cells` x `cells` positions [T, 2] lie in."""
    index = np.minimum((cells * (positions + 2) / 4).astype(int), cells - 1)
    return len(np.unique(index @ [cells, 1]))
