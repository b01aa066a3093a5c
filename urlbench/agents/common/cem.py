"""The cross-entropy method: draw sequences, keep the best, draw around them.

Source: de Boer et al. 2005; with elites that count by their value, a slow mean and bounded deviations as in Hansen et
al. 2022 (TD-MPC), alg. 1.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from urlbench.agents.common.draws import Draws


class CEMConfig(NamedTuple):
    """Settings of a search; the defaults are the plain method's.

    Attributes:
        iterations: of drawing and keeping.
        samples: sequences drawn in each (S).
        elites: the best of them (E).
        temperature: elites count in proportion to exp(temperature * value); None for all alike.
        momentum: share of the old mean in the new one.
        min_std: lower bound of the deviations after each iteration.
        max_std: upper bound.
        limit: bound of the numbers drawn.
    """

    iterations: int
    samples: int
    elites: int
    temperature: float | None = None
    momentum: float = 0.0
    min_std: float = 0.0
    max_std: float = math.inf
    limit: float = math.inf


class Found(NamedTuple):
    """What a search has found.

    Attributes:
        mean: of the elites of the last iteration, with its momentum, [H, A].
        std: their deviations, [H, A].
        elites: the best first, [H, E, A].
        weights: how much each counts, [E]; they sum to one.
    """

    mean: Tensor
    std: Tensor
    elites: Tensor
    weights: Tensor


@torch.no_grad()
def cem(
    objective: Callable[[Tensor], Tensor],
    mean: Tensor,
    std: Tensor,
    config: CEMConfig,
    draws: Draws,
    *,
    proposals: Tensor | None = None,
) -> Found:
    """Search for the sequence of the highest value.

    Args:
        objective: values [N] of sequences [H, N, A].
        mean: of the first iteration's sequences, [H, A].
        std: their standard deviations, [H, A].
        config: settings.
        draws: of the sequences.
        proposals: sequences [H, P, A] that compete in each iteration besides those drawn.
    """
    for _ in range(config.iterations):
        noise = draws.normal(mean.new_empty(len(mean), config.samples, mean.shape[1]))
        candidates = (mean.unsqueeze(1) + std.unsqueeze(1) * noise).clamp(-config.limit, config.limit)
        if proposals is not None:
            candidates = torch.cat([candidates, proposals], 1)
        best = objective(candidates).topk(min(config.elites, candidates.shape[1]))
        elites = candidates[:, best.indices]
        weights = torch.softmax((config.temperature or 0.0) * best.values, 0)
        weight = weights.view(1, -1, 1)
        new_mean = (weight * elites).sum(1)
        spread = (weight * (elites - new_mean.unsqueeze(1)) ** 2).sum(1).sqrt()
        std = spread.clamp(config.min_std, config.max_std)
        mean = config.momentum * mean + (1 - config.momentum) * new_mean
    return Found(mean, std, elites, weights)
