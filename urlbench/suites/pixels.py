"""URLB's environments seen through a camera.

Source: URLB (Laskin et al. 2021) and Choreographer (Mazzaglia et al. 2023) use the same cameras, the former at 84x84
with the last three pictures, the latter at 64x64 with one.
"""

from collections import deque
from typing import Any

import numpy as np

from urlbench.suites import dmc
from urlbench.suites.rendering import Renderer, imported_without_graphics
from urlbench.types import DEFAULT_IMAGE, Array, ImageFormat, TimeStep

with imported_without_graphics():
    import mujoco

CAMERAS: dict[str, int | str] = {"walker": 0, "quadruped": 2, "jaco": "front_close"}
"""Number or name of the camera of each domain."""


def make_environment(
    task: str, seed: int, action_repeat: int, *, image: ImageFormat | None = DEFAULT_IMAGE
) -> "PixelEnvironment":
    """The environment of a URLB task, for example `walker_flip`; Jaco's is URLB's variant.

    Args:
        task: `domain_task`.
        seed: of the stream that resets draw from, in [0, 2^32).
        action_repeat: frames an action is applied for; one picture is drawn after them.
        image: what is seen; None draws nothing.

    Raises:
        UserError: if there is no such task.
    """
    environment = dmc.make_environment(task, seed, action_repeat, observed=False)
    return PixelEnvironment(environment, CAMERAS[task.partition("_")[0]], image)


class PixelEnvironment:
    """A dm_control environment with pictures for observations; implements `urlbench.types.Environment`.

    Attributes:
        environment: does everything but the pictures.
    """

    def __init__(self, environment: dmc.DmcEnvironment, camera: int | str, image: ImageFormat | None) -> None:
        """Look at `environment` through `camera`, its number or name.

        Args:
            environment: whose observations are not used.
            camera: of the model.
            image: size and number of the pictures; None draws nothing.
        """
        self.environment = environment
        self.action_dim, self.action_repeat = environment.action_dim, environment.action_repeat
        self.observation_dtype: np.dtype[Any] = np.dtype(np.uint8)
        self.observation_shape: tuple[int, ...] = (0,)
        if image is not None:
            self.observation_shape = (3 * image.frame_stack, image.size, image.size)
        self._camera, self._image = camera, image
        self._frames: deque[Array] = deque(maxlen=image.frame_stack if image is not None else 0)
        self._renderer: Renderer | None = None

    @property
    def physics(self) -> Any:
        """The physics of the current episode; composer makes a new one at each reset, so do not keep it."""
        return self.environment.physics

    def reset(self) -> TimeStep:
        """Start an episode; the stack is filled with copies of its first picture.

        Raises:
            UserError: if nothing here can render.
        """
        timestep = self.environment.reset()
        if self._image is not None:
            self._frames.extend([self._look(self._image.size)] * self._image.frame_stack)
        return timestep._replace(observation=self._observation())

    def step(self, action: Array) -> TimeStep:
        """Apply `action` [A] for `action_repeat` frames, or until the episode ends, then look.

        Raises:
            RuntimeError: before the first reset and after the last step of an episode.
        """
        timestep = self.environment.step(action)
        if self._image is not None:
            self._frames.append(self._look(self._image.size))
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

    def _look(self, size: int) -> Array:
        """A picture of the present state, uint8 [3, size, size]."""
        physics = self.physics
        model = physics.model.ptr
        if self._renderer is None or not self._renderer.take(model):
            if self._renderer is not None:
                self._renderer.close()
            self._renderer = Renderer(model, height=size, width=size, camera=_camera_number(model, self._camera))
        return np.ascontiguousarray(self._renderer.render(physics.data.ptr).transpose(2, 0, 1))

    def _observation(self) -> Array:
        return np.concatenate(self._frames) if self._frames else np.zeros(0, np.uint8)


def _camera_number(model: mujoco.MjModel, camera: int | str) -> int:
    if isinstance(camera, int):
        return camera
    number: int = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, camera)
    return number
