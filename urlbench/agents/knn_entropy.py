"""Particle estimate of entropy from distances to nearest neighbours, in bounded memory."""

import torch
from torch import Tensor

CHUNK_ELEMENTS = 32 * 1024 * 1024  # distances held at once: 128 MiB in float32


@torch.no_grad()
def knn_entropy(x: Tensor, k: int, *, clip: float = 1e-4) -> Tensor:
    """Each row's mean distance to its k nearest rows, itself counted at distance 0.

    Source: Liu & Abbeel 2021 (APT), eq. 5; averaged, clipped and without the log as in Mazzaglia et al. 2023
    (Choreographer), app. B.1 (its sec. 3.3 writes logarithms of squared distances; the published numbers
    come from this form). Distances are computed in blocks of rows, in their matrix-product form on centred
    features. The distance of a row to itself is set to 0 by index: in float32 the product form gives up
    to 1e-3 there, which the released code's clip of 1e-4 does not remove.

    Args:
        x: features, [N, D].
        k: neighbours counted, the row itself included.
        clip: subtracted from every distance, at least 0 remaining.

    Returns:
        [N] without gradient; higher means rarer.

    Raises:
        ValueError: if k is outside [1, N].
    """
    n = len(x)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} neighbours asked of {n} rows; k must be between 1 and the number of rows")
    x = x.detach() - x.detach().mean(0)  # centring keeps the cancellation in the product form small
    squared, ones = (x * x).sum(-1, keepdim=True), x.new_ones(n, 1)
    # |a - b|^2 = [-2a, |a|^2, 1] . [b, 1, |b|^2]: one product, no passes over the large matrix.
    left, right = torch.cat([-2 * x, squared, ones], -1), torch.cat([x, ones, squared], -1).T
    rows = max(1, CHUNK_ELEMENTS // n)
    means = []
    for first in range(0, n, rows):
        distance = left[first : first + rows] @ right
        distance.diagonal(first).zero_()
        nearest = distance.topk(k, largest=False, sorted=False).values.clamp_(min=0).sqrt_()
        means.append((nearest - clip).clamp_(min=0).mean(-1))
    return torch.cat(means)
