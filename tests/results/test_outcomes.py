"""Success and sub-tasks in eval.jsonl: what is read, and every fault that validation names."""

import re
from typing import Any

import numpy as np
import pytest
from synthetic_runs import TOY, evaluation, make_job, rewrite_evaluations, write_run

from urlbench.baselines.foreign import import_csv
from urlbench.core.errors import UserError
from urlbench.core.registry import register_suite
from urlbench.core.types import OUTCOMES, Normaliser, Suite
from urlbench.results.cells import collect
from urlbench.results.score_kinds import KINDS, scale_of
from urlbench.results.scores import final_scores
from urlbench.results.validation import validate
from urlbench.statistics.aggregates import aggregate

PLAIN = TOY.model_dump() | {"normaliser": None}
SUCCESS = Suite.model_validate(PLAIN | {"name": "toy-judged", "score": "success_rate"})
SUBTASKS = Suite.model_validate(PLAIN | {"name": "toy-parts", "score": "subtasks", "subtasks": 4})


@pytest.fixture(scope="module", autouse=True)
def _registered(registry_of_the_file: None) -> None:
    for suite in (SUCCESS, SUBTASKS):
        register_suite(suite)


def rows(key: str, *values: list[Any]) -> list[dict[str, Any]]:
    return [evaluation(100 * number, 3.0) | {key: value} for number, value in enumerate(values, start=1)]


def problems_of(tmp_path, suite: Suite, made: list[dict[str, Any]]) -> list[str]:
    write_run(tmp_path, make_job("apt", "arm_left", 0, suite=suite.full_name), rows=made)
    return [f"{problem.kind}: {problem.message}" for problem in validate(tmp_path, suite.name, "smoke")]


def test_scores_are_fractions_of_episodes_and_of_sub_tasks(tmp_path):
    assert problems_of(tmp_path, SUCCESS, rows("success", [0, 0], [1, 0])) == []
    assert problems_of(tmp_path, SUBTASKS, rows("completed", [0, 1], [3, 4])) == []
    (one,) = final_scores(collect(tmp_path, "toy-judged", "smoke")).values()
    (other,) = final_scores(collect(tmp_path, "toy-parts", "smoke")).values()
    assert (one.measured.item(), one.scores.item()) == (0.5, 0.5)
    assert (other.measured.item(), other.scores.item()) == (3.5, 3.5 / 4)
    assert aggregate(other)["Optimality gap"].value == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("suite", "made", "words"),
    [
        (SUCCESS, rows("success", [0, 1], [2, 0]), "outcome: .*line 2 .* success that is neither 0 nor 1"),
        (SUCCESS, rows("success", [0, 1], [0.5, 0]), "outcome: .*line 2 .* success that is neither 0 nor 1"),
        (SUCCESS, rows("success", [0, 1], [1]), "episodes: .*line 2 .* has 1 episodes in 'success', .* asks for 2"),
        (SUCCESS, rows("success", [0, 1], [None, 1]), "truncated: .*line 2 is damaged"),
        (SUCCESS, rows("completed", [0, 1], [2, 1]), "outcome: .*frame 100.* does not say 'success' .* toy-judged@1"),
        (SUBTASKS, rows("completed", [0, 1], [5, 1]), "outcome: .*frame 200.* with 5 of 4 sub-tasks completed"),
        (SUBTASKS, rows("completed", [0, 1], [1.5, 1]), "outcome: .*line 2 .* no whole number of 0 or more"),
        (SUBTASKS, rows("completed", [0, 1], [-1, 1]), "outcome: .*line 2 .* no whole number of 0 or more"),
    ],
)
def test_wrong_outcomes_are_named_and_do_not_count(tmp_path, suite, made, words):
    found = problems_of(tmp_path, suite, made)
    assert any(re.search(words, problem) for problem in found), found
    assert collect(tmp_path, suite.name, "smoke").n_usable == 0


def test_a_success_that_is_no_number_is_named(tmp_path):
    directory = write_run(
        tmp_path, make_job("apt", "arm_left", 0, suite="toy-judged@1"), rows=rows("success", [0], [1])
    )
    rewrite_evaluations(directory, directory.eval_file.read_text().replace("[1]", "[NaN, 1]"))
    (problem, *_) = [one for one in validate(tmp_path, "toy-judged", "smoke") if one.kind == "nan"]
    assert "line 2 (frame 200) holds a success that is not finite" in problem.message


def test_every_score_has_one_kind_and_names_what_it_needs():
    assert {kind.name: kind.metric for kind in KINDS.values() if kind.name in OUTCOMES} == dict(OUTCOMES)
    assert all(name == kind.name for name, kind in KINDS.items())


def test_floors_score_0_and_references_1():
    floors = Normaliser(
        name="floors",
        version=1,
        source="made up",
        references={"walker_walk": 100.0, "walker_run": 200.0, "arm_left": 50.0},
        floors={"walker_walk": 20.0, "arm_left": -10.0},
    )
    suite = Suite.model_validate(TOY.model_dump() | {"normaliser": floors})
    scale = scale_of(suite, ["walker_walk", "arm_left", "walker_run"])
    np.testing.assert_allclose(scale.scores(np.array([[20.0, -10.0, 0.0], [100.0, 50.0, 200.0]])), [[0] * 3, [1] * 3])
    np.testing.assert_allclose(scale.errors(np.array([8.0, 6.0, 2.0])), [0.1, 0.1, 0.01])


@pytest.mark.parametrize(
    ("suite", "column", "good", "bad", "words"),
    [
        (SUCCESS, "success", "0.25", "1.5", "is no mean success rate: 0 to 1"),
        (SUBTASKS, "completed", "2.75", "4.5", "is no mean number of completed sub-tasks: 0 to 4"),
    ],
)
def test_results_of_other_code_are_checked_by_the_score(tmp_path, suite, column, good, bad, words):
    file = tmp_path / "theirs.csv"
    header = f"agent,task,seed,frames,{column}\n"
    file.write_text(header + f"apt,arm_left,0,200,{good}\n")
    frozen = import_csv(file, "theirs", suite.name, "smoke")
    (matrix,) = [frozen.matrix(agent) for agent in frozen.agents]
    assert matrix.measured.item() == float(good)
    assert matrix.scores.item() == float(good) / (suite.subtasks or 1)
    file.write_text(header + f"apt,arm_left,0,200,{bad}\n")
    with pytest.raises(UserError, match=f"row 2, column '{column}': '{bad}' {words}"):
        import_csv(file, "theirs", suite.name, "smoke")
    file.write_text("agent,task,seed,frames,return\napt,arm_left,0,200,3\n")
    with pytest.raises(UserError, match=f"no column of .* gives '{column}'"):
        import_csv(file, "theirs", suite.name, "smoke")
