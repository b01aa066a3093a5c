"""From jobs to arrays: which runs share an element, which elements an array, and what each array waits for.

Nothing here talks to Slurm.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from urlbench.core.jobs import Job
from urlbench.core.types import Phase

Pack = tuple[Job, ...]
_Item = TypeVar("_Item")


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
        packs: the runs of each element, by its index; empty where the array has no element.
    """

    name: str
    phase: Phase
    packs: tuple[Pack, ...]
    dependency: Dependency | None

    @property
    def indices(self) -> tuple[int, ...]:
        """Of the elements that there are."""
        return tuple(index for index, pack in enumerate(self.packs) if pack)


def group(
    jobs: Sequence[Job],
    queued: Mapping[str, Place],
    *,
    runs_per_element: Mapping[Phase, int],
    most_elements: int,
    names: Iterator[str],
) -> list[ArrayPlan]:
    """The arrays for `jobs`, in an order in which each comes after the one it waits for.

    Args:
        jobs: to submit; parents that are not among them are done, or in `queued`.
        queued: places of runs that Slurm has already, by job id.
        runs_per_element: at most so many runs of a phase share an element.
        most_elements: of an array.
        names: a fresh one for each array.
    """
    first = _cut(_packs(_without_parent(jobs, queued), runs_per_element), most_elements, names)
    places = dict(queued)
    for array in first:
        places.update({job.id: Place(array.name, index) for index, pack in enumerate(array.packs) for job in pack})
    first_ids = {job.id for array in first for pack in array.packs for job in pack}
    children = [job for job in jobs if job.id not in first_ids]
    return [*first, *_after_parents(children, places, runs_per_element, most_elements, names)]


def _without_parent(jobs: Sequence[Job], queued: Mapping[str, Place]) -> list[Job]:
    """Jobs that need not wait for another one."""
    waiting = {job.id for job in jobs} | queued.keys()
    return [job for job in jobs if job.spec.parent not in waiting]


def _packs(jobs: Iterable[Job], most: Mapping[Phase, int], places: Mapping[str, Place] | None = None) -> list[Pack]:
    """Full elements of one phase, behind the same element of `places`.

    Runs of one agent, task and snapshot stand side by side, as they take about as long.
    """
    together: dict[tuple[Phase, Place | None], dict[Hashable, list[Job]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        spec = job.spec
        parent = None if places is None or spec.parent is None else places[spec.parent]
        together[spec.phase, parent][spec.agent, spec.domain, spec.task, spec.snapshot].append(job)
    return [
        pack
        for (phase, _), similar in together.items()
        for pack in _batches([job for runs in similar.values() for job in runs], most[phase])
    ]


def _cut(packs: Sequence[Pack], most: int, names: Iterator[str]) -> list[ArrayPlan]:
    """Arrays of at most `most` elements, each of one phase, that wait for nothing."""
    phases: dict[Phase, list[Pack]] = defaultdict(list)
    for pack in packs:
        phases[pack[0].spec.phase].append(pack)
    return [
        ArrayPlan(next(names), phase, elements, None)
        for phase, of_phase in phases.items()
        for elements in _batches(of_phase, most)
    ]


def _batches(items: Sequence[_Item], most: int) -> list[tuple[_Item, ...]]:
    return [tuple(items[start : start + most]) for start in range(0, len(items), most)]


def _after_parents(
    jobs: Sequence[Job],
    places: Mapping[str, Place],
    most_runs: Mapping[Phase, int],
    most_elements: int,
    names: Iterator[str],
) -> Iterator[ArrayPlan]:
    """Arrays that wait for their parents, as few as it takes.

    An array has one child of each parent, under the parent's index, so that each waits for its own parent; where few
    parents have many children, it has all children of one parent.
    """
    behind: dict[tuple[str, Phase], dict[int, list[Pack]]] = defaultdict(lambda: defaultdict(list))
    for pack in _packs(jobs, most_runs, places):
        spec = pack[0].spec
        assert spec.parent is not None, "a run without a parent waits for nothing"
        place = places[spec.parent]
        behind[place.array, spec.phase][place.element].append(pack)
    for (array, phase), by_index in behind.items():
        layers = max(map(len, by_index.values()))
        if len(by_index) < max(layers, 2):
            for index, packs in by_index.items():
                for elements in _batches(packs, most_elements):
                    yield ArrayPlan(next(names), phase, elements, Dependency("afterok", array, index))
            continue
        for layer in range(layers):
            children = {index: packs[layer] for index, packs in by_index.items() if layer < len(packs)}
            # The parents may have been submitted under a higher limit than today's.
            for indices in _batches(sorted(children), most_elements):
                chosen = {index: children[index] for index in indices}
                elements = tuple(chosen.get(index, ()) for index in range(indices[-1] + 1))
                yield ArrayPlan(next(names), phase, elements, Dependency("aftercorr", array, None))
