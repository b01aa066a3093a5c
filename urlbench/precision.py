"""The precision of matrix products and convolutions: torch's settings for it, and whether they do anything here."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda, cudnn, mkldnn

from urlbench.errors import UserError
from urlbench.interfaces import Precision

_ON_GPUS = (cuda.matmul, cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
_ON_CPUS = (mkldnn.matmul, mkldnn.conv, mkldnn.rnn)  # type: ignore[attr-defined]
# torch's names; it has no bfloat16 products of float32 numbers on GPUs.
_NAMES = {"float32": ("ieee", "ieee"), "tf32": ("tf32", "tf32"), "bfloat16": ("ieee", "bf16")}
_PROBE_SIZE = 256  # smaller products are not worth converting


def set_products(precision: Precision) -> None:
    """Compute all products and convolutions of float32 numbers in `precision` from now on, in the whole process."""
    for backends, name in zip((_ON_GPUS, _ON_CPUS), _NAMES[precision], strict=True):
        for backend in backends:
            backend.fp32_precision = name


@contextmanager
def products_in(precision: Precision) -> Iterator[None]:
    """`set_products` for a while, then what was set before.

    Distances in their product form need float32: those of near points are what is left when large numbers cancel.
    """
    before = [backend.fp32_precision for backend in (*_ON_GPUS, *_ON_CPUS)]
    set_products(precision)
    try:
        yield
    finally:
        for backend, name in zip((*_ON_GPUS, *_ON_CPUS), before, strict=True):
            backend.fp32_precision = name


def check_effect(precision: Precision, device: str) -> None:
    """UserError if `precision` changes no product on the torch device: nobody shall take float32 for another one."""
    if precision == "float32":
        return
    numbers = torch.linspace(1, 2, _PROBE_SIZE**2, device=device).reshape(_PROBE_SIZE, _PROBE_SIZE)
    products = []
    for each in ("float32", precision):
        with products_in(each):
            products.append(numbers @ numbers)
    if torch.equal(*products):
        raise UserError(
            f"precision={precision} changes no product on the device {device} of this machine: tf32 needs "
            "a GPU from Ampere on and bfloat16 a CPU with AMX or AVX-512 BF16; use precision=float32."
        )
