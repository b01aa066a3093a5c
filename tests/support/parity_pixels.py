"""Compares the pictures of our environments with recorded ones; run by `parity_traces` in its own process.

The recording was drawn by Mesa 22.3.6 in software, and drawn with that, through OSMesa or EGL, every picture has to be
the same in every value. Other renderers differ by a little; what they may differ by is the recorder's suggestion, which
gross errors (a turned picture, swapped colours, another camera) exceed many times. Errors of one step or of resized
pictures hide below it.
"""

from typing import Any

import numpy as np
from parity_traces import Comparison

from urlbench.core.interfaces import Array
from urlbench.core.types import ImageFormat
from urlbench.suites.dmc.pixels import make_environment

_RECORDED_WITH = "Mesa 22.3.6"
_LARGEST_MEAN = 3.0
_LARGEST_SHARE = 0.06  # of the values, that are off by more than _FAR
_FAR = 10
_LEAST_CORRELATION = 0.97


def check_pictures(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """Play the recorded actions from a fresh environment's first reset, then draw each recorded state by itself."""
    image = ImageFormat(size=meta["size"], frame_stack=meta["frame_stack"])
    environment = make_environment(meta["task"], meta["env_seed"], meta["action_repeat"], image=image)
    timestep = environment.reset()
    for row, recorded in enumerate(trace["frames"]):
        where = f"after {row} steps"
        if row:
            timestep = environment.step(trace["action"][row - 1])
        comparison.near("reward", timestep.reward, trace["reward"][row], 1e-4, where)
        for name in ("qpos", "qvel"):
            comparison.near(name, getattr(environment.physics.data, name), trace[name][row], 1e-4, where)
        check_picture(comparison, timestep.observation, recorded, where)
    for row, recorded in enumerate(trace["frames"]):
        data = environment.physics.data
        with environment.physics.reset_context():
            data.qpos[:], data.qvel[:] = trace["qpos"][row], trace["qvel"][row]
        check_picture(comparison, environment.look(meta["size"]), recorded[-3:], f"of the state in row {row}")
    return comparison.largest


def check_facts(comparison: Comparison, task: str, facts: dict[str, Any]) -> dict[str, float]:
    """Shape and type of the pictures, and the length of an episode."""
    environment = make_environment(task, 1, 2)
    observation = environment.reset().observation
    comparison.equal("observation_shape", observation.shape, tuple(facts["obs_shape"]))
    comparison.equal("observation_dtype", observation.dtype.name, facts["obs_dtype"])
    environment = make_environment(task, 1, 2, image=None)
    timestep, steps = environment.reset(), 0
    while not timestep.is_last:
        timestep, steps = environment.step(np.zeros(environment.action_dim, np.float32)), steps + 1
    comparison.equal("agent_steps", steps, facts["agent_steps"])
    comparison.equal("last_discount", timestep.discount, facts["last_discount"])
    return comparison.largest


def check_picture(comparison: Comparison, ours: Array, recorded: Array, where: str) -> None:
    """The same in every value if drawn with the recorder's renderer, else as alike as other renderers are."""
    difference = np.abs(ours.astype(int) - recorded)
    if comparison.same_versions and _same_renderer():
        comparison.near("picture", ours, recorded, 0, where)
        return
    comparison.near("mean difference of pictures", difference.mean(), 0, _LARGEST_MEAN, where)
    comparison.near("share of values far off", (difference > _FAR).mean(), 0, _LARGEST_SHARE, where)
    correlation = np.corrcoef(ours.ravel(), recorded.ravel())[0, 1]
    comparison.near("lack of correlation", 1 - correlation, 0, 1 - _LEAST_CORRELATION, where)


def _same_renderer() -> bool:
    from OpenGL import GL  # only here: something has been drawn, so which library it loads is settled

    drawn_by, version = (GL.glGetString(name).decode() for name in (GL.GL_RENDERER, GL.GL_VERSION))
    return "llvmpipe" in drawn_by and _RECORDED_WITH in version
