"""Particle estimate of entropy from distances to nearest neighbours, in bounded memory."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.running_moments import RunningMoments
from urlbench.core.precision import products_in

CHUNK_ELEMENTS = 32 * 1024 * 1024  # distances held at once, at most: 128 MiB in float32
CHUNK_ROWS = 400  # of them at once, at most, so that those of few rows stay in the cache


@torch.no_grad()
@products_in("float32")
def nearest_distances(x: Tensor, k: int) -> Tensor:
    """Each row's distances to its k nearest rows, itself counted at distance 0.

    Distances are computed in blocks of rows, in their matrix-product form on centred features. The distance of a
    row to itself is set to 0 by index: in float32 the product form gives up to 1e-3 there, which the released
    code's clip of 1e-4 does not remove.

    Args:
        x: features, [N, D].
        k: neighbours counted, the row itself included.

    Returns:
        [N, k] without gradient, in no order.

    Raises:
        ValueError: if k is outside [1, N].
    """
    n = len(x)
    if not 1 <= k <= n:
        raise ValueError(f"k={k} neighbours asked of {n} rows; k must be between 1 and the number of rows")
    x = x.detach() - x.detach().mean(0)  # centring keeps the cancellation in the product form small
    squared, ones = (x * x).sum(-1, keepdim=True), x.new_ones(n, 1)
    group = max(1, round((n / k) ** 0.5))  # as many groups as there are distances in k of them
    # |a - b|^2 = [-2a, |a|^2, 1] . [b, 1, |b|^2]: one product, no passes over the large matrix.
    left, right = torch.cat([-2 * x, squared, ones], -1), torch.cat([x, ones, squared], -1)
    # Rows at distance infinity make the last group a whole one.
    right = F.pad(right, (0, 0, 0, -n % group))
    right[n:, -1] = torch.inf
    rows = min(n, CHUNK_ROWS, max(1, CHUNK_ELEMENTS // n))
    memory, nearest = x.new_empty(rows, len(right)), []
    for block in range(0, n, rows):
        some = left[block : block + rows]
        distance = torch.mm(some, right.T, out=memory[: len(some)])
        distance.diagonal(block).zero_()
        nearest.append(smallest(distance, k, group).clamp_(min=0).sqrt_())
    return torch.cat(nearest)


def smallest(x: Tensor, k: int, group: int) -> Tensor:
    """The k smallest numbers of each row.

    They are all in the k groups whose smallest numbers are smallest, which is far less to search through.

    Args:
        x: [N, M].
        k: at most M.
        group: numbers in a group, a divisor of M.

    Returns:
        [N, k] in no order; the same numbers as those of `torch.topk`.
    """
    groups = x.unflatten(-1, (group, -1))
    promising = groups.amin(1).topk(min(k, groups.shape[-1]), largest=False, sorted=False).indices
    numbers = groups.gather(2, promising.unsqueeze(1).expand(-1, group, -1)).flatten(1)
    return numbers.topk(k, largest=False, sorted=False).values


def knn_entropy(x: Tensor, k: int, *, clip: float = 1e-4) -> Tensor:
    """Each row's mean distance to its k nearest rows, itself counted at distance 0.

    Source: Liu & Abbeel 2021 (APT), eq. 5; averaged, clipped and without the log as in Mazzaglia et al. 2023
    (Choreographer), app. B.1 (its sec. 3.3 writes logarithms of squared distances; the published numbers
    come from this form).

    Args:
        x: features, [N, D].
        k: neighbours counted, the row itself included.
        clip: subtracted from every distance, at least 0 remaining.

    Returns:
        [N] without gradient; higher means rarer.

    Raises:
        ValueError: if k is outside [1, N].
    """
    return (nearest_distances(x, k) - clip).clamp_(min=0).mean(-1)


class KnnReward(nn.Module):
    """An entropy reward: log(1 + mean distance to the k nearest rows), the distances scaled and clipped.

    Source: Liu & Abbeel 2021 (APT), eq. 5, in the forms released with URLB. Rows are their own first neighbour.

    Args:
        k: neighbours counted, the row itself included.
        clip: subtracted from every scaled distance, at least 0 remaining.
        divide_by: running statistic of all distances to the k nearest, this batch's included, that distances are
            divided by.
    """

    def __init__(self, k: int, *, clip: float, divide_by: Literal["one", "mean", "std", "variance"]) -> None:
        super().__init__()
        self.k, self.clip, self.divide_by = k, clip, divide_by
        self.moments = RunningMoments()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """[N] without gradient, for features `x` [N, D]; ValueError if k is outside [1, N]."""
        distance = nearest_distances(x, self.k)
        if self.divide_by != "one":
            self.moments.update(distance)
        scale = {
            "one": torch.ones_like(self.moments.mean),
            "mean": self.moments.mean,
            "std": self.moments.var.sqrt(),
            "variance": self.moments.var,
        }[self.divide_by]
        # Where all rows are alike, distances and their mean are 0; the quotient is then 0, not NaN as released.
        scale = scale.clamp_min(torch.finfo(scale.dtype).tiny)
        return torch.log1p((distance / scale - self.clip).clamp_(min=0).mean(-1))
