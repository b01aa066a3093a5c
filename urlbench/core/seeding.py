"""Random streams: each has a name, and none shares draws with another.

A run's streams are derived from its seed and their names, so adding a stream, an agent or an
evaluation changes no other stream. Nothing in urlbench draws from a library's global state.
"""

import hashlib
import json
from typing import Any

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream `names` of a run with `seed`.

    Args:
        seed: of the run.
        names: what the stream is for, for example ("evaluation", 10000).
    """
    text = json.dumps([seed, *names])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for the stream `names` of a run with `seed`."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, *names)))


def generator_state(generator: np.random.Generator) -> dict[str, Any]:
    """The generator's state as plain values."""
    return dict(generator.bit_generator.state)


def set_generator_state(generator: np.random.Generator, state: dict[str, Any]) -> None:
    """Restore what `generator_state` returned."""
    generator.bit_generator.state = state
