"""Environments whose observations are pictures instead of numbers, whatever simulates them."""

from abc import ABC, abstractmethod
from collections import deque
from typing import Any

import numpy as np

from urlbench.core.interfaces import Array, Environment, TimeStep
from urlbench.core.types import ImageFormat
from urlbench.suites import rendering


class ImageEnvironment(ABC):
    """An environment seen in pictures, one a step.

    Implements `DrawnEnvironment` and `StackedEnvironment` of `urlbench.core.interfaces`.

    Attributes:
        environment: does everything but the pictures; its observations are not used.
        frame_stack: pictures an observation is made of.
    """

    def __init__(self, environment: Environment, image: ImageFormat | None) -> None:
        """Look at `environment`; `image` None draws nothing, and observations are uint8 [0]."""
        self.environment = environment
        self.action_dim, self.action_repeat = environment.action_dim, environment.action_repeat
        self.observation_dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.observation_shape: tuple[int, ...] = (0,)
        self.frame_stack = 1 if image is None else image.frame_stack
        if image is not None:
            self.observation_shape = (3 * image.frame_stack, image.size, image.size)
        self._image = image
        self._frames: deque[Array] = deque(maxlen=image.frame_stack if image is not None else 0)

    @abstractmethod
    def look(self, size: int) -> Array:
        """A picture of the present state, uint8 [3, size, size]; UserError if nothing here can render."""

    def drawn_by(self) -> str | None:
        """What draws the pictures, in words; None if nothing is drawn. UserError if nothing here can render."""
        return None if self._image is None else rendering.drawn_by()

    def reset(self) -> TimeStep:
        """Start an episode; the stack is filled with copies of its first picture.

        Raises:
            UserError: if nothing here can render.
        """
        timestep = self.environment.reset()
        if self._image is not None:
            self._frames.extend([self.look(self._image.size)] * self._image.frame_stack)
        return timestep._replace(observation=self._observation())

    def step(self, action: Array) -> TimeStep:
        """Apply `action` [A] for `action_repeat` frames, or until the episode ends, then look.

        Raises:
            RuntimeError: before the first reset and after the last step of an episode.
        """
        timestep = self.environment.step(action)
        if self._image is not None:
            self._frames.append(self.look(self._image.size))
        return timestep._replace(observation=self._observation())

    def random_state(self) -> dict[str, Any]:
        """The state of the stream that the next `reset` draws from, as plain JSON values."""
        return self.environment.random_state()

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self.environment.set_random_state(state)

    def reseed(self, seed: int) -> None:
        """Start the random stream anew, from `seed` in [0, 2^32)."""
        self.environment.reseed(seed)

    def _observation(self) -> Array:
        return np.concatenate(self._frames) if self._frames else np.zeros(0, np.uint8)
