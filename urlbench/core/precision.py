"""The precision of matrix products and convolutions: torch's settings for it, and whether they do anything here."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda, cudnn, mkldnn

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Precision

_ON_GPUS = (cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
_ON_CPUS = (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)  # type: ignore[attr-defined]
# torch's names; it has no bfloat16 products of float32 numbers on GPUs.
_NAMES = {"float32": ("ieee", "ieee"), "tf32": ("tf32", "tf32"), "bfloat16": ("ieee", "bf16")}
# Rows, columns and inner size of the products that show whether factors are rounded: libraries choose by size.
_PROBES = ((256, 256, 256), (1024, 1024, 1024), (2500, 400, 400))
# With its last bit beyond those of tf32 and bfloat16, which both make it 1.
_FACTOR = 1 + 2**-12


def set_products(precision: Precision) -> None:
    """Compute all products and convolutions of float32 numbers in `precision` from now on, in the whole process."""
    _give_torch(*_NAMES[precision])


def _give_torch(on_gpus: str, on_cpus: str) -> None:
    for backends, name in ((_ON_GPUS, on_gpus), (_ON_CPUS, on_cpus)):
        for backend in backends:
            backend.fp32_precision = name  # type: ignore[union-attr]


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """`set_products` for a while, then what was set before.

    Distances in their product form need float32: those of near points are what is left when large numbers cancel.
    """
    with _restored():
        set_products(precision)
        with many_rows():
            yield


@contextmanager
def many_rows() -> Iterator[None]:
    """Take the fastest library for products of many rows, as those of an update are; the precision stays what it is.

    torch takes oneDNN instead of MKL where products may be in bfloat16, and without units for bfloat16 matrices oneDNN
    computes in float32 all the same: on AMD's CPUs with AVX-512 twice as fast as MKL, but more slowly for single rows,
    as in acting (docs/performance.md).
    """
    before = mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    if before in ("ieee", "none") and _onednn_keeps_float32():  # none: torch's default, which is ieee
        mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    try:
        yield
    finally:
        mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


@functools.cache
def _onednn_keeps_float32() -> bool:
    """Whether torch's setting for bfloat16 leaves the factors of products as they are on this machine's CPU."""
    return not rounds_factors("bfloat16", "cpu")


@contextmanager
def _restored() -> Iterator[None]:
    """What is set now comes back afterwards."""
    before = [backend.fp32_precision for backend in (*_ON_GPUS, *_ON_CPUS)]
    try:
        yield
    finally:
        for backend, name in zip((*_ON_GPUS, *_ON_CPUS), before, strict=True):
            backend.fp32_precision = name


def rounds_factors(precision: Precision, device: str) -> bool:
    """Whether any product of float32 numbers in `precision` has rounded factors on the torch device."""
    with _restored():
        _give_torch(*_NAMES[precision])
        for rows, columns, inner in _PROBES:
            left = torch.full((rows, inner), _FACTOR, dtype=torch.float32, device=device)
            right = torch.full((inner, columns), _FACTOR, dtype=torch.float32, device=device)
            if ((left @ right) < inner * (1 + 2**-13)).any():
                return True
    return False


def check_effect(precision: Precision, device: str) -> None:
    """UserError if `precision` rounds no factor on the torch device: nobody shall take float32 for another one."""
    if precision != "float32" and not rounds_factors(precision, device):
        raise UserError(
            f"precision={precision} changes no product on the device {device} of this machine: tf32 needs "
            "a GPU from Ampere on and bfloat16 a CPU that multiplies matrices in it, as Intel's with AMX do; "
            "use precision=float32."
        )
