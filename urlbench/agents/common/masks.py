"""What counts of a replay batch: all of it but the padding behind the ends of short episodes."""

from torch import Tensor


def unmasked(x: Tensor, mask: Tensor | None) -> Tensor:
    """The entries of a batch that count, one after the other.

    Args:
        x: [B, T, ...].
        mask: [B, T] bool, False at padding; None if there is none, because episodes never end early.

    Returns:
        [M, ...]; without a mask M is B * T.
    """
    return x.flatten(0, 1) if mask is None else x[mask]


def unmasked_mean(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean (scalar) of the numbers in `x` [B, T] that count; see `unmasked`."""
    return x.mean() if mask is None else x[mask].mean()
