"""Every score from the run to the report: toy suites are run, validated, reported, compared, frozen and exported."""

import csv
import io
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from rich.console import Console
from toy_judged import FLOORS, PLUGINS
from toy_runs import run

from urlbench.baselines.frozen import freeze
from urlbench.baselines.library import store
from urlbench.baselines.listing import format_frozen
from urlbench.baselines.verification import verify_stored
from urlbench.cli.listing import describe, format_suite
from urlbench.core.errors import UserError
from urlbench.core.registry import load_plugin
from urlbench.exports.export import export
from urlbench.reports.comparison_command import compare_all
from urlbench.reports.comparison_report import as_json, write_comparison
from urlbench.reports.comparison_screen import show
from urlbench.reports.report import make_report
from urlbench.results.cells import Results, collect
from urlbench.results.scores import final_scores
from urlbench.results.validation import validate
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunStore, read_jsonl

SEEDS, REPS = (0, 1), 200
FORMATS = ("md", "html", "latex", "csv", "svg")


@pytest.fixture(scope="module", autouse=True)
def _registered(registry_of_the_file: None) -> None:
    for plugin in PLUGINS:
        load_plugin(plugin)


class Case(NamedTuple):
    """A suite, and how its scores are made and named.

    Attributes:
        key: of the list in eval.jsonl that is scored.
        said: what a report must say.
        unsaid: what it must not.
    """

    suite: str
    key: str
    said: tuple[str, ...]
    unsaid: tuple[str, ...]


CASES = (
    Case(
        "toy-success",
        "success",
        ("Success rate, all tasks", "Mean success rate per domain", "Final success rate per task", "success rate τ"),
        ("return", "reference", "ormalis"),
    ),
    Case(
        "toy-subtasks",
        "completed",
        (
            "Fraction of sub-tasks, all tasks",
            "Final completed sub-tasks per task",
            "Score = mean number of completed sub-tasks / 4.",
        ),
        ("return", "reference", "ormalis"),
    ),
    Case(
        "toy-floors",
        "returns",
        (
            "Normalised score, all tasks",
            "Score = (return − floor) / (reference − floor).",
            "Final return per task",
            "| floor | reference |",
        ),
        ("success", "sub-task"),
    ),
)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.suite)
def case(request) -> Case:
    return request.param


@pytest.fixture(scope="module")
def root(case, tmp_path_factory) -> Path:
    """The runs of a suite: the toy agent, pretrained, and the random one, with two seeds on three tasks."""
    root = tmp_path_factory.mktemp(case.suite) / "runs"
    request = PlanRequest(
        suite=case.suite,
        agents=("toy", "random"),
        tasks=("ball_left", "ball_right", "cube_near"),
        seeds=SEEDS,
        preset="smoke",
        snapshots="all",
        plugins=PLUGINS,
    )
    jobs, runs = make_plan(request).jobs, RunStore(root)
    for job in jobs:
        runs.run_dir(job).prepare(job)
    for job in jobs:
        assert run(root, job, runs.run_dir(job)) == "done"
    return root


@pytest.fixture
def results(root, case) -> Results:
    return collect(root, case.suite, "smoke")


def text_of(files: list[Path]) -> str:
    """All but the HTML page, whose script knows every word."""
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.suffix != ".html")


def without_names(text: str, suite: str) -> str:
    """The text without names of suites and files, which hold words that it is searched for."""
    return re.sub(r"[\w/.-]*pytest-of[\w/.-]*", "", text).replace(suite, "SUITE")


def test_the_rows_say_what_happened_in_every_episode(results, case):
    assert validate(results.root, case.suite, "smoke") == []
    for one in results.usable_runs():
        rows = read_jsonl(results.root / one.path / "eval.jsonl")
        judged = ["success", "completed"] if case.key != "returns" else []
        assert all(list(row) == ["frame", "task", "returns", *judged, "mean"] for row in rows)
        assert all(len(row[key]) == 3 for row in rows for key in ("returns", *judged))
        assert all(row["mean"] == np.mean(row["returns"]) for row in rows)


def test_scores_are_made_of_them(results, case):
    suite = results.suite
    for label, matrix in final_scores(results).items():
        for row, seed in enumerate(SEEDS):
            for column, task in enumerate(results.tasks):
                last = list(read_jsonl(results.root / results.run(label, task, seed).path / "eval.jsonl"))[-1]
                measured, floor = np.mean(last[case.key]), FLOORS.get(task, 0.0) if case.key == "returns" else 0.0
                reference = {"success": 1, "completed": 4, "returns": 20.0}[case.key]
                assert matrix.measured[row, column] == measured
                assert matrix.scores[row, column] == pytest.approx((measured - floor) / (reference - floor))
    assert suite.score == {"success": "success_rate", "completed": "subtasks", "returns": "normalised_return"}[case.key]


def test_a_report_calls_scores_by_their_name(root, case, tmp_path):
    files = make_report(root, case.suite, None, "smoke", out=tmp_path, reps=REPS, formats=FORMATS, snapshots="all")
    assert {file.suffix for file in files} == {".md", ".html", ".tex", ".csv", ".svg"}
    text = text_of(files)
    tables, words = without_names(text, case.suite), text_of([file for file in files if file.suffix == ".md"])
    for said in case.said:
        assert said in text, said
    for unsaid in case.unsaid:
        assert unsaid not in tables.lower(), unsaid
    assert words.count("during fine-tuning") >= 4
    (page,) = [file.read_text(encoding="utf-8") for file in files if file.suffix == ".html"]
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    expected = {"success": ["success rate"], "completed": ["completed sub-tasks", "fraction of sub-tasks"]}
    assert data["measures"] == expected.get(case.key, ["return", "score"])


def test_the_headline_of_a_comparison_is_the_suites_score(root, case, tmp_path):
    comparisons, suite, command = compare_all("toy", ["random"], case.suite, "smoke", root, reps=REPS)
    screen = io.StringIO()
    show(comparisons, Console(file=screen, width=80))
    headline = {"success": "success rate", "completed": "fraction of sub-tasks", "returns": "IQM"}[case.key]
    assert headline in " ".join(screen.getvalue().split("\n\n")[0].split())
    assert comparisons[0].headline_words == headline
    assert as_json(comparisons, suite, command)["score"] == suite.score
    words = text_of(write_comparison(comparisons, suite, command, tmp_path))
    for text in (screen.getvalue(), without_names(words, case.suite)):
        for unsaid in case.unsaid:
            assert unsaid not in text.lower(), unsaid
    # A second opponent makes the other table, whose numbers are whole in 80 columns.
    store(freeze(collect(root, case.suite, "smoke"), "mine"), tmp_path / "kept")
    others, folder = ["random", "baseline:mine"], tmp_path / "kept"
    both = compare_all("toy", others, case.suite, "smoke", root, folder=folder, reps=REPS)
    screen = io.StringIO()
    show(both[0], Console(file=screen, width=80))
    assert "…" not in screen.getvalue()
    assert f"{both[0][0].answer.difference.estimate.value:+.3f} [" in screen.getvalue()


def test_frozen_scores_stand_beside_the_runs_they_were_made_of(root, case, results, tmp_path, monkeypatch):
    frozen = freeze(results, "mine")
    store(frozen, tmp_path / "baselines")
    assert verify_stored("mine", tmp_path / "baselines").result == "passed"
    for agent, matrix in zip(frozen.agents, final_scores(results).values(), strict=True):
        np.testing.assert_array_equal(frozen.matrix(agent).scores, matrix.scores)
    measured = {"success": "mean success rate", "completed": "mean completed sub-tasks", "returns": "mean return"}
    assert measured[case.key] in format_frozen(frozen, frozen.agents)
    monkeypatch.chdir(tmp_path)
    files = make_report(root, case.suite, ["toy", "baseline:mine"], "smoke", out="out", reps=REPS, formats=("csv",))
    (tasks,) = [file for file in files if file.name.startswith("tasks-")]
    for row in csv.DictReader(io.StringIO(tasks.read_text(encoding="utf-8"))):
        assert row["toy mean"] == row["mine/toy mean"] != ""
        assert ("reference" in row) == (case.key == "returns")
    alone = make_report(root, case.suite, ["baseline:mine"], "smoke", out="out", reps=REPS, formats=("md", "csv"))
    for said in case.said[:2]:
        assert said in alone[0].read_text()


def test_every_value_and_every_score_is_exported(results, case, tmp_path):
    (path,) = export(results, "csv", tmp_path / "long.csv")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    judged = {"success", "completed"} if case.key != "returns" else set()
    assert {row["metric"] for row in rows} == {"return", "score"} | judged
    of_run = {row["metric"]: float(row["value"]) for row in rows if row["run_id"] == rows[0]["run_id"]}
    first = final_scores(results)["random"].scores[0, 0]
    assert of_run["score"] == pytest.approx(first)


def test_a_suite_says_what_its_score_is(case):
    shown = format_suite(describe("suite", case.suite))
    formula = {
        "success": "Score = fraction of the evaluation's episodes that succeed.",
        "completed": "Score = mean number of completed sub-tasks / 4.",
        "returns": "Score = (return − floor) / (reference − floor).",
    }[case.key]
    assert formula in shown
    assert ("floor return  reference return" in shown) == (case.key == "returns")


def test_a_suite_whose_environment_tells_nothing_is_refused_before_it_pretrains(tmp_path):
    request = PlanRequest(suite="toy-mute", agents=("toy",), seeds=(0,), preset="smoke", plugins=PLUGINS)
    job = make_plan(request).jobs[0]
    directory = RunStore(tmp_path).run_dir(job)
    directory.prepare(job)
    with pytest.raises(UserError, match="score subtasks, and its environment does not tell 'completed' of an episode"):
        run(tmp_path, job, directory)
    assert job.spec.phase == "pretrain"
