"""What people are shown of suites that look for goals: the status grid, and `urlbench show`."""

from pathlib import Path

import pytest
from synthetic_searches import REACH, make_job, make_pretraining, write_search, write_searches
from toy_runs import PLUGIN

from urlbench.cli.listing import describe, format_agent, format_suite
from urlbench.cli.overview import format_overview, read_overview
from urlbench.core.types import ImageFormat
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory

pytestmark = pytest.mark.usefixtures("synthetic_suites")


def grid(root: Path) -> list[str]:
    """The first grid of the overview, without the numbers below all grids."""
    return format_overview(read_overview(root)).split("\n\n")[0].splitlines()


def test_the_grid_has_one_row_for_the_goal_sets_of_the_seeds(tmp_path):
    write_searches(tmp_path, ["apt"], 2)
    assert grid(tmp_path) == [
        "toy-reach@1  preset smoke (REDUCED BUDGET)  apt-9c9ba942",
        "                                         seed 0   seed 1",
        "search arm_reach goal set = seed from 1k done     done",
    ]


def test_the_grid_has_a_row_for_each_goal_set_that_was_chosen(tmp_path):
    write_search(tmp_path, make_pretraining(make_job("apt", 1), REACH))
    for goal_set in (10, 2):
        write_search(tmp_path, make_job("apt", 1, goal_set=goal_set))
    assert grid(tmp_path)[1:] == [
        "                                     seed 1",
        "pretrain arm                         done",
        "search arm_reach goal set 2 from 1k  done",
        "search arm_reach goal set 10 from 1k done",
    ]
    runs = read_overview(tmp_path).runs
    assert [(run.phase, run.goal_set) for run in runs] == [("pretrain", 1), ("search", 10), ("search", 2)]


@pytest.mark.parametrize(("preset", "reduced"), [("smoke", True), ("paper", False), ("paper-released-code", False)])
def test_only_reduced_budgets_are_marked(tmp_path, preset, reduced):
    write_search(tmp_path, make_job("apt", 0, preset=preset))
    assert ("REDUCED BUDGET" in grid(tmp_path)[0]) == reduced
    assert [run.reduced for run in read_overview(tmp_path).runs] == [reduced]


def test_a_suite_shows_its_goal_sets_and_how_it_searches():
    lines = format_suite(describe("suite", "toy-reach")).splitlines()
    assert "goal sets of 5, by default the one with the number of the seed; --goal-sets chooses others" in lines
    assert "goals within reach, by set: 0: 4, 1: 5, 2: 3; from: a controller that was made up" in lines
    assert (
        "  search without learning: 5 goals a task, 12 episodes each, played to the end; a goal is found by a "
        "step reward of at least 1; mean actions, skills drawn anew every 50 steps"
    ) in lines
    assert lines[-2:] == ["task       domain  description", "arm_reach  arm     reach"]


def test_a_suite_shows_where_its_pretrainings_come_from():
    assert "starts from the pretrainings of suite toy, " in format_suite(describe("suite", "toy-sparse"))
    assert "pretrains on data collected by rnd; " in format_suite(describe("suite", "urlb-offline"))
    urlb = format_suite(describe("suite", "urlb-states"))
    assert "starts from the pretrainings of" not in urlb
    assert "goal set" not in urlb


def test_an_agent_shows_what_it_sees():
    agent = describe("agent", "random")
    assert "sees pixel suites as: nothing, and nothing is rendered for it" in format_agent(agent)
    image = ImageFormat(size=84, frame_stack=3).model_dump()
    text = format_agent(agent | {"looks": True, "image": image})
    assert "sees pixel suites as: RGB images of 84 x 84, the latest 3 steps" in text


def test_a_shared_pretraining_says_who_starts_from_it(tmp_path):
    request = PlanRequest(
        suite="toy-states",
        agents=("toy", "toy-cautious"),
        tasks=("ball_left",),
        seeds=(0,),
        preset="smoke",
        plugins=(str(PLUGIN),),
    )
    plan = make_plan(request)
    for job in plan.jobs:
        RunDirectory(tmp_path / job.path).prepare(job)
    toy, cautious = (job.path.split("/")[1] for job in plan.jobs[1:])
    assert grid(tmp_path) == [
        f"toy-states@1  preset smoke (REDUCED BUDGET)  {toy}, which {cautious} starts from",
        "                            seed 0",
        "pretrain ball               queued",
        "finetune ball_left from 100 queued",
    ]
    of_cautious = read_overview(tmp_path, agents=("toy-cautious",)).runs
    assert {run.id for run in of_cautious} == {plan.jobs[2].id, plan.jobs[0].id}
