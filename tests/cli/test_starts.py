"""Suites without pretraining, and those whose fine-tunings start from a training on another task, as users see them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command, Outcome
from slurm_fakes import toy_plan
from toy_runs import PLUGIN, run
from toy_starts import register_starts

from urlbench.core.jobs import Plan
from urlbench.core.registry import load_suite
from urlbench.core.types import Phase, Protocol, Suite, Task, Transfer
from urlbench.runs.store import RunStore
from urlbench.slurm.grouping import group

OPTIONS = ["--seeds", "2", "--preset", "smoke", "--plugin", str(PLUGIN)]
ONE_EACH: dict[Phase, int] = {"pretrain": 1, "finetune": 1, "search": 1}


@pytest.fixture(scope="module", autouse=True)
def _registered(registry_of_the_file: None) -> None:
    register_starts()


def run_all(root: Path, plan: Plan) -> None:
    store = RunStore(root)
    for job in plan.jobs:
        store.run_dir(job).prepare(job)
        assert run(root, job, store.run_dir(job)) == "done"


def plan_of(suite: str, *agents: str, **choices: object) -> Plan:
    return toy_plan(suite=suite, agents=agents, domains=(), **choices)


def report_text(outcome: Outcome) -> str:
    """The Markdown files that a report has written."""
    files = [Path(line.strip()) for line in outcome.out.splitlines() if line.endswith(".md")]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def names() -> Iterator[str]:
    return (f"a{number}" for number in range(100))


# --- Without pretraining ----------------------------------------------------------------------------


def test_without_pretraining_every_agent_starts_from_nothing() -> None:
    plan = plan_of("toy-scratch", "toy", "random", seeds=(0,))
    assert len(plan.jobs) == 2 * 4
    assert {(job.spec.phase, job.spec.snapshot, job.parent_path) for job in plan.jobs} == {("finetune", 0, None)}
    assert plan_of("toy-scratch", "toy", seeds=(0,), snapshots="all").jobs == plan.jobs[:4]
    arrays = group(plan.jobs, {}, runs_per_element=ONE_EACH, most_elements=100, names=names())
    assert [(array.phase, len(array.packs), array.dependency) for array in arrays] == [("finetune", 8, None)]


def test_without_pretraining_everything_runs_and_is_reported(urlbench: Command) -> None:
    asked = ["--suite", "toy-scratch", "--agent", "toy,toy-cautious", *OPTIONS]
    planned = urlbench("plan", *asked).out
    assert "toy-scratch@1, preset smoke: 16 jobs, 0 pretrain and 16 finetune" in planned
    assert "16 jobs to run in 1 waves" in planned
    assert "pretraining" not in planned
    run_all(Path("runs"), plan_of("toy-scratch", "toy", "toy-cautious", seeds=(0, 1)))
    assert "finetune cube_far   done     done" in urlbench("status").out
    assert urlbench("validate", "--suite", "toy-scratch", "--preset", "smoke").code == 0
    assert "skipped: 16 jobs" in urlbench("plan", *asked).out
    reported = urlbench("report", "--suite", "toy-scratch", "--preset", "smoke", "--format", "md", "--reps", "100")
    assert reported.code == 0, reported.err
    assert "without pretraining, 8 runs, seeds 0-1" in report_text(reported)


def test_a_gap_without_pretraining_has_its_command(urlbench: Command) -> None:
    run_all(Path("runs"), plan_of("toy-scratch", "toy", seeds=(0,), tasks=("ball_left",)))
    outcome = urlbench("validate", "--suite", "toy-scratch", "--tasks", "ball_left", "--seeds", "2")
    assert outcome.code == 3
    assert "--agent toy --tasks ball_left --seeds 1-1 --preset smoke --plugin" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--phase", "pretrain"], "gives no jobs: toy has no pretraining; use --phase finetune"),
        (["--snapshots", "100"], "preset 'smoke' has no pretraining to start from; leave --snapshots 100 away"),
    ],
)
def test_a_pretraining_that_there_is_none_of_is_refused(urlbench: Command, arguments: list[str], message: str) -> None:
    outcome = urlbench("plan", "--suite", "toy-scratch", "--agent", "toy", *OPTIONS, *arguments)
    assert outcome.code == 2
    assert message in outcome.err


def test_a_suite_without_pretraining_says_so(urlbench: Command) -> None:
    shown = urlbench("show", "suite", "toy-scratch").out
    assert "  no pretraining: all agents start from nothing" in shown.splitlines()
    assert json.loads(urlbench("show", "suite", "toy-scratch", "--json").out)["domains"][0]["primal_task"] is None


# --- From another task ------------------------------------------------------------------------------


def test_each_task_starts_from_its_source_or_from_nothing() -> None:
    plan = plan_of("toy-transfer", "toy", "random", seeds=(0, 1), snapshots="all")
    sources = [job for job in plan.jobs if job.spec.phase == "pretrain"]
    assert {(job.spec.agent, job.spec.task) for job in sources} == {
        (agent, task) for agent in ("toy", "random") for task in ("ball_left", "cube_near")
    }
    starts = {
        (job.spec.task, job.spec.snapshot, None if job.parent_path is None else job.parent_path.split("/")[4])
        for job in plan.jobs
        if job.spec.phase == "finetune"
    }
    assert starts == {
        *((("ball_right", snapshot, "ball_left")) for snapshot in (50, 100)),
        *((("cube_far", snapshot, "cube_near")) for snapshot in (50, 100)),
        ("cube_near", 0, None),
    }
    arrays = group(plan.jobs, {}, runs_per_element=ONE_EACH, most_elements=100, names=names())
    by_name = {array.name: array for array in arrays}
    waiting = [array for array in arrays if array.dependency is not None]
    assert sum(len(array.indices) for array in waiting) == 2 * 2 * 2 * 2
    for array in waiting:
        assert array.dependency is not None
        parents = by_name[array.dependency.array].packs
        for index in array.indices:
            own = parents[index if array.dependency.element is None else array.dependency.element]
            assert {job.spec.parent for job in array.packs[index]} <= {job.id for job in own}


def test_transfers_run_and_are_reported(urlbench: Command) -> None:
    asked = ["--suite", "toy-transfer", "--agent", "toy", *OPTIONS]
    planned = urlbench("plan", *asked).out
    assert "toy-transfer@1, preset smoke: 10 jobs, 4 pretrain and 6 finetune" in planned
    assert "  toy pretrain ball_left seed 0" in planned.splitlines()
    run_all(Path("runs"), plan_of("toy-transfer", "toy", seeds=(0, 1)))
    grid = urlbench("status").out.splitlines()
    assert "pretrain ball_left           done     done" in grid
    assert "finetune ball_right from 100 done     done" in grid
    assert "finetune cube_near           done     done" in grid
    validated = urlbench("validate", "--suite", "toy-transfer", "--preset", "smoke")
    assert validated.code == 0, validated.out
    reported = urlbench("report", "--suite", "toy-transfer", "--preset", "smoke", "--format", "md", "--reps", "100")
    assert reported.code == 0, reported.err
    assert "ball_right starts from a training on ball_left, with its episodes, relabelled" in report_text(reported)


def test_a_source_that_nothing_starts_from_is_a_gap_of_its_tasks(urlbench: Command) -> None:
    run_all(Path("runs"), plan_of("toy-transfer", "toy", seeds=(0,), phase="pretrain", tasks=("ball_right",)))
    outcome = urlbench("validate", "--suite", "toy-transfer", "--preset", "smoke", "--json")
    assert outcome.code == 3
    problems = json.loads(outcome.out[outcome.out.index("[\n") :])  # behind what the runs have printed
    assert [(one["kind"], one["task"], one["seed"]) for one in problems] == [("missing", "ball_right", 0)]
    run_all(Path("runs"), plan_of("toy-transfer", "toy", seeds=(0,), tasks=("ball_right",)))
    assert urlbench("validate", "--suite", "toy-transfer", "--preset", "smoke").code == 0


def test_a_suite_says_what_its_tasks_start_from(urlbench: Command) -> None:
    lines = urlbench("show", "suite", "toy-transfer").out.splitlines()
    assert "ball_right starts from a training on ball_left, with its episodes, relabelled" in lines
    assert "cube_far starts from a training on cube_near, with an empty replay" in lines


# --- Suites that cannot be --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pretrain_updates": 5, "data_transitions": 5}, "either pretrain_frames or pretrain_updates"),
        ({"snapshots": ()}, "a pretraining keeps at least one snapshot"),
        ({"pretrain_frames": 0}, "without pretraining there is none to keep"),
        ({"snapshots": (100, 50)}, "must be positive, ascending and distinct"),
        ({"snapshots": (0, 50)}, "must be positive, ascending and distinct"),
        ({"snapshots": (200,)}, "snapshot 200 lies beyond pretrain_frames 100"),
    ],
)
def test_budgets_that_contradict_each_other_are_refused(changes: dict[str, object], message: str) -> None:
    usual = plan_of("toy-states", "toy", seeds=(0,)).jobs[0].spec.protocol.model_dump()
    with pytest.raises(ValueError, match=message):
        Protocol.model_validate(usual | changes)


def test_a_transfer_needs_a_source_of_its_own_and_a_budget_for_it() -> None:
    chain = Task(name="ball_left", domain="ball", description="", transfer=Transfer(source="ball_right"))
    usual = load_suite("toy-transfer").model_dump()
    with pytest.raises(ValueError, match="ball_right is to start from ball_left, which starts from another task"):
        Suite.model_validate(usual | {"tasks": [*usual["tasks"], chain]})
    with pytest.raises(ValueError, match="preset paper needs pretrain_frames, for the source of ball_right, cube_far"):
        Suite.model_validate(usual | {"protocols": load_suite("toy-scratch").protocols})
