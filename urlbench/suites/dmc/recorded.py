"""What ExORL's episodes of walker, quadruped and jaco look like, and which observations are numbers of their physics.

Source: the files of ExORL (Yarats et al. 2022), which hold the states of URLB. Imports no simulator.
"""

import numpy as np

from urlbench.core.interfaces import Array
from urlbench.core.types import ArrayFormat, EpisodeFormat


def _format(domain: str, *, observation: int, action: int, physics: int, positions: int, length: int) -> EpisodeFormat:
    sizes = {"observation": observation, "action": action, "reward": 1, "discount": 1}
    arrays = {key: ArrayFormat(shape=(size,), dtype="float32") for key, size in sizes.items()}
    # ExORL does not say which precision its physics have; float32 is taken, too.
    arrays["physics"] = ArrayFormat(shape=(physics,), dtype="float64")
    observed = f"{__name__}:{domain}_physics"
    return EpisodeFormat(arrays=arrays, length=length, positions=positions, observed_physics=observed)


EPISODES = {
    "walker": _format("walker", observation=24, action=6, physics=18, positions=9, length=1000),
    "quadruped": _format("quadruped", observation=78, action=12, physics=57, positions=23, length=1000),
    # Without the brick that URLB's own jaco observes: ExORL's target is a fixed place.
    "jaco": _format("jaco", observation=42, action=9, physics=18, positions=9, length=250),
}


def walker_physics(observation: Array, physics: Array) -> tuple[Array, Array]:
    """The velocities, as observations [T, O] and states [T, P] have them; both [T, N]."""
    return observation[:, 15:24], physics[:, 9:18]


def quadruped_physics(observation: Array, physics: Array) -> tuple[Array, Array]:
    """Joint angles, their velocities and activations; see `walker_physics`."""
    return observation[:, :44], np.concatenate([physics[:, 7:23], physics[:, 29:45], physics[:, 45:57]], 1)


def jaco_physics(observation: Array, physics: Array) -> tuple[Array, Array]:
    """Sine and cosine of the arm's joints, the hand's joints, and the velocities of both; see `walker_physics`."""
    angles = np.stack([np.sin(physics[:, :6]), np.cos(physics[:, :6])], -1).reshape(len(physics), 12)
    entries = np.concatenate([observation[:, :12], observation[:, 18:30]], 1)
    return entries, np.concatenate([angles, physics[:, 9:15], physics[:, 6:9], physics[:, 15:18]], 1)
