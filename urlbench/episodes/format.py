"""What an episode of a data set must look like, and reading one with all of it checked.

Source: the files of ExORL (Yarats et al. 2022). Row 0 is the reset; the action of row t led from row t - 1 to row t.
"""

import io
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from urlbench.core.errors import UserError, unknown_name
from urlbench.core.interfaces import Array
from urlbench.episodes.datasets import ArrayFormat

KEYS = ("observation", "action", "reward", "discount", "physics")


@dataclass(frozen=True)
class EpisodeFormat:
    """Sizes of a domain's episodes.

    Attributes:
        observation: O.
        action: A.
        physics: P: positions, velocities and activations, in this order.
        positions: how many of P are positions.
        length: transitions; no episode ends early.
    """

    observation: int
    action: int
    physics: int
    positions: int
    length: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array after the time axis."""
        return {
            "observation": (self.observation,),
            "action": (self.action,),
            "reward": (1,),
            "discount": (1,),
            "physics": (self.physics,),
        }


FORMATS = {
    "walker": EpisodeFormat(observation=24, action=6, physics=18, positions=9, length=1000),
    "quadruped": EpisodeFormat(observation=78, action=12, physics=57, positions=23, length=1000),
    # Without the brick that URLB's own jaco observes: ExORL's target is a fixed place.
    "jaco": EpisodeFormat(observation=42, action=9, physics=18, positions=9, length=250),
}


def format_of(domain: str) -> EpisodeFormat:
    """The format of a domain's episodes; UserError if there are no data sets of it."""
    if domain not in FORMATS:
        raise unknown_name("domain", domain, FORMATS, where="of data sets")
    return FORMATS[domain]


def read_arrays(content: bytes, name: str) -> dict[str, Array]:
    """All arrays of a file's content; UserError naming the file if it is damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
        raise UserError(f"{name} is damaged ({error})") from error


def array_formats(arrays: dict[str, Array]) -> dict[str, ArrayFormat]:
    """Shapes and types as the index holds them."""
    return {key: ArrayFormat(shape=array.shape[1:], dtype=array.dtype.name) for key, array in sorted(arrays.items())}


def format_problems(arrays: dict[str, Array], length: int, expected: EpisodeFormat) -> list[str]:
    """What keeps the arrays from being an episode of that format: keys, shapes, types, length, values.

    Args:
        arrays: of one file; more keys than needed are allowed, such as the skills that some methods store.
        length: transitions according to the file's name.
        expected: of the domain.
    """
    problems = []
    if missing := [key for key in KEYS if key not in arrays]:
        problems.append(f"has no {', '.join(missing)}")
    if length != expected.length:
        problems.append(f"has {length} transitions by its name, and episodes of this domain have {expected.length}")
    for key, shape in expected.shapes().items():
        if key not in arrays:
            continue
        # ExORL does not say which precision its physics have; everything else is float32.
        types = ("float64", "float32") if key == "physics" else ("float32",)
        array, wanted = arrays[key], (length + 1, *shape)
        if array.shape != wanted or array.dtype.name not in types:
            problems.append(f"{key} is {array.dtype.name} {list(array.shape)}, not {types[0]} {list(wanted)}")
        elif not np.isfinite(array).all():
            problems.append(f"{key} holds NaN or infinity in row {int(np.argwhere(~np.isfinite(array))[0, 0])}")
    return problems


def convention_problems(arrays: dict[str, Array], *, relabelled: bool) -> list[str]:
    """What is wrong with values whose arrays have the right format: the reset's row, and the discounts."""
    problems = []
    if arrays["action"][0].any():
        problems.append("action of row 0, the reset, is not 0")
    if not relabelled and arrays["reward"][0].any():
        problems.append("reward of row 0, the reset, is not 0")
    if (arrays["discount"] != 1).any():
        row = int(np.argwhere(arrays["discount"] != 1)[0, 0])
        problems.append(f"discount of row {row} is {float(arrays['discount'][row, 0]):g}, and no task ends early")
    return problems


def state_entries(domain: str, observation: Array, physics: Array) -> tuple[Array, Array]:
    """The entries of observations that are numbers of the physics, and what the physics says they are.

    Walker: the velocities. Quadruped: joint angles, their velocities and activations. Jaco: sine and cosine of the
    arm's joints, the hand's joints, and the velocities of both.

    Args:
        domain: of the data set.
        observation: [T, O].
        physics: [T, P].

    Returns:
        Both [T, N] float64.
    """
    observed, state = observation.astype(np.float64), physics.astype(np.float64)
    if domain == "walker":
        return observed[:, 15:24], state[:, 9:18]
    if domain == "quadruped":
        return observed[:, :44], np.concatenate([state[:, 7:23], state[:, 29:45], state[:, 45:57]], 1)
    assert domain == "jaco", domain
    angles = np.stack([np.sin(state[:, :6]), np.cos(state[:, :6])], -1).reshape(len(state), 12)
    entries = np.concatenate([observed[:, :12], observed[:, 18:30]], 1)
    return entries, np.concatenate([angles, state[:, 9:15], state[:, 6:9], state[:, 15:18]], 1)
