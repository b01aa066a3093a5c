"""URLB's environments seen through a camera.

Source: URLB (Laskin et al. 2021) and Choreographer (Mazzaglia et al. 2023) use the same cameras, the former at 84x84
with the last three pictures, the latter at 64x64 with one.
"""

from typing import Any

import numpy as np

from urlbench.core.interfaces import Array, Cell
from urlbench.core.types import DEFAULT_IMAGE, ImageFormat
from urlbench.suites.dmc import environment as dmc
from urlbench.suites.image_environment import ImageEnvironment
from urlbench.suites.rendering import Renderer, imported_without_graphics

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


class PixelEnvironment(ImageEnvironment):
    """A dm_control environment with pictures for observations; implements `urlbench.core.interfaces.Environment`."""

    environment: dmc.DmcEnvironment

    def __init__(self, environment: dmc.DmcEnvironment, camera: int | str, image: ImageFormat | None) -> None:
        """Look at `environment` through `camera`, its number or name; `image` None draws nothing."""
        super().__init__(environment, image)
        self._camera = camera
        self._renderer: Renderer | None = None

    @property
    def physics(self) -> Any:
        """The physics of the current episode; composer makes a new one at each reset, so do not keep it."""
        return self.environment.physics

    def cell(self) -> Cell:
        """That of the environment that is looked at."""
        return self.environment.cell()

    def look(self, size: int) -> Array:
        """A picture of the present state, uint8 [3, size, size]."""
        physics = self.physics
        model = physics.model.ptr
        if self._renderer is None or not self._renderer.take(model):
            if self._renderer is not None:
                self._renderer.close()
            self._renderer = Renderer(model, height=size, width=size, camera=_camera_number(model, self._camera))
        return np.ascontiguousarray(self._renderer.render(physics.data.ptr).transpose(2, 0, 1))


def _camera_number(model: mujoco.MjModel, camera: int | str) -> int:
    if isinstance(camera, int):
        return camera
    number: int = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA.value, camera)
    return number
