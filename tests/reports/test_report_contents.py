"""What the tables and figures of a report say: pairs, profiles, curves, gaps, the best in bold, and numbers as CSV."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import TASKS, make_job, write_grid, write_run

from urlbench.core.errors import IncompleteError, UserError
from urlbench.reports import figures
from urlbench.reports.completeness_figure import state_of
from urlbench.reports.report import make_report
from urlbench.reports.score_tables import best_of
from urlbench.results.cells import collect
from urlbench.results.scores import final_scores
from urlbench.results.selection import Cell
from urlbench.runs.store import Status
from urlbench.statistics.estimates import TaskMean

pytestmark = pytest.mark.usefixtures("synthetic_suites")

ODD = ["a_b&50%", "Zoë 水", "$x^2$", "_hidden", "choreographer", "a very long name that goes on and on and on {}"]


def report(root: Path, agents=None, **kwargs) -> dict[str, Path]:
    """A quick report; its files by name without the stem."""
    kwargs.setdefault("formats", ("csv",))
    kwargs.setdefault("reps", 200)
    made = make_report(root, "toy", agents, kwargs.pop("preset", "smoke"), **kwargs)
    return {path.name.partition("-toy@1")[0] + path.suffix: path for path in made}


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture
def drawn(monkeypatch) -> dict[str, figures.Figure]:
    """The figures of reports that are made meanwhile, by name."""
    found = {}
    monkeypatch.setattr(
        figures, "save", lambda figure, path, _: found.update({path.name.partition("-toy@1")[0]: figure})
    )
    return found


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> Path:
    """Five agents, three seeds."""
    root = tmp_path_factory.mktemp("grid") / "runs"
    write_grid(root, ["apt", "cic", "icm", "random", "rnd"], 3)
    return root


# --- CSV ---------------------------------------------------------------------------------------------


def test_csv_holds_every_number_with_all_its_digits(grid):
    returns = final_scores(collect(grid, "toy", "smoke"))["apt"].measured
    (row, *_) = rows(report(grid, ["apt", "random"])["tasks.csv"])
    assert (row["domain"], row["task"]) == ("walker", "walker_walk")
    assert float(row["apt mean"]) == np.mean(returns[:, 0])
    assert float(row["apt standard error"]) == pytest.approx(np.std(returns[:, 0], ddof=1) / np.sqrt(3), rel=1e-15)
    assert (row["apt n"], row["reference"]) == ("3", "100.0")


def test_csv_of_estimates_has_their_ends_and_marks(grid):
    files = report(grid, ["apt", "random"])
    row = next(row for row in rows(files["aggregates.csv"]) if row["agent"] == "apt")
    assert float(row["IQM low"]) < float(row["IQM"]) < float(row["IQM high"])
    assert row["runs"] == "9"
    assert row["report"] == "toy@1, preset smoke; REDUCED BUDGET: preset smoke — not comparable with published numbers"
    assert "git 0123456789ab" in row["origin"]


def test_csv_leaves_out_what_is_not_there(tmp_path):
    write_grid(tmp_path, ["apt"], 1)
    files = report(tmp_path)
    assert [rows(files["aggregates.csv"])[0][name] for name in ("IQM low", "IQM high")] == ["", ""]
    assert rows(files["tasks.csv"])[0]["apt standard error"] == ""


def test_csv_holds_odd_names_as_they_are(tmp_path):
    for task in TASKS:
        write_run(tmp_path, make_job('a,"b"', task, 0))
    assert rows(report(tmp_path)["aggregates.csv"])[0]["agent"] == 'a,"b"'


# --- the best in bold --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "best"),
    [
        ([(10, 2), (7, 9), (8, 1)], [0, 2]),  # 8 is at 10 - 2, 7 is below whatever its own error is
        ([(10, None), (9.99, 5)], [0]),
        ([(10, 3), (10, 1), (8, 1)], [0, 1]),  # of equal means the smaller error draws the line
        ([(None, None), (3, 1)], [1]),
        ([(None, None), (None, None)], []),
        ([(3, 1)], []),
    ],
)
def test_the_best_are_the_highest_and_what_its_standard_error_reaches(means, best):
    assert best_of([TaskMean(mean, error, 3) for mean, error in means]) == best


def test_the_best_of_a_task_are_bold_in_markdown_and_latex(tmp_path):
    for agent, values in {"apt": (40, 50, 60), "cic": (10, 11, 12)}.items():
        for seed, value in enumerate(values):
            for task in TASKS:
                write_run(tmp_path, make_job(agent, task, seed), value)
    files = report(tmp_path, formats=("md", "latex"))
    assert "| **50.0 ± 5.8** | 11.0 ± 0.6 |" in files["report.md"].read_text()
    assert r"\textbf{50.0 $\pm$ 5.8} & 11.0 $\pm$ 0.6 &" in files["tasks.tex"].read_text()
    assert "by no more than the standard error" in files["tasks.tex"].read_text()


# --- pairs -------------------------------------------------------------------------------------------


def test_pairs_count_how_often_one_run_beats_another(tmp_path):
    values = {"apt": (10, 30), "cic": (20, 30)}
    for agent, finals in values.items():
        for seed, value in enumerate(finals):
            for task in TASKS:
                write_run(tmp_path, make_job(agent, task, seed), value)
    (row,) = rows(report(tmp_path)["improvement.csv"])
    # cic wins 20 > 10, 30 > 10, loses 20 < 30 and ties 30 = 30: 2.5 of 4
    assert (row["X"], row["Y"], float(row["P(X > Y)"])) == ("cic", "apt", 0.625)


def test_few_pairs_are_rows_and_more_a_matrix_in_the_order_of_wins(grid, drawn):
    report(grid, ["apt", "random"], formats=("png",))
    (axes,) = drawn["improvement"].axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["random > apt"]
    report(grid, formats=("png",))
    axes = drawn["improvement"].axes[0]
    order = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(order) == ["apt", "cic", "icm", "random", "rnd"]
    cells = {text.get_position(): float(text.get_text()) for text in axes.texts}
    assert len(cells) == 20
    for (x, y), value in cells.items():
        assert value + cells[y, x] == pytest.approx(1, abs=0.011)
    means = [np.mean([cells[x + 0.5, y + 0.5] for x in range(5) if x != y]) for y in range(5)]
    assert means == sorted(means, reverse=True)


def test_one_agent_has_no_pairs(tmp_path, drawn):
    write_grid(tmp_path, ["apt"], 2)
    files = report(tmp_path, formats=("csv", "png"))
    assert "improvement.csv" not in files
    assert set(drawn) == {"aggregates", "domains", "profiles", "efficiency", "curves", "completeness"}
    assert not any(figure.legends for name, figure in drawn.items() if name != "completeness")


# --- profiles and curves -----------------------------------------------------------------------------


def test_profiles_show_the_fraction_of_runs_above_each_score(grid, drawn):
    report(grid, ["apt", "random"], formats=("png",))
    (axes,) = drawn["profiles"].axes
    matrix = final_scores(collect(grid, "toy", "smoke"))["apt"]
    (line,) = [line for line in axes.lines if line.get_color() == "#009E73"]
    for tau, value in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert value == pytest.approx(np.mean(matrix.scores > tau))
    assert line.get_xdata()[0] == 0
    assert line.get_xdata()[-1] == max(run.scores.max() for run in final_scores(collect(grid, "toy", "smoke")).values())


def test_scores_are_shown_at_each_evaluation(grid):
    (row, *_) = rows(report(grid, ["apt"])["efficiency.csv"])
    scores = final_scores(collect(grid, "toy", "smoke"))["apt"].scores
    assert float(row["200"]) == pytest.approx(scores.mean(axis=0).mean())
    # Synthetic runs reach their final return in a straight line.
    assert float(row["100"]) == pytest.approx(scores.mean(axis=0).mean() / 2)


def test_snapshots_show_the_score_against_pretraining(tmp_path, drawn):
    write_grid(tmp_path, ["apt", "random"], 3)
    for task in TASKS:
        for seed in range(3):
            write_run(tmp_path, make_job("apt", task, seed, snapshot=500), 10.0)
    files = report(tmp_path, formats=("csv", "png", "md"), snapshots="all")
    by_agent = {row["agent"]: row for row in rows(files["pretraining.csv"])}
    assert float(by_agent["apt"]["500"]) == pytest.approx((10 / 100 + 10 / 200 + 10 / 50) / 3)
    assert float(by_agent["apt"]["1,000"]) > float(by_agent["apt"]["500"])
    assert by_agent["random"]["500"] == by_agent["random"]["1,000"]
    assert "--snapshots all" in files["report.md"].read_text()
    panels = [axes.get_title() for axes in drawn["pretraining"].axes]
    assert panels == ["all tasks", "walker", "arm"]
    text = " ".join(" ".join(text.get_text().split()) for text in drawn["pretraining"].texts)
    assert "pretraining frames" in text
    assert "Agents without pretraining have the same score at all of them." in text


def test_snapshots_without_runs_are_gaps_with_their_commands(grid):
    with pytest.raises(IncompleteError, match="--snapshots 500"):
        report(grid, ["apt"], snapshots="500,1000")
    with pytest.raises(UserError, match="no snapshot is kept at 700 frames"):
        report(grid, snapshots="700")


# --- which runs there are ----------------------------------------------------------------------------


def test_the_grid_of_runs_tells_every_state(tmp_path, drawn):
    write_grid(tmp_path, ["apt"], 3)
    shutil.rmtree(tmp_path / make_job("apt", "arm_left", 0).path)
    shutil.rmtree(tmp_path / make_job("apt", "arm_left", 1).path)
    running = write_run(tmp_path, make_job("apt", "arm_left", 1), done=False)
    running.write_status(Status(state="failed", phase="finetune", message="no room"))
    damaged = tmp_path / make_job("apt", "arm_left", 2).path / "eval.jsonl"
    damaged.write_text("nothing\n")
    report(tmp_path, formats=("png",), allow_partial=True)
    figure = drawn["completeness"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "done (6)", "failed (1)", "damaged (1)", "missing (1)",
    ]  # fmt: skip
    assert figure.axes[0].get_title() == "apt 6/9"
    results = collect(tmp_path, "toy", "smoke")
    states = [state_of(results, Cell("apt", "arm_left", seed)) for seed in range(3)]
    assert states == ["missing", "failed", "damaged"]
    # Every state has a marker of its own.
    assert len({line.get_marker() + line.get_markerfacecolor() for line in figure.axes[0].lines}) == 4


# --- names and numbers of agents ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("odd") / "runs"
    write_grid(root, ODD, 2)
    return root


def test_odd_names_are_shown_as_they_are_in_figures(odd, drawn):
    report(odd, formats=("png",))
    expected = {figures.wrapped(name) for name in ODD}
    assert {label.get_text() for label in drawn["aggregates"].axes[0].get_yticklabels()} == expected
    legend = [text.get_text() for text in drawn["curves"].legends[0].get_texts()]
    assert sorted(legend) == sorted(map(figures.shown, ODD))
    assert "Zoë [U+6C34]" in legend
    # Nothing is read as a formula.
    assert all(not text.get_parse_math() for text in drawn["curves"].legends[0].get_texts())


def test_odd_names_are_written_in_every_format_without_a_warning(odd):
    files = report(odd, formats=("md", "html", "latex", "csv", "svg"))
    assert r"\$x\textasciicircum{}2\$" in files["aggregates.tex"].read_text()
    assert r"a\_b\&50\%" in files["aggregates.tex"].read_text()
    assert all(path.stat().st_size > 500 for path in files.values())


@pytest.mark.slow
def test_fifty_agents_have_fifty_rows_that_do_not_touch(tmp_path, drawn):
    agents = [f"agent {number}" for number in range(50)]
    write_grid(tmp_path, agents, 2)
    shutil.rmtree(tmp_path / make_job("agent 7", "arm_left", 1).path)
    report(tmp_path, formats=("png",), allow_partial=True)
    for name in ("aggregates", "domains"):
        figure = drawn[name]
        assert len(figure.axes[0].get_yticklabels()) == 50
        inches = figure.axes[0].get_position().height * figure.get_figheight()
        assert inches / 50 > 0.11
    matrix = drawn["improvement"].axes[0]
    assert len(matrix.get_yticklabels()) == 50
    assert not matrix.texts
    (axes,) = drawn["completeness"].axes
    assert len(axes.get_yticklabels()) == 50
    assert [text.get_text() for text in axes.texts] == ["1/2"]


def test_figures_are_drawn_for_files_that_show_them_only(grid, monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("drawn")

    monkeypatch.setattr(figures.Canvas, "of", never)
    report(grid, ["apt"], formats=("md", "latex", "csv"))
    for picture in ("html", "png"):
        with pytest.raises(AssertionError, match="drawn"):
            report(grid, ["apt"], formats=(picture,))


def test_nothing_is_drawn_outside_of_a_figure(odd, drawn):
    report(odd, formats=("png",))
    for name in ("aggregates", "profiles", "improvement", "completeness"):
        figure = drawn[name]
        figure.canvas.draw()
        renderer, box = figure.canvas.get_renderer(), figure.bbox
        shown = [text for axes in figure.axes for text in (*axes.get_yticklabels(), axes.title)]
        shown += [text for legend in figure.legends for text in legend.get_texts()] + figure.texts
        for extent, text in ((text.get_window_extent(renderer), text.get_text()) for text in shown if text.get_text()):
            assert box.x0 <= extent.x0 + 1, (name, text)
            assert extent.x1 <= box.x1 + 1, (name, text)
            assert box.y0 <= extent.y0 + 1, (name, text)
            assert extent.y1 <= box.y1 + 1, (name, text)
