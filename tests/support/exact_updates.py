"""Updates in float64, and all numbers that come of them, to compare two ways of computing the same."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from agent_factory import batch_for
from torch import Tensor

from urlbench.core.interfaces import Agent


def learned(agent: Agent, **sizes: int) -> tuple[dict[str, Tensor], list[dict[str, float]]]:
    """All numbers of the agent's modules, and the metrics, after three updates on three batches of these `sizes`."""
    metrics = []
    for seed in range(3):
        given = batch_for(agent, seed=seed, **sizes)
        exact = {key: value.astype(np.float64) if value.dtype == np.float32 else value for key, value in given.items()}
        metrics.append({key: float(value) for key, value in agent.update(exact).items()})
    return flat(agent.state_dict()), metrics


def flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """The floating-point tensors of a nested state, without optimisers' own."""
    found = {}
    for key, value in state.items():
        if isinstance(value, Mapping) and not str(key).endswith("optimiser"):
            found |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, Tensor) and value.is_floating_point():
            found[f"{prefix}{key}"] = value
    return found
