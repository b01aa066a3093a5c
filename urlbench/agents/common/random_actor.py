"""Uniform random actions."""

from typing import Any

import numpy as np

from urlbench.core.interfaces import Actor, Array
from urlbench.core.seeding import generator_state, set_generator_state, stream


class RandomActor(Actor):
    """Draws every action from U(-1, 1)."""

    def __init__(self, action_dim: int, seed: int) -> None:
        self._action_dim, self._rng = action_dim, stream(seed, "actions")

    def begin_episode(self) -> None:
        """Nothing is remembered between steps."""

    def act(self, observation: Array, step: int) -> Array:
        """A fresh action [A]."""
        return self._rng.uniform(-1, 1, self._action_dim).astype(np.float32)

    def state_dict(self) -> dict[str, Any]:
        """The random stream."""
        return generator_state(self._rng)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        set_generator_state(self._rng, state)
