"""Reports of searches for goals: counts, intervals, ceilings, marks and origin."""

import csv
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from processes import run_program
from synthetic_searches import EPISODES, GOALS, REACH, SPARSE, make_job, write_search, write_searches

from urlbench.core.errors import IncompleteError, UserError
from urlbench.reports import figures
from urlbench.reports.files import FORMATS, escape_latex
from urlbench.reports.proportions import wilson
from urlbench.reports.report import make_report

pytestmark = pytest.mark.usefixtures("synthetic_suites")

SUPPORT = str(Path(__file__).parents[1] / "support")
REDUCED = "REDUCED BUDGET: preset smoke — not comparable with published numbers"


def report(root: Path, suite: str = "toy-reach", preset: str = "smoke", **choices) -> dict[str, Path]:
    """A report in Markdown and LaTeX unless `formats` says otherwise; its files by name."""
    choices.setdefault("formats", ("md", "latex"))
    return {path.name: path for path in make_report(root, suite, preset=preset, **choices)}


def sections(files: dict[str, Path]) -> dict[str, str]:
    """The parts of the Markdown report by heading."""
    text = next(path for name, path in files.items() if name.endswith(".md")).read_text().replace("\\", "")
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def row(part: str, *beginning: str) -> list[str]:
    """The cells of the table row that begins so."""
    start = f"| {' | '.join(beginning)} |"
    (line,) = [line for line in part.splitlines() if line.startswith(start)]
    return [cell.strip() for cell in line.strip("|").split("|")]


def found_in(episodes: dict[int, int]) -> np.ndarray:
    """The first so many episodes of each goal find it."""
    found = np.zeros((GOALS, EPISODES), bool)
    for goal, number in episodes.items():
        found[goal, :number] = True
    return found


@pytest.fixture
def reach(tmp_path: Path) -> Path:
    """Agents `apt` and `random` on goal sets 0 to 2, with known numbers of episodes that found each goal."""
    known = {
        "apt": [{0: 1, 1: 12}, {0: 3, 1: 3, 4: 3}, {2: 6}],
        "random": [{1: 2}, {}, {2: 1}],
    }
    for agent, seeds in known.items():
        for seed, episodes in enumerate(seeds):
            write_search(tmp_path, make_job(agent, seed), found_in(episodes))
    return tmp_path


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> dict[str, Path]:
    """The reports of both suites in all formats."""
    root = tmp_path_factory.mktemp("all") / "runs"
    write_searches(root, ["apt", "random"], 3)
    write_searches(root, ["apt", "random"], 3, suite=SPARSE)
    return {**report(root, formats=FORMATS), **report(root, "toy-sparse", formats=FORMATS)}


# --- intervals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # (p + z²/2n ± z sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n) with z = 1.959964, by hand
        (1, 2, 0.0945312, 0.9054688),
        (2, 3, 0.2076596, 0.9385081),
        (31, 50, 0.4815045, 0.7413721),
        # nothing found and all found: from 0 to z²/(n + z²), and from n/(n + z²) to 1
        (0, 3, 0.0, 0.5614970),
        (3, 3, 0.4385030, 1.0),
        (0, 50, 0.0, 0.0713476),
        (50, 50, 0.9286524, 1.0),
    ],
)
def test_wilson_intervals_are_those_worked_out_by_hand(count, total, low, high):
    proportion = wilson(count, total)
    assert (proportion.low, proportion.high) == pytest.approx((low, high), abs=1e-6)
    assert proportion.value == count / total


def test_wilson_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = {count: wilson(count, 50) for count in range(51)}
    for truth in (0.05, 0.3, 0.9):
        draws = rng.binomial(50, truth, 4000)
        covered = np.mean([intervals[count].low <= truth <= intervals[count].high for count in draws])
        assert 0.92 < covered < 0.985


# --- numbers -----------------------------------------------------------------------------------------


def test_goals_are_counted_for_each_set_and_pooled(reach):
    parts = sections(report(reach))
    # apt finds 2, 3 and 1 of 5: mean 0.4, standard error 0.2 / sqrt(3); 4 + 5 + 3 of the 15 are within reach.
    assert row(parts["Goals found"], "apt") == [
        "apt", "3", "0.400 ± 0.115 (n=3)", "6/15 = 0.400 [0.198, 0.643]", "12/15 = 0.800", "0.500",
    ]  # fmt: skip
    assert row(parts["Goals found"], "random")[3:] == ["2/15 = 0.133 [0.037, 0.379]", "12/15 = 0.800", "0.167"]
    sets = parts["Goals found in each goal set"]
    assert row(sets, "arm_reach", "1")[2:] == ["3/5 = 0.600 [0.231, 0.882]", "0/5 = 0.000 [0.000, 0.434]", "5"]
    assert "Within reach: a controller that was made up." in sets
    assert "Each goal set was searched by the agents of the seed with its number." in sets
    # 13 of the 5 x 12 episodes
    assert row(parts["Episodes that found their goal"], "arm_reach", "0")[2] == "13/60 = 0.217 [0.131, 0.336]"


def test_goals_that_were_not_found_are_listed(reach):
    part = sections(report(reach))["Goals that were not found"]
    assert row(part, "arm_reach", "0", "anybody")[3] == "3 of 5: 2-4"
    assert row(part, "arm_reach", "1", "apt")[3] == "2 of 5: 2-3"
    assert row(part, "arm_reach", "1", "random")[3] == "5 of 5: 0-4"


def test_one_goal_a_task_is_counted_in_runs(tmp_path):
    for seed, episodes in enumerate([0, 1, 12]):
        for task in ("walker_walk", "arm_left"):
            found = np.arange(EPISODES)[None] < (episodes if task == "walker_walk" else 0)
            write_search(tmp_path, make_job("apt", seed, suite=SPARSE, task=task), found)
    parts = sections(report(tmp_path, "toy-sparse"))
    runs = parts["Runs that found the goal"]
    assert row(runs, "walker_walk")[1] == "2/3 = 0.667 [0.208, 0.939]"
    assert row(runs, "arm_left")[1] == "0/3 = 0.000 [0.000, 0.561]"
    # Runs of one seed share a pretraining: together they have no interval.
    assert row(runs, "all tasks")[1] == "2/6 = 0.333"
    part = parts["Episodes that found their goal"]
    assert row(part, "walker_walk")[1] == "13/36 = 0.361 [0.225, 0.524], runs 0.000 to 1.000"
    assert "the episodes of a run share one agent, so it says nothing about other seeds" in part
    assert "Goals found" not in parts


def test_every_seed_on_every_set_is_pooled_with_its_range(tmp_path):
    for seed in (0, 1):
        for goal_set in (0, 7):
            job = make_job("apt", seed, goal_set=goal_set)
            write_search(tmp_path, job, found_in({0: 12} if seed else {0: 12, 1: 1, 2: 1}))
    files = report(tmp_path, goal_sets=[0, 7])
    assert "report-toy-reach@1-smoke-goal-sets-0,7.md" in files
    parts = sections(files)
    assert "# Report of toy-reach@1, preset smoke, goal sets 0, 7 for every seed" in parts[""]
    sets = parts["Goals found in each goal set"]
    assert row(sets, "arm_reach", "7")[2:] == ["4/10 = 0.400 [0.168, 0.687], runs 0.200 to 0.600", "—"]
    assert "How many goals are within reach is not known of goal sets 7." in sets
    # The runs of one seed share an agent: two seeds, of 0.6 and 0.2, are two values and not four.
    assert row(parts["Goals found"], "apt")[1:3] == ["4", "0.400 ± 0.200 (n=2)"]
    assert row(parts["Goals found"], "apt")[4:] == ["—", "—"]
    assert "--goal-sets 0,7" in parts["Provenance"]


def test_runs_on_other_goal_sets_are_mentioned(reach):
    write_search(reach, make_job("apt", 0, goal_set=8))
    parts = sections(report(reach))
    assert "1 run is left out, on other goal sets than each seed's own" in parts[""]
    assert row(parts["Goals found"], "apt")[1] == "3"


def test_no_score_is_normalised_and_no_iqm_is_taken(everything):
    for path in everything.values():
        if path.suffix in (".md", ".tex"):
            text = path.read_text()
            assert not re.search(r"IQM|[Nn]ormalis|bootstrap|Optimality", text), path.name


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_csv_holds_counts_fractions_and_intervals(reach):
    files = report(reach, formats=("csv",))
    stem = "toy-reach@1-smoke"
    apt = csv_rows(files[f"goals-{stem}.csv"])[0]
    assert (apt["agent"], apt["runs"], apt["pooled goals count"], apt["pooled goals total"]) == ("apt", "3", "6", "15")
    assert (float(apt["pooled goals"]), float(apt["within reach"])) == (0.4, 0.8)
    assert float(apt["mean over seeds standard error"]) == pytest.approx(0.2 / 3**0.5)
    assert float(apt["found of those within reach"]) == 0.5
    second = csv_rows(files[f"goal-sets-{stem}.csv"])[1]
    assert [second[name] for name in ("goal set", "apt count", "apt total", "within reach")] == ["1", "3", "5", "5"]
    assert float(second["apt low"]) == pytest.approx(0.2307, abs=1e-3)


def test_csv_gives_no_interval_where_the_table_gives_none(tmp_path):
    for seed in range(2):
        for task in ("walker_walk", "arm_left"):
            write_search(tmp_path, make_job("apt", seed, suite=SPARSE, task=task), np.ones((1, EPISODES), bool))
    one, _, total = csv_rows(report(tmp_path, "toy-sparse", formats=("csv",))["runs-toy-sparse@1-smoke.csv"])
    assert (one["apt count"], one["apt high"]) == ("2", "1.0")
    assert (total["task"], total["apt"], total["apt total"]) == ("all tasks", "1.0", "4")
    assert (total["apt low"], total["apt high"]) == ("", "")


# --- marks, origin and formats -----------------------------------------------------------------------


def test_the_files_are_named_after_suite_and_preset(everything):
    reach, sparse = "toy-reach@1-smoke", "toy-sparse@1-smoke"
    assert set(everything) == {
        *(f"report-{stem}.html" for stem in (reach, sparse)),
        *(f"{name}-{reach}.tex" for name in ("report", "goals", "goal-sets", "episodes")),
        *(f"{name}-{sparse}.tex" for name in ("report", "runs", "episodes")),
        *(f"report-{stem}.md" for stem in (reach, sparse)),
        *(f"{name}-{reach}.csv" for name in ("goals", "goal-sets", "episodes", "not-found")),
        *(f"{name}-{sparse}.csv" for name in ("runs", "episodes")),
        *(f"{name}-{reach}.{ending}" for name in ("goals", "episodes") for ending in figures.PICTURES),
        *(f"{name}-{sparse}.{ending}" for name in ("runs", "episodes") for ending in figures.PICTURES),
    }


@pytest.mark.parametrize("formats", [("html", "csv", "svg"), pytest.param(FORMATS, marks=pytest.mark.slow)])
def test_the_same_runs_give_the_same_bytes_without_torch(everything, tmp_path, formats):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import synthetic_searches;"
        "from urlbench.core.registry import register_suite; from urlbench.reports.report import make_report;"
        "[register_suite(one) for one in synthetic_searches.SUITES.values()];"
        "make_report(sys.argv[2], 'toy-reach', None, 'smoke', sys.argv[3], formats=sys.argv[4:]);"
        "assert not {'torch', 'mujoco', 'dm_control', 'metaworld'} & sys.modules.keys()"
    )
    root = next(iter(everything.values())).parents[2]
    command = [sys.executable, "-c", script, SUPPORT, str(root), str(tmp_path), *formats]
    run_program(command, check=True)
    endings = {".tex" if name == "latex" else f".{name}" for name in formats}
    expected = {name for name, path in everything.items() if "toy-reach" in name and path.suffix in endings}
    made = {path.name: path for path in tmp_path.glob("*/*")}
    assert made.keys() == expected
    for name, path in made.items():
        assert everything[name].read_bytes() == path.read_bytes(), name


def test_a_reduced_preset_is_marked_everywhere(everything):
    for name, path in everything.items():
        if path.suffix == ".md":
            for title, part in sections({name: path}).items():
                assert REDUCED in part or title == "Provenance", title
        if path.suffix == ".tex":
            assert escape_latex(REDUCED) in path.read_text(), name


@pytest.mark.parametrize("preset", ["paper", "paper-released-code"])
def test_the_published_budgets_are_named_and_not_marked(tmp_path, preset):
    write_searches(tmp_path, ["apt"], 2, preset=preset)
    parts = sections(report(tmp_path, preset=preset))
    assert f"# Report of toy-reach@1, preset {preset}" in parts[""]
    assert "REDUCED" not in "".join(parts.values())
    criterion = "an episode's return above 1" if preset == "paper-released-code" else "a step reward of at least 1"
    assert f"a goal is found by {criterion}; mean actions, skills drawn anew every 50 steps" in parts["Provenance"]


def test_figures_carry_marks_origin_and_ceilings(reach, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path, description: shown.append((figure, description)))
    shutil.rmtree(reach / make_job("apt", 2).path)
    report(reach, formats=("png",), allow_partial=True)
    assert len(shown) == 2
    for figure, description in shown:
        visible = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
        for words in (REDUCED, "PARTIAL 5/6 runs", "git 0123456789ab", "urlbench report --suite toy-reach", "Wilson"):
            assert words in visible
        assert "PARTIAL 5/6 runs" in description
        assert [axes.get_title() for axes in figure.axes] == ["goal set 0", "goal set 1", "goal set 2", "all goal sets"]
        dashed = [[line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == "--"] for axes in figure.axes]
        # The agents of all sets together have different ceilings, as one lacks a set: no line.
        assert dashed == [[4 / 5], [5 / 5], [3 / 5], []]
        assert "no run" in [text.get_text() for text in figure.axes[2].texts]


def test_the_ceiling_of_all_sets_is_their_mean(reach, monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "save", lambda figure, path, description: shown.append(figure))
    report(reach, formats=("png",))
    dashed = [line.get_xdata()[0] for line in shown[0].axes[-1].lines if line.get_linestyle() == "--"]
    assert dashed == [12 / 15]


def test_incomplete_data_are_refused(reach):
    shutil.rmtree(reach / make_job("apt", 2).path)
    with pytest.raises(IncompleteError, match="5 of 6 runs can be used; 1 problem:"):
        report(reach)
    assert not (reach / "reports").exists()


def test_a_partial_report_is_stamped(reach):
    shutil.rmtree(reach / make_job("apt", 2).path)
    files = report(reach, allow_partial=True)
    assert all("partial" in name and "PARTIAL 5/6 runs" in path.read_text() for name, path in files.items())
    parts = sections(files)
    assert row(parts["Goals found in each goal set"], "arm_reach", "2")[2:] == ["—", "1/5 = 0.200 [0.036, 0.624]", "3"]
    assert row(parts["Goals found"], "apt")[1:3] == ["2", "0.500 ± 0.100 (n=2)"]
    assert row(parts["Goals that were not found"], "arm_reach", "2", "apt")[3] == "—"


def test_an_agent_without_any_run_is_shown_empty(reach):
    parts = sections(report(reach, agents=["apt", "cic"], allow_partial=True))
    assert row(parts["Goals found"], "cic") == ["cic", "0", "— (n=0)", "—", "—", "—"]


def test_a_part_of_a_goal_set_has_no_ceiling(tmp_path):
    protocol = REACH.protocols["smoke"]
    rules = protocol.search.model_copy(update={"goals": 2})
    smoke = protocol.model_copy(update={"search": rules})
    suite = REACH.model_copy(update={"protocols": {"smoke": smoke}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("urlbench.results.selection.load_suite", lambda name: suite)
        write_search(tmp_path, make_job("apt", 0, suite=suite))
        part = sections(report(tmp_path))["Goals found"]
    assert row(part, "apt")[4:] == ["—", "—"]
    assert "is known of whole sets of 5, not of the first 2" in part


def test_bootstrap_options_are_refused(reach):
    with pytest.raises(UserError, match="leave --ci and --reps away"):
        report(reach, ci="cluster")
    with pytest.raises(UserError, match="leave --ci and --reps away"):
        report(reach, reps=1000)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("suite", ["toy-reach", "toy-sparse"])
def test_latex_compiles(everything, suite):
    wrapper = everything[f"report-{suite}@1-smoke.tex"]
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", wrapper.name]
    done = run_program(command, cwd=wrapper.parent, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
