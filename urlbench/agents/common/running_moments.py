"""Means and variances of everything seen so far."""

import torch
from torch import Tensor, nn


class RunningMoments(nn.Module):
    """Moments of a stream of numbers, batch after batch.

    Source: the parallel algorithm of Chan, Golub & LeVeque 1979, as released with URLB: it merges unbiased batch
    variances, and starts from mean 0 and variance 1 with the weight of 1e-4 numbers. (The released code calls the
    variance a standard deviation, and CIC uses it as one.)

    Attributes:
        mean: scalar.
        var: scalar.
        count: numbers so far.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("var", torch.ones(()))
        self.register_buffer("count", torch.tensor(1e-4))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in the numbers `x` [...], at least two."""
        delta, total = x.mean() - self.mean, self.count + x.numel()
        weighted = self.var * self.count + x.var() * x.numel() + delta**2 * self.count * x.numel() / total
        self.mean += delta * x.numel() / total
        self.var.copy_(weighted / total)
        self.count.copy_(total)


class Standardiser(nn.Module):
    """Takes mean and standard deviation out of each of O numbers.

    Attributes:
        mean: of the numbers so far, [O].
        square: mean of their squares, [O].
        batches: so far.
    """

    MIN_STD = 1e-2  # of numbers that never change

    mean: Tensor
    square: Tensor
    batches: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("square", torch.ones(numbers))
        self.register_buffer("batches", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Take in rows [N, O]; all batches weigh the same."""
        self.batches += 1
        self.mean.lerp_(x.mean(0), 1 / self.batches)
        self.square.lerp_(x.square().mean(0), 1 / self.batches)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [..., O], standardised."""
        return (x - self.mean) / (self.square - self.mean.square()).clamp(min=0).sqrt().clamp(min=self.MIN_STD)
