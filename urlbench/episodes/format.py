"""What an episode of a data set must look like, and reading one with all of it checked.

Suites say which arrays there are and how long. Row 0 is the reset; the action of row t led from row t - 1 to row t.
"""

import io
import zipfile
import zlib

import numpy as np

from urlbench.core import exorl
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.interfaces import Array
from urlbench.core.registry import load_suite
from urlbench.core.types import ArrayFormat, EpisodeFormat


def format_of(domain: str, suite: str = exorl.suite_name(exorl.MAIN_METHOD)) -> EpisodeFormat:
    """The format of the recorded episodes of a suite's domain; UserError if there is no data set of it."""
    formats = {one.name: one.data for one in load_suite(suite).domains if one.data is not None}
    if domain not in formats:
        raise unknown_name("domain", domain, formats, where=f"of data sets of suite {suite!r}")
    return formats[domain]


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
    if missing := [key for key in expected.arrays if key not in arrays]:
        problems.append(f"has no {', '.join(missing)}")
    if expected.length not in (None, length):
        problems.append(f"has {length} transitions by its name, and episodes of this domain have {expected.length}")
    for key, values in expected.arrays.items():
        if key not in arrays:
            continue
        types = (values.dtype, "float32") if values.dtype == "float64" else (values.dtype,)
        array, wanted = arrays[key], (length + 1, *values.shape)
        if array.shape != wanted or array.dtype.name not in types:
            problems.append(f"{key} is {array.dtype.name} {list(array.shape)}, not {types[0]} {list(wanted)}")
        elif not np.isfinite(array).all():
            problems.append(f"{key} holds NaN or infinity in row {int(np.argwhere(~np.isfinite(array))[0, 0])}")
    return problems


def convention_problems(arrays: dict[str, Array], expected: EpisodeFormat, *, relabelled: bool) -> list[str]:
    """What is wrong with values whose arrays have the right format: the reset's row, and the discounts."""
    problems = []
    if arrays["action"][0].any():
        problems.append("action of row 0, the reset, is not 0")
    if not relabelled and arrays["reward"][0].any():
        problems.append("reward of row 0, the reset, is not 0")
    discount = arrays["discount"][:, 0]
    if expected.length is None and discount[-1] == 0:
        discount = discount[:-1]  # a termination
    if (discount != 1).any():
        row = int(np.argmax(discount != 1))
        ends = "only the last may be 0" if expected.length is None else "no task ends early"
        problems.append(f"discount of row {row} is {float(discount[row]):g}, and {ends}")
    return problems
