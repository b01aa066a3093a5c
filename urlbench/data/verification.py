"""Checking a data set: its files against the index, their numbers, and their physics, if any, against the simulator."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from urlbench.core.errors import UserError
from urlbench.core.registry import load_attribute
from urlbench.data.checks import DataCheck, Largest, problem_check
from urlbench.data.physics_replay import replay_checks
from urlbench.episodes.datasets import Dataset, EpisodeFile, episode_files
from urlbench.episodes.format import (
    array_formats,
    convention_problems,
    format_of,
    format_problems,
    read_arrays,
)

ENTRY_TOLERANCE = 1e-5
"""Of observations that are numbers of the physics, relative to values above 1: float32 of the same float64."""


def verify(
    dataset: Dataset, *, episodes: int = 5, advance: Callable[[int], None] = lambda files: None
) -> list[DataCheck]:
    """Check everything about a data set, of which nothing is changed.

    Args:
        dataset: to check.
        episodes: how many, evenly spread, the simulator replays.
        advance: called with 1 after every file.

    Raises:
        UserError: if the index cannot be read, or if there are no data sets of its domain.
    """
    index = dataset.index
    files = _Files(dataset)
    for file in index.files:
        files.check(file)
        advance(1)
    checks = files.checks()
    if "physics" not in files.format.arrays:
        return checks
    if all(check.result == "ok" for check in checks):
        return checks + replay_checks(dataset, spread(index.files, episodes))
    return [*checks, DataCheck(name="physics", result="skipped", detail="not replayed, because of the above")]


def spread(files: Sequence[EpisodeFile], count: int) -> list[EpisodeFile]:
    """`count` of the files, evenly spread from the first to the last; all if there are fewer."""
    places = np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int)
    return [files[place] for place in places]


class _Files:
    """Goes through the files one by one and gathers what is wrong."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._index = dataset, dataset.index
        self.format = format_of(self._index.domain, self._index.suite)
        listed = {file.name for file in self._index.files}
        found = [path.name for path in episode_files(dataset.buffer)]
        self._content = [f"{name} is not in the index" for name in found if name not in listed]
        self._shapes: list[str] = []
        self._values: list[str] = []
        self._entries = Largest()

    def check(self, file: EpisodeFile) -> None:
        """One file, as far as it can be looked at."""
        try:
            content = (self._dataset.buffer / file.name).read_bytes()
        except OSError as error:
            self._content.append(f"{file.name} cannot be read: {error.strerror}")
            return
        if len(content) != file.size:
            self._content.append(f"{file.name} has {len(content)} bytes, the index says {file.size}")
        elif hashlib.sha256(content).hexdigest() != file.sha256:
            self._content.append(f"{file.name} was changed: its SHA-256 is not that of the index")
        try:
            arrays = read_arrays(content, file.name)
        except UserError as error:
            self._shapes.append(str(error))
            return
        problems = format_problems(arrays, file.length, self.format)
        if not problems and array_formats(arrays) != self._index.arrays:
            problems = ["its arrays are not those of the index"]
        self._shapes += [f"{file.name} {problem}" for problem in problems]
        if problems:
            return
        conventions = convention_problems(arrays, self.format, relabelled=self._index.relabelled)
        self._values += [f"{file.name} {problem}" for problem in conventions]
        if self.format.observed_physics is None:
            return
        pick = load_attribute(self.format.observed_physics)
        observed, recorded = pick(*(arrays[key].astype(np.float64) for key in ("observation", "physics")))
        difference = np.abs(observed - recorded) / np.maximum(np.abs(recorded), 1)
        self._entries.update(difference.max(1), file.name)

    def checks(self) -> list[DataCheck]:
        """The outcomes."""
        count, length, domain = len(self._index.files), self.format.length, self._index.domain
        all_of = "keys, shapes and types" if length is None else f"keys, shapes, types and {length} transitions a file"
        discounts = "no discount but the last is 0" if length is None else "every discount is 1"
        checks = [
            problem_check("files", self._content, f"{count} files with the sizes and SHA-256 of the index"),
            problem_check(
                "format",
                self._shapes,
                f"{all_of}, all finite, as in {domain}",
            ),
            problem_check("resets", self._values, f"row 0 of every file is a reset, and {discounts}"),
        ]
        if self.format.observed_physics is not None:
            compared = "rows compared with the numbers of their physics"
            checks.append(self._entries.check("observations", ENTRY_TOLERANCE, compared))
        return checks
