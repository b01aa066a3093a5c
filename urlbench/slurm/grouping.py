"""From jobs to arrays: which runs share an element, which elements an array, and what each array waits for.

Nothing here talks to Slurm.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from urlbench.core.jobs import Job
from urlbench.core.types import Phase

Pack = tuple[Job, ...]


class Place(NamedTuple):
    """Where Slurm has a run: an array, by its name, and the number of the element."""

    array: str
    element: int


class Dependency(NamedTuple):
    """What an array waits for.

    Attributes:
        kind: `aftercorr` makes each element wait for the one with its index in `array`, `afterok` makes all of them
            wait for the element `element` of `array`.
        array: name of an array.
        element: None with `aftercorr`.
    """

    kind: Literal["aftercorr", "afterok"]
    array: str
    element: int | None


@dataclass(frozen=True)
class ArrayPlan:
    """An array to be submitted.

    Attributes:
        name: of the array; the name of its jobs in Slurm.
        phase: of all its runs, and so its resources.
        packs: the runs of each element.
    """

    name: str
    phase: Phase
    packs: tuple[Pack, ...]
    dependency: Dependency | None


def group(
    jobs: Sequence[Job],
    queued: Mapping[str, Place],
    sizes: Mapping[str, int],
    *,
    runs_per_element: int,
    most_elements: int,
    names: Iterator[str],
) -> list[ArrayPlan]:
    """The arrays for `jobs`, in an order in which each comes after the one it waits for.

    Args:
        jobs: to submit; parents that are not among them are done, or in `queued`.
        queued: places of runs that Slurm has already, by job id.
        sizes: elements of the arrays that `queued` names.
        runs_per_element: at most so many similar runs share an element.
        most_elements: of an array.
        names: a fresh one for each array.
    """
    parents = _packs(_without_parent(jobs, queued), runs_per_element)
    first = _cut(parents, _packs_behind(parents, jobs, runs_per_element), most_elements, names)
    places = dict(queued)
    for array in first:
        places.update({job.id: Place(array.name, index) for index, pack in enumerate(array.packs) for job in pack})
    sizes = {**sizes, **{array.name: len(array.packs) for array in first}}
    first_ids = {job.id for array in first for pack in array.packs for job in pack}
    children = [job for job in jobs if job.id not in first_ids]
    return [*first, *_after_parents(children, places, sizes, runs_per_element, most_elements, names)]


def _without_parent(jobs: Sequence[Job], queued: Mapping[str, Place]) -> list[Job]:
    """Jobs that need not wait for another one."""
    waiting = {job.id for job in jobs} | queued.keys()
    return [job for job in jobs if job.spec.parent not in waiting]


def _packs(jobs: Iterable[Job], most: int, places: Mapping[str, Place] | None = None) -> list[Pack]:
    """Similar runs together: of one agent, phase, task and snapshot, and behind the same element of `places`."""
    similar: dict[Hashable, list[Job]] = defaultdict(list)
    for job in jobs:
        spec = job.spec
        parent = None if places is None or spec.parent is None else places[spec.parent]
        similar[spec.phase, spec.agent, spec.domain, spec.task, spec.snapshot, parent].append(job)
    return [tuple(runs[start : start + most]) for runs in similar.values() for start in range(0, len(runs), most)]


def _packs_behind(parents: Sequence[Pack], jobs: Sequence[Job], most_runs: int) -> list[int]:
    """How many packs of `jobs` will wait for each of `parents`."""
    places = {job.id: Place("", index) for index, pack in enumerate(parents) for job in pack}
    behind = _packs([job for job in jobs if job.spec.parent in places], most_runs, places)
    counts = Counter(places[pack[0].spec.parent or ""].element for pack in behind)
    return [counts[index] for index in range(len(parents))]


def _cut(packs: Sequence[Pack], behind: Sequence[int], most: int, names: Iterator[str]) -> list[ArrayPlan]:
    """Arrays of at most `most` elements, each of one phase, that wait for nothing.

    Elements that as many packs wait for are together, so that these can wait element by element: agents that share a
    pretraining put more behind it than others do.
    """
    alike: dict[tuple[Phase, int], list[Pack]] = defaultdict(list)
    for pack, number in zip(packs, behind, strict=True):
        alike[pack[0].spec.phase, number].append(pack)
    return [
        ArrayPlan(next(names), phase, tuple(together[start : start + most]), None)
        for (phase, _), together in alike.items()
        for start in range(0, len(together), most)
    ]


def _after_parents(
    jobs: Sequence[Job],
    places: Mapping[str, Place],
    sizes: Mapping[str, int],
    most_runs: int,
    most_elements: int,
    names: Iterator[str],
) -> Iterator[ArrayPlan]:
    """Arrays that wait for their parents, element by element where all elements of the parents' array have a child."""
    behind: dict[tuple[str, Phase], dict[int, list[Pack]]] = defaultdict(lambda: defaultdict(list))
    for pack in _packs(jobs, most_runs, places):
        spec = pack[0].spec
        assert spec.parent is not None, "a run without a parent waits for nothing"
        place = places[spec.parent]
        behind[place.array, spec.phase][place.element].append(pack)
    for (array, phase), by_index in behind.items():
        size = sizes[array]
        # The parents may have been submitted under a higher limit than today's.
        whole = min(len(by_index[index]) for index in range(size)) if size <= most_elements else 0
        for layer in range(whole):
            packs = tuple(by_index[index][layer] for index in range(size))
            yield ArrayPlan(next(names), phase, packs, Dependency("aftercorr", array, None))
        for index, packs_of_one in by_index.items():
            for start in range(whole, len(packs_of_one), most_elements):
                rest = tuple(packs_of_one[start : start + most_elements])
                yield ArrayPlan(next(names), phase, rest, Dependency("afterok", array, index))
