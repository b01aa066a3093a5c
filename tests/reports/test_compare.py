"""`urlbench compare`: its numbers are those of the statistics, its answer follows from them, nothing is kept quiet."""

import csv
import io
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from synthetic_runs import TASKS, make_job, write_grid, write_run
from synthetic_searches import write_searches

from urlbench.baselines.foreign import import_csv
from urlbench.baselines.frozen import Frozen, freeze, to_bytes
from urlbench.baselines.library import store
from urlbench.cli import app as cli
from urlbench.core.errors import IncompleteError, UserError
from urlbench.reports.comparison import Comparison, compare
from urlbench.reports.comparison_command import compare_all
from urlbench.reports.comparison_report import FORMATS, answer_words, as_json, write_comparison
from urlbench.reports.comparison_screen import show
from urlbench.reports.sides import sides_of
from urlbench.results.cells import collect
from urlbench.results.commands import seeds_flag
from urlbench.results.scores import final_scores
from urlbench.results.selection import make_selection
from urlbench.statistics.aggregates import aggregate
from urlbench.statistics.differences import paired_difference
from urlbench.statistics.improvement import probability_of_improvement

pytestmark = pytest.mark.usefixtures("synthetic_suites")

QUICK = 200


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs of two agents, three seeds each, that no test changes."""
    root = tmp_path_factory.mktemp("grid") / "runs"
    write_grid(root, ["new", "old"], 3)
    return root


@pytest.fixture
def folder(runs, tmp_path) -> Path:
    """A folder with the baseline `kept` of both agents."""
    store(freeze(collect(runs, "toy", "smoke"), "kept"), tmp_path / "baselines")
    return tmp_path / "baselines"


def compared(
    runs: Path, *against: str, new: str = "new", folder: Path = Path("nowhere"), **choices
) -> list[Comparison]:
    choices = {"suite": "toy", "preset": "smoke", "reps": QUICK, **choices}
    return compare_all(new, against, runs=runs, folder=folder, **choices)[0]


def edited(frozen: Frozen, folder: Path, name: str, **changes) -> None:
    """Keep a changed copy of a frozen baseline."""
    copy = frozen.model_copy(update={"name": name, **changes})
    (folder / f"{name}.json").write_bytes(to_bytes(copy))


def texts(comparison: Comparison) -> str:
    return "\n".join(f"{caution.about}: {caution.text}" for caution in comparison.cautions)


def screen(comparisons: list[Comparison], width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    show(comparisons, console)
    return console.file.getvalue()


def test_the_numbers_are_those_of_the_statistics(runs):
    (comparison,) = compared(runs, "old")
    scores = final_scores(collect(runs, "toy", "smoke"))
    new, old = scores["new"], scores["old"]
    for row in comparison.aggregates:
        assert row.new == aggregate(new, "stratified", QUICK)[row.name]
        assert row.difference == paired_difference(new, old, row.name, "stratified", QUICK)
        assert row.difference.estimate.value == pytest.approx(row.new.value - row.against.value)
    assert comparison.headline == "IQM"
    assert comparison.improvement == probability_of_improvement(new, old, "stratified", QUICK)
    assert [row.task for row in comparison.tasks] == list(TASKS)
    walk = comparison.tasks[0]
    # new on walker_walk ends at 20, 50 and 80; the reference is 100.
    assert (walk.new.mean, walk.new.n) == (50.0, 3)
    assert walk.difference.estimate.value == pytest.approx((50.0 - old.measured[:, 0].mean()) / 100)
    arm = next(row for row in comparison.domains if row.name == "arm")
    assert arm.new.value == pytest.approx(new.scores[:, 2].mean())


def test_better_worse_and_not_resolved_follow_from_the_interval(tmp_path):
    for seed in range(6):
        for task, returns in {
            "walker_walk": (80 + seed, 20 + seed),
            "walker_run": (20 + seed, 80 + seed),
            "arm_left": (40 + 10 * (seed % 2), 40 + 10 * ((seed + 1) % 2)),
        }.items():
            for agent, value in zip(("new", "old"), returns, strict=True):
                write_run(tmp_path, make_job(agent, task, seed), value)
    (comparison,) = compared(tmp_path, "old")
    data = as_json([comparison], collect(tmp_path, "toy", "smoke").suite, "")["against"][0]
    assert {task: row["verdict"] for task, row in data["tasks"].items()} == {
        "walker_walk": "better",
        "walker_run": "worse",
        "arm_left": "not resolved",
    }
    assert "of 3 tasks better on 1, worse on 1" in data["answer"]
    gap = next(row for row in comparison.aggregates if row.name == "Optimality gap")
    mean = next(row for row in comparison.aggregates if row.name == "Mean")
    assert np.sign(gap.difference.estimate.value) == -np.sign(mean.difference.estimate.value)
    assert gap.verdict == mean.verdict, "a smaller gap is a better one"


def test_frozen_baselines_compare_like_the_runs_they_were_made_of(runs, folder):
    (live,) = compared(runs, "old")
    (stored,) = compared(runs, "baseline:kept/old", folder=folder)
    assert [row.against.value for row in stored.aggregates] == [row.against.value for row in live.aggregates]
    assert [row.against for row in stored.tasks] == [row.against for row in live.tasks]
    assert stored.against.kind == "frozen"
    both = compared(runs, "baseline:kept", new="baseline:kept/new", folder=folder)
    assert [one.against.label for one in both] == ["kept/old"], "an agent is not compared with itself"


def test_comparing_runs_with_themselves_is_said(runs, folder):
    (same,) = compared(runs, "baseline:kept/new", folder=folder)
    assert "new, kept/new: 9 runs are in both" in texts(same)
    assert same.answer.difference.estimate.value == pytest.approx(0)
    assert same.answer.verdict == "not resolved"


def test_published_scores_are_marked_as_summary_only(tmp_path):
    (comparison,) = compared(
        tmp_path, "baseline:amped-2025/CeSD", new="baseline:choreographer-2023/CIC", suite="urlb-states", preset="paper"
    )
    assert comparison.headline == "Mean"
    mean = next(row for row in comparison.aggregates if row.name == "Mean")
    assert (mean.new.value, mean.against.value) == pytest.approx((0.7624, 0.6949), abs=5e-5)
    error = (0.0117**2 + 0.0148**2) ** 0.5
    half = (mean.difference.estimate.high - mean.difference.estimate.low) / 2
    assert half == pytest.approx(1.96 * error, rel=0.15), "200 repetitions are few"
    text = texts(comparison)
    assert "of different sources, choreographer-2023 and amped-2025" in text
    assert "choreographer-2023/CIC: summary only" in text
    assert "the source differs from itself: mean score 0.695 by its table, 0.654 digitised from figure" in text
    assert "sources differ: mean score over 11 shared tasks 0.765 in choreographer-2023/CIC" in text
    assert "reliability: high: authors' images read twice" in text


def test_what_a_source_lacks_gives_no_interval(tmp_path):
    choices = {"new": "baseline:choreographer-2023/CIC", "suite": "urlb-states", "preset": "paper"}
    becl, moss = compared(tmp_path, "baseline:becl-2023/BeCL", "baseline:moss-2022/MOSS", **choices)
    assert becl.answer.verdict == "no interval"
    assert "gives no spread on every task" in texts(becl)
    assert "how sure the difference" in screen([becl])
    assert len(moss.tasks) == 11
    assert "moss-2022/MOSS: no score on jaco_reach_top_right: compared over the tasks that both have" in texts(moss)
    assert moss.answer.new.value == pytest.approx(0.7652, abs=5e-5), "over the same tasks"
    assert moss.answer.verdict == "worse"


def test_another_protocol_is_the_first_caution(tmp_path):
    (comparison,) = compared(
        tmp_path,
        "baseline:choreographer-2023/Choreographer",
        new="baseline:choreographer-2023/CIC",
        suite="urlb-states",
        preset="paper",
    )
    first, second, *_ = comparison.cautions
    assert first.text.startswith("different protocols: other data_transitions, pretrain_frames")
    assert second.text == "pretrained differently, as in urlb-states@1 and as in urlb-offline@1"


def test_mixtures_are_told(runs, folder):
    frozen = freeze(collect(runs, "toy", "smoke", make_selection(["old"], None, None, None, None, None)), "x")
    (agent,) = frozen.agents
    agent = agent.model_copy(update={"runs": tuple(run.model_copy(update={"run_id": None}) for run in agent.runs)})
    paper = frozen.protocol.model_copy(update={"preset": "paper"})
    longer = frozen.protocol.model_copy(update={"pretrain_frames": 4000, "description": "other words"})
    dirty = frozen.environments[0].model_copy(update={"git": {"commit": "abc", "dirty": True}})
    for name, changes in {
        "preset": {"protocol": paper},
        "protocol": {"protocol": longer},
        "version": {"suite": "toy@2"},
        "package": {"agents": (agent.model_copy(update={"versions": {"mujoco": ("3.2.0",)}}),)},
        "snapshot": {"agents": (agent.model_copy(update={"snapshot": 500}),)},
        "dirty": {"environments": (dirty,)},
    }.items():
        edited(frozen, folder, name, **{"agents": (agent,), **changes})
    expected = {
        "preset": "new, preset/old: different presets, smoke and paper",
        "protocol": "new, protocol/old: different protocols: other pretrain_frames",
        "version": "new, version/old: measured on different suites, toy@1 and toy@2",
        "package": "new, package/old: different versions of mujoco, 3.3.0 and 3.2.0",
        "snapshot": "new, snapshot/old: different amounts of pretraining, 1k and 500 frames",
        "dirty": "dirty/old: made with uncommitted changes of the code",
    }
    found = {name: texts(compared(runs, f"baseline:{name}", folder=folder)[0]) for name in expected}
    for name, words in expected.items():
        assert words in found[name]
        assert all(words not in text for other, text in found.items() if other != name)


def test_few_seeds_reduced_budgets_and_lacking_spread_are_told(runs, tmp_path):
    (comparison,) = compared(runs, "old")
    assert "new: 3 seeds, fewer than 5: do not trust the intervals" in texts(comparison)
    assert "old: reduced budgets (preset smoke): not comparable with published scores" in texts(comparison)
    write_grid(tmp_path, ["new"], 6)
    for seed in range(6):
        for task in TASKS:
            write_run(tmp_path, make_job("flat", task, seed), 50.0)
    (flat,) = compared(tmp_path, "flat")
    assert "new: 6 seeds, fewer than 10: intervals tend to be too narrow" in texts(flat)
    assert f"flat: all runs end alike on {', '.join(TASKS)}" in texts(flat)


def test_one_seed_has_no_interval_and_one_task_is_enough(tmp_path):
    for agent, value in (("new", 60.0), ("old", 40.0)):
        write_run(tmp_path, make_job(agent, "arm_left", 0), value)
    (comparison,) = compared(tmp_path, "old")
    assert comparison.answer.difference.estimate.value == pytest.approx(20 / 50)
    assert comparison.answer.verdict == "no interval"
    assert "new: 1 seed, fewer than 5" in texts(comparison)
    assert "60 ± " not in screen([comparison])


def test_agents_may_have_different_seeds_and_tasks(tmp_path):
    write_grid(tmp_path, ["new"], 4)
    for seed in range(2):
        for task in ("walker_walk", "arm_left"):
            write_run(tmp_path, make_job("old", task, seed), 30.0 + seed)
    (comparison,) = compared(tmp_path, "old")
    assert [row.task for row in comparison.tasks] == ["walker_walk", "arm_left"]
    assert (comparison.tasks[0].new.n, comparison.tasks[0].against.n) == (4, 2)
    assert "old: no score on walker_run" in texts(comparison)
    assert not comparison.answer.difference.paired


def test_searches_are_compared_by_the_goals_found(tmp_path):
    write_searches(tmp_path, ["old", "new"], 3)
    (comparison,) = compared(tmp_path, "old", suite="toy-reach")
    results = collect(tmp_path, "toy-reach", "smoke")
    found = [results.run("new", "arm_reach", seed, seed).goals_found / 5 for seed in range(3)]
    assert comparison.tasks[0].new.mean == pytest.approx(np.mean(found))
    assert f"{np.mean(found):.2f} ± " in screen([comparison])
    assert [row.name for row in comparison.aggregates] == ["Mean"]
    assert "fraction of goals found" in answer_words(comparison)
    for word in ("IQM", "return", "Optimality"):
        assert word not in screen([comparison])


def test_results_of_other_code_are_marked(runs, tmp_path):
    rows = [["theirs", task, seed, 200, 40 + seed] for task in TASKS for seed in range(3)]
    with (tmp_path / "x.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["agent", "task", "seed", "frames", "return"], *rows])
    store(import_csv(tmp_path / "x.csv", "theirs", "toy", "smoke"), tmp_path)
    (comparison,) = compared(runs, "baseline:theirs", folder=tmp_path)
    assert "theirs/theirs: made by other code (x.csv): no run can be checked" in texts(comparison)
    assert comparison.against.kind == "imported"


@pytest.mark.parametrize(
    ("new", "against", "choices", "words"),
    [
        ("new", "baseline:nothing", {}, "unknown baseline 'nothing'"),
        ("new", "nobody", {}, "there are no runs of toy@1, preset 'smoke', by nobody"),
        ("nobody", "old", {}, "there are no runs of toy@1, preset 'smoke', by nobody"),
        ("new", "old", {"suite": "tyo"}, "unknown suite 'tyo'"),
        ("new", "old", {"preset": "big"}, "unknown preset 'big'"),
        ("new", "baseline:choreographer-2023/CIC", {}, "cannot stand beside results of 'toy'"),
        ("baseline:choreographer-2023", "old", {"suite": "urlb-states"}, "has 11 agents, and one can be compared"),
        ("new", "old", {"selection": make_selection(None, None, ["arm_lfet"], None, None, None)}, "unknown task"),
        ("new", "new", {}, "there is nobody to compare 'new' with"),
    ],
)
def test_bad_names_are_answered(new, against, choices, words, runs):
    with pytest.raises(UserError, match=re.escape(words)):
        compared(runs, against, new=new, **choices)


def test_incomplete_runs_are_refused(tmp_path):
    write_grid(tmp_path, ["new", "old"], 2)
    write_run(tmp_path, make_job("new", "arm_left", 2), 1.0)
    with pytest.raises(IncompleteError, match="new on walker_walk, seed 2"):
        compared(tmp_path, "old")
    (two,) = compared(tmp_path, "old", selection=make_selection(None, None, None, (0, 1), None, None))
    assert two.tasks[0].new.n == 2


def test_several_configurations_of_the_new_agent_need_a_choice(tmp_path):
    for config in ({"lr": 0.1}, {"lr": 0.2}):
        write_run(tmp_path, make_job("new", "arm_left", 0, config=config))
    with pytest.raises(UserError, match=r"'new' has runs of several configurations; name one of them: new-\w{8}, new-"):
        compared(tmp_path, "old")


def test_different_references_and_no_shared_task_are_refused(runs):
    (new,), (old,) = (sides_of(name, "toy", "smoke", runs) for name in ("new", "old"))
    other = replace(
        old, scores=replace(old.scores, scale=replace(old.scores.scale, references=old.scores.scale.references * 2))
    )
    with pytest.raises(UserError, match="normalise them by different references"):
        compare(new, other, reps=QUICK)
    with pytest.raises(UserError, match="share no task"):
        compare(new, replace(old, scores=old.scores.select([])), reps=QUICK)


def test_the_screen_is_whole_in_80_columns(runs, folder):
    text = screen(compared(runs, "old"))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    walk = next(line for line in lines if line.startswith("walker_walk"))
    assert re.fullmatch(
        r"walker_walk +50 ± 17 +\d+ ± \d+ +[+-]0\.\d{3} \[[+-]\d\.\d{3}, [+-]\d\.\d{3}\] +(better|worse|\?)", walk
    )
    assert len(lines) < 40, "one screen"
    published = compared(
        runs, "baseline:choreographer-2023", new="baseline:moss-2022/MOSS", suite="urlb-states", preset="paper"
    )
    wide = screen(published)
    assert max(map(len, wide.splitlines())) <= 80
    for one in published:
        estimate = one.answer.difference.estimate
        assert f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]" in wide, "no number is cut"


def test_the_files_say_the_same_and_are_the_same_every_time(runs, tmp_path):
    def write(name: str) -> dict[str, bytes]:
        comparisons, suite, command = compare_all("new", ["old"], "toy", "smoke", runs, reps=QUICK)
        return {file.name: file.read_bytes() for file in write_comparison(comparisons, suite, command, tmp_path / name)}

    files = write("one")
    assert files == write("two")
    assert {Path(name).suffix for name in files} == {".md", ".tex", ".csv", ".json"}
    data = json.loads(files["comparison-new-toy@1-smoke.json"])
    answer = data["against"][0]
    report = files["report-new-toy@1-smoke.md"].decode()
    value = answer["aggregates"]["IQM"]["difference"]["value"]
    assert f"IQM {value:+.3f}" in report
    assert "REDUCED BUDGET" in report
    assert "fewer than 5: do not trust the intervals" in report
    assert data["command"] in report
    rows = list(csv.DictReader(files["tasks-new-toy@1-smoke.csv"].decode().splitlines()))
    assert [row["task"] for row in rows] == list(TASKS)
    assert float(rows[0]["difference of scores"]) == answer["tasks"]["walker_walk"]["difference"]["value"]
    assert "& walker\\_walk &" in files["tasks-new-toy@1-smoke.tex"].decode()
    with pytest.raises(UserError, match="unknown format 'pdff'"):
        write_comparison([], None, "", tmp_path, ["pdff"])
    assert FORMATS == ("md", "latex", "csv", "json")


def test_names_with_signs_of_latex_and_other_letters_survive(runs, tmp_path):
    name = "α_1 & 50%"
    rows = [[name, task, seed, 200, 40 + seed] for task in TASKS for seed in range(3)]
    with (tmp_path / "x.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["agent", "task", "seed", "frames", "return"], *rows])
    store(import_csv(tmp_path / "x.csv", "odd", "toy", "smoke"), tmp_path)
    comparisons, suite, command = compare_all(
        f"baseline:odd/{name}", ["old"], "toy", "smoke", runs, folder=tmp_path, reps=QUICK
    )
    files = {file.name: file for file in write_comparison(comparisons, suite, command, tmp_path / "out")}
    latex = files["answers-odd-α_1-50-toy@1-smoke.tex"].read_text()
    assert r"\_1 \& 50\%" in latex
    assert name in json.loads(files["comparison-odd-α_1-50-toy@1-smoke.json"].read_text())["new"]["label"]


def test_the_command(runs, tmp_path, monkeypatch, capsys):
    def urlbench(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["compare", *arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    monkeypatch.chdir(tmp_path)
    common = ["--suite", "toy", "--preset", "smoke", "--runs", str(runs), "--reps", "200"]
    code, out, _ = urlbench("new", "--against", "old", *common, "--out", "here", "--format", "json")
    assert code == 0
    assert "P(new > against)" in out
    assert out.splitlines()[-1] == "here/comparison-new-toy@1-smoke.json"
    code, out, _ = urlbench("new", "--against", "old", *common, "--json", "--seeds", "0-1")
    data = json.loads(out)
    assert data["against"][0]["tasks"]["arm_left"]["new"]["n"] == 2
    assert f"--seeds {seeds_flag([0, 1])}" in data["command"]
    Path("my agent.py").write_text("")
    _, first, _ = urlbench("new", "--against", "old", *common, "--json", "--plugin", "my agent.py")
    command = json.loads(first)["command"]
    assert "--plugin 'my agent.py'" in command
    assert urlbench(*shlex.split(command)[2:], "--json")[1] == first
    code, _, err = urlbench("new", "--against", "baseline:nobody", *common)
    assert (code, err.splitlines()[0].startswith("error: unknown baseline 'nobody'")) == (2, True)


@pytest.mark.slow
def test_the_example_in_the_documentation_is_what_the_command_prints(tmp_path):
    page = Path(__file__).parents[2] / "docs" / "baselines.md"
    (example,) = re.findall(r"^```\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    sides = ("baseline:choreographer-2023/CIC", "baseline:choreographer-2023/APT")
    printed = screen(compared(tmp_path, sides[1], new=sides[0], suite="urlb-states", preset="paper", reps=50_000))
    assert [line.rstrip() for line in printed.splitlines()] == example.splitlines()
