"""Plays with dm_control and its own renderer, for comparison: run by `environments.py`, with MUJOCO_GL set.

    python benchmarks/plain_pixels.py TASK STEPS

Plays one repetition for each line it reads, and prints its seconds. Walker and quadruped are drawn after two frames, as
in the published code; Jaco's camera is an observable, which is drawn in every frame.
"""

import sys
import time
from typing import Any

# First, so that dm_control finds its graphics library: ours imports it without.
import dm_control.mujoco  # noqa: F401
from environments import EPISODE_STEPS, PIXEL_REPEAT, SEED, actions

from urlbench.core.interfaces import Array
from urlbench.core.types import DEFAULT_IMAGE
from urlbench.suites.dmc import environment as dmc, pixels

_SIZE = DEFAULT_IMAGE.size


def main() -> None:
    """Serve until the input ends."""
    task, steps = sys.argv[1], int(sys.argv[2])
    wrapper = _jaco(task) if task.startswith("jaco") else dmc.make_environment(task, SEED, 1)
    controls = [wrapper.control(action) for action in actions(steps, wrapper.action_dim)]
    for _ in sys.stdin:
        wrapper.reseed(SEED)
        total = 0.0
        for start in range(0, steps, EPISODE_STEPS):
            wrapper.environment.reset()
            begin = time.perf_counter()
            for control in controls[start : start + EPISODE_STEPS]:
                _step(wrapper.environment, task, control)
            total += time.perf_counter() - begin
        print(total, flush=True)


def _jaco(task: str) -> dmc.DmcEnvironment:
    wrapper = dmc.make_environment(task, SEED, 1, observed=False)
    camera = wrapper.environment.task.observables[pixels.CAMERAS["jaco"]]
    camera.height, camera.width, camera.enabled = _SIZE, _SIZE, True
    return wrapper


def _step(environment: Any, task: str, control: Array) -> None:
    for _ in range(PIXEL_REPEAT):
        environment.step(control)
    if not task.startswith("jaco"):
        environment.physics.render(height=_SIZE, width=_SIZE, camera_id=pixels.CAMERAS[task.partition("_")[0]])


if __name__ == "__main__":
    main()
