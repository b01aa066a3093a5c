"""From jobs to arrays: who shares an element, where arrays are cut, and what waits for what."""

import itertools
import random
from collections import Counter
from collections.abc import Iterable, Mapping

import pytest
from slurm_fakes import toy_plan

from urlbench.core.jobs import Job
from urlbench.slurm.grouping import ArrayPlan, Dependency, Place, group


def grouped(
    jobs: Iterable[Job],
    queued: Mapping[str, Place] | None = None,
    *,
    runs_per_element: int = 1,
    most_elements: int = 1001,
) -> list[ArrayPlan]:
    """The arrays, called a0, a1 and so on."""
    return group(
        list(jobs),
        queued or {},
        runs_per_element=dict.fromkeys(("pretrain", "finetune", "search"), runs_per_element),
        most_elements=most_elements,
        names=(f"a{number}" for number in itertools.count()),
    )


def shown(arrays: Iterable[ArrayPlan]) -> list[list[str]]:
    """For each array its elements, each with the labels of its runs."""
    return [[" + ".join(job.label.removeprefix("toy ") for job in pack) for pack in array.packs] for array in arrays]


def after(array: str, element: int | None = None) -> Dependency:
    return Dependency("aftercorr", array, None) if element is None else Dependency("afterok", array, element)


def queued_at(jobs: Iterable[Job], array: str) -> dict[str, Place]:
    """The jobs as the elements of an array that Slurm has."""
    return {job.id: Place(array, index) for index, job in enumerate(jobs)}


def without_pretraining(jobs: Iterable[Job]) -> list[Job]:
    """The fine-tunings as those of an agent that does not pretrain."""
    finetunings = [job for job in jobs if job.spec.phase != "pretrain"]
    return [
        job.model_copy(
            update={"parent_path": None, "spec": job.spec.model_copy(update={"parent": None, "snapshot": 0})}
        )
        for job in finetunings
    ]


def test_each_wave_of_fine_tunings_is_an_array_in_the_order_of_its_pretrainings() -> None:
    arrays = grouped(toy_plan(seeds=(0, 1), domains=("ball", "cube")).jobs)
    assert [(array.name, array.phase, array.dependency) for array in arrays] == [
        ("a0", "pretrain", None),
        ("a1", "finetune", after("a0")),
        ("a2", "finetune", after("a0")),
    ]
    assert shown(arrays) == [
        ["pretrain ball seed 0", "pretrain ball seed 1", "pretrain cube seed 0", "pretrain cube seed 1"],
        [f"finetune {task} from 100 seed {seed}" for task in ("ball_left", "cube_near") for seed in (0, 1)],
        [f"finetune {task} from 100 seed {seed}" for task in ("ball_right", "cube_far") for seed in (0, 1)],
    ]


def test_a_domain_with_more_tasks_than_others_gets_the_rest_behind_its_own_elements() -> None:
    arrays = grouped(toy_plan(domains=("ball", "cube"), tasks=("ball_left", "ball_right", "cube_far")).jobs)
    assert shown(arrays)[1:] == [
        [f"finetune {task} from 100 seed {seed}" for task in ("ball_left", "cube_far") for seed in (0, 1)],
        [f"finetune ball_right from 100 seed {seed}" for seed in (0, 1)],
    ]
    assert [array.dependency for array in arrays[1:]] == [after("a0"), after("a0")]


@pytest.mark.parametrize("runs_per_element", [1, 2])
def test_agents_that_share_a_pretraining_wait_for_it_element_by_element(runs_per_element: int) -> None:
    agents = ("toy", "toy-cautious", "toy-fail")
    plan = toy_plan(agents=agents, seeds=(0, 1, 2, 3), tasks=("ball_left",))
    arrays = grouped(plan.jobs, runs_per_element=runs_per_element)
    by_name, behind = {array.name: array for array in arrays}, [one for one in arrays if one.phase == "finetune"]
    finetunings = sorted(job.id for job in plan.jobs if job.spec.phase == "finetune")
    assert sorted(job.id for array in behind for pack in array.packs for job in pack) == finetunings
    for array in behind:
        assert array.dependency is not None
        assert array.dependency.kind == "aftercorr"
        parents = by_name[array.dependency.array]
        for index in array.indices:
            assert {job.spec.parent for job in array.packs[index]} <= {job.id for job in parents.packs[index]}


def test_every_snapshot_is_a_wave() -> None:
    arrays = grouped(toy_plan(snapshots="all", tasks=("ball_left",)).jobs)
    assert shown(arrays)[1:] == [
        ["finetune ball_left from 50 seed 0", "finetune ball_left from 50 seed 1"],
        ["finetune ball_left from 100 seed 0", "finetune ball_left from 100 seed 1"],
    ]
    assert {array.dependency for array in arrays[1:]} == {after("a0")}


def test_goal_sets_stand_behind_the_pretraining_of_their_seed() -> None:
    plan = toy_plan(suite="toy-goals", domains=(), goal_sets=(3, 7))
    arrays = grouped(plan.jobs)
    assert [(array.phase, array.dependency) for array in arrays] == [
        ("pretrain", None),
        ("search", after("a0")),
        ("search", after("a0")),
    ]
    assert shown(arrays)[1] == [f"search line_find goal set 3 from 100 seed {seed}" for seed in (0, 1)]
    packed = grouped(plan.jobs, runs_per_element=2)
    runs = [f"search line_find goal set {number} from 100 seed {seed}" for seed in (0, 1) for number in (3, 7)]
    assert shown(packed)[1:] == [[" + ".join(runs[:2]), " + ".join(runs[2:])]]
    assert [array.dependency for array in packed[1:]] == [after("a0", 0)]


@pytest.mark.parametrize(("number", "sizes"), [(4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])])
def test_arrays_are_cut_at_the_cluster_s_limit(number: int, sizes: list[int]) -> None:
    plan = toy_plan(seeds=tuple(range(number)), tasks=("ball_left",))
    arrays = grouped(plan.jobs, most_elements=4)
    assert [len(array.packs) for array in arrays if array.phase == "pretrain"] == sizes
    assert [len(array.packs) for array in arrays if array.phase == "finetune"] == sizes
    assert [array.dependency for array in arrays[len(sizes) :]] == [
        after(array.name, 0 if len(array.packs) == 1 else None) for array in arrays[: len(sizes)]
    ]


def test_what_stands_behind_one_element_is_cut_at_the_limit_too() -> None:
    plan = toy_plan(snapshots="all", domains=("ball", "cube"), seeds=(0,))
    pretrainings = [job for job in plan.jobs if job.spec.phase == "pretrain"]
    children = [job for job in plan.jobs if job.spec.domain == "ball" and job.spec.phase != "pretrain"]
    arrays = grouped(children, queued_at(pretrainings, "old"), most_elements=3)
    assert [(len(array.packs), array.dependency) for array in arrays] == [(3, after("old", 0)), (1, after("old", 0))]


def test_an_older_array_beyond_the_limit_is_followed_in_parts() -> None:
    plan = toy_plan(seeds=(0, 1, 2), tasks=("ball_left",))
    arrays = grouped(plan.jobs[3:], queued_at(plan.jobs[:3], "old"), most_elements=2)
    assert [(array.indices, array.dependency) for array in arrays] == [((0, 1), after("old")), ((2,), after("old"))]


def test_few_parents_with_many_children_have_an_array_each() -> None:
    plan = toy_plan(snapshots="all", domains=("ball", "cube"), seeds=(0,))
    arrays = grouped(plan.jobs)
    assert [(len(array.packs), array.dependency) for array in arrays] == [
        *((2, None), (4, after("a0", 0)), (4, after("a0", 1)))
    ]


def test_when_some_of_300_parents_are_done_1200_children_are_six_arrays() -> None:
    plan = toy_plan(seeds=tuple(range(300)), snapshots="all")
    parents = [job for job in plan.jobs if job.spec.phase == "pretrain"]
    children = [job for job in plan.jobs if job.spec.phase != "pretrain"]
    done = (0, 7, 299)
    queued = {id_: place for id_, place in queued_at(parents, "old").items() if place.element not in done}
    first, *others = grouped(children, queued)
    assert (first.dependency, len(first.packs)) == (None, 12)
    assert {job.spec.seed for pack in first.packs for job in pack} == set(done)
    left = tuple(index for index in range(300) if index not in done)
    assert [(array.dependency, array.indices) for array in others] == [(after("old"), left)] * 4
    for array in others:
        assert {(index, job.spec.seed) for index, pack in enumerate(array.packs) for job in pack} == {
            (index, index) for index in left
        }


def test_elements_are_full_of_similar_runs_first_and_children_stand_behind_their_parents_element() -> None:
    arrays = grouped(toy_plan(seeds=(0, 1, 2), domains=("ball", "cube")).jobs, runs_per_element=2)
    assert shown(arrays) == [
        [
            "pretrain ball seed 0 + pretrain ball seed 1",
            "pretrain ball seed 2 + pretrain cube seed 0",
            "pretrain cube seed 1 + pretrain cube seed 2",
        ],
        [
            "finetune ball_left from 100 seed 0 + finetune ball_left from 100 seed 1",
            "finetune cube_near from 100 seed 0 + finetune cube_far from 100 seed 0",
            "finetune cube_near from 100 seed 1 + finetune cube_near from 100 seed 2",
        ],
        [
            "finetune ball_right from 100 seed 0 + finetune ball_right from 100 seed 1",
            "finetune ball_left from 100 seed 2 + finetune ball_right from 100 seed 2",
            "finetune cube_far from 100 seed 1 + finetune cube_far from 100 seed 2",
        ],
    ]
    assert {array.dependency for array in arrays[1:]} == {after("a0")}


def test_agents_share_elements_and_phases_do_not() -> None:
    plan = toy_plan(agents=("toy", "toy-fail"), seeds=(0,))
    arrays = grouped(plan.jobs, runs_per_element=8)
    assert [(array.phase, [len(pack) for pack in array.packs]) for array in arrays] == [
        ("pretrain", [2]),
        ("finetune", [4]),
    ]


def test_children_of_a_whole_array_in_the_queue_follow_it_element_by_element() -> None:
    plan = toy_plan(tasks=("ball_left",))
    # In the queue they stand the other way round.
    queued = queued_at(reversed(plan.jobs[:2]), "old")
    (array,) = grouped(plan.jobs[2:], queued)
    assert array.dependency == after("old")
    assert [pack[0].spec.seed for pack in array.packs] == [1, 0]


def test_children_of_a_part_of_an_array_wait_for_their_own_element() -> None:
    plan = toy_plan(seeds=(0, 1, 2), tasks=("ball_left",))
    queued = queued_at(plan.jobs[:3], "old")
    (array,) = grouped([plan.jobs[3], plan.jobs[5]], queued)
    assert (array.dependency, array.indices) == (after("old"), (0, 2))
    assert shown([array]) == [["finetune ball_left from 100 seed 0", "", "finetune ball_left from 100 seed 2"]]
    (array,) = grouped([plan.jobs[5]], queued)
    assert (array.dependency, array.indices) == (after("old", 2), (0,))


def test_children_of_runs_that_are_done_wait_for_nothing() -> None:
    plan = toy_plan(tasks=("ball_left",))
    done_and_new = [plan.jobs[1], *plan.jobs[2:]]
    arrays = grouped(done_and_new)
    assert [(array.phase, array.dependency) for array in arrays] == [
        ("pretrain", None),
        ("finetune", None),
        ("finetune", after("a0", 0)),
    ]
    assert [array.packs[0][0].spec.seed for array in arrays] == [1, 0, 1]


def test_agents_without_pretraining_wait_for_nothing() -> None:
    jobs = without_pretraining(toy_plan(domains=("ball", "cube")).jobs)
    (array,) = grouped(jobs)
    assert (array.phase, array.dependency) == ("finetune", None)
    assert len(array.packs) == 8


def test_nothing_to_submit_is_no_array() -> None:
    assert grouped([]) == []


def random_case(rng: random.Random) -> tuple[list[Job], dict[str, Place]]:
    """Jobs to submit, of several phases, and pretrainings that are in the queue already; the rest of them is done."""
    seeds = tuple(range(rng.randint(1, 4)))
    tasks = rng.sample(("ball_left", "ball_right", "cube_near", "cube_far"), rng.randint(1, 4))
    domains = tuple({task.partition("_")[0] for task in tasks})
    common = {"seeds": seeds, "domains": domains, "tasks": tuple(tasks), "snapshots": rng.choice(("last", "all"))}
    jobs = list(toy_plan(**common).jobs) + [
        job for job in toy_plan(suite="toy-search", **common).jobs if job.spec.phase != "pretrain"
    ]
    pretrainings = [job for job in jobs if job.spec.phase == "pretrain"]
    rng.shuffle(pretrainings)
    new, queued, _ = (pretrainings[index::3] for index in range(3))
    width = rng.randint(1, 2)
    places = {job.id: Place(f"old{index // width // 2}", index // width % 2) for index, job in enumerate(queued)}
    measurements = [job for job in jobs if job.spec.phase != "pretrain" and rng.random() < 0.8]
    rng.shuffle(measurements)
    return [*new, *measurements], places


@pytest.mark.parametrize("seed", range(60))
def test_any_plan_keeps_its_order_and_loses_nothing(seed: int) -> None:
    rng = random.Random(seed)
    jobs, queued = random_case(rng)
    runs_per_element, most_elements = rng.randint(1, 3), rng.randint(1, 5)
    arrays = grouped(jobs, queued, runs_per_element=runs_per_element, most_elements=most_elements)
    packs = [array.packs[index] for array in arrays for index in array.indices]
    assert Counter(job.id for pack in packs for job in pack) == Counter(job.id for job in jobs)
    assert {len(pack) for pack in packs} <= set(range(1, runs_per_element + 1))
    places, known = dict(queued), {place.array for place in queued.values()}
    for array in arrays:
        assert 1 <= len(array.indices) <= most_elements
        assert array.packs[-1], "an array ends with an element"
        assert {job.spec.phase for pack in array.packs for job in pack} == {array.phase}
        if array.dependency is not None:
            assert array.dependency.array in known, "it comes after the array that it names"
        for index in array.indices:
            pack = array.packs[index]
            waits_for = {place for job in pack if (place := places.get(job.spec.parent or "")) is not None}
            dependency = array.dependency
            element = index if dependency and dependency.kind == "aftercorr" else dependency and dependency.element
            assert waits_for == ({(dependency.array, element)} if dependency else set())
            places.update({job.id: Place(array.name, index) for job in pack})
        known.add(array.name)
