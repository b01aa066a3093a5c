"""Reports: the same bytes every time, marks and origin everywhere, incomplete data refused."""

import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from processes import run_program
from synthetic_runs import TASKS, evaluation, make_job, write_grid, write_run

from urlbench.cli import app as cli
from urlbench.core.errors import IncompleteError, UserError
from urlbench.reports.figures import PICTURES
from urlbench.reports.files import FORMATS, escape_latex, escape_markdown
from urlbench.reports.report import make_report

pytestmark = pytest.mark.usefixtures("synthetic_suites")

SUPPORT = str(Path(__file__).parents[1] / "support")
REDUCED = "REDUCED BUDGET: preset smoke — not comparable with published numbers"


def report(root: Path, agents=None, preset="smoke", **kwargs) -> dict[str, Path]:
    """A quick report; its files by name."""
    kwargs.setdefault("formats", ("md", "latex"))
    return {path.name: path for path in make_report(root, "toy", agents, preset, reps=200, **kwargs)}


def markdown(files: dict[str, Path]) -> str:
    return next(path for name, path in files.items() if name.endswith(".md")).read_text()


def sections(text: str) -> dict[str, str]:
    """The parts of a Markdown report by heading."""
    parts = re.split(r"^## (.*)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    write_grid(tmp_path / "runs", ["apt", "random"], 3)
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> dict[str, Path]:
    """A report of two agents and three seeds in all formats."""
    root = tmp_path_factory.mktemp("all") / "runs"
    write_grid(root, ["apt", "random"], 3)
    return report(root, formats=FORMATS)


def test_no_choice_of_agents_is_all_of_them(grid, tmp_path):
    texts = [markdown(report(grid, agents, out=tmp_path / str(agents), formats=("md",))) for agents in (None, ())]
    assert "| apt |" in texts[0]
    assert texts[0] == texts[1]


def test_the_files_are_named_after_suite_and_preset(everything):
    stem = "toy@1-smoke"
    assert set(everything) == {
        f"report-{stem}.md",
        f"report-{stem}.html",
        f"report-{stem}.tex",
        *(f"{name}-{stem}.tex" for name in ("aggregates", "domains", "tasks")),
        *(
            f"{name}-{stem}.csv"
            for name in ("aggregates", "domains", "tasks", "improvement", "efficiency", "curve-apt", "curve-random")
        ),
        *(
            f"{name}-{stem}.{ending}"
            for name in ("aggregates", "domains", "profiles", "improvement", "efficiency", "curves", "completeness")
            for ending in PICTURES
        ),
    }
    assert {path.parent.name for path in everything.values()} == {stem}
    assert next(iter(everything)).endswith(".md")


def test_the_numbers_are_those_of_the_runs(grid):
    text = sections(markdown(report(grid)))
    # apt on walker_walk ends at 20, 50 and 80: mean 50, standard error 30 / sqrt(3).
    assert "| walker | walker\\_walk | **50.0 ± 17.3** |" in text["Final return per task"]
    assert "Every mean is over 3 runs." in text["Final return per task"]
    curve = text["Return during fine-tuning, apt"]
    assert "| task | 100 | 200 |" in curve
    assert "| walker\\_walk | 25.0 ± 8.7 (n=3) | 50.0 ± 17.3 (n=3) |" in curve


def test_the_command_of_a_report_makes_it_again_with_its_plugins(grid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my agent.py").write_text("")
    words = ["report", "--suite", "toy", "--preset", "smoke", "--agents", "apt", "--reps", "200"]
    words += ["--plugin", "my agent.py", "--plugin", "json"]
    texts = []
    for out in ("one", "two"):
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--out", out, "--format", "md,html"])
        assert end.value.code == 0
        folder = Path(out) / "toy@1-smoke"
        texts.append([(folder / f"report-toy@1-smoke.{ending}").read_text() for ending in ("md", "html")])
        (text,) = re.findall(r'"command":\s*("(?:[^"\\]|\\.)*")', texts[-1][1])
        command = json.loads(text)
        assert "--plugin 'my agent.py' --plugin json" in command
        assert command in texts[-1][0]
        words = shlex.split(command)[1:]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("formats", [("html", "csv", "svg"), pytest.param(FORMATS, marks=pytest.mark.slow)])
def test_the_same_runs_give_the_same_bytes(everything, tmp_path, formats):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import synthetic_runs;"
        "from urlbench.core.registry import register_suite; from urlbench.reports.report import make_report;"
        "register_suite(synthetic_runs.TOY);"
        "make_report(sys.argv[2], 'toy', None, 'smoke', sys.argv[3], reps=200, formats=sys.argv[4:]);"
        "assert not {'torch', 'mujoco', 'dm_control'} & sys.modules.keys()"
    )
    first = next(iter(everything.values())).parent
    root = first.parents[1]
    command = [sys.executable, "-c", script, SUPPORT, str(root), str(tmp_path), *formats]
    run_program(command, check=True)
    endings = {".tex" if name == "latex" else f".{name}" for name in formats}
    made = {path.name: path for path in (tmp_path / "toy@1-smoke").iterdir()}
    assert made.keys() == {name for name, path in everything.items() if path.suffix in endings}
    for name, path in made.items():
        assert everything[name].read_bytes() == path.read_bytes(), name


def test_another_agent_changes_no_numbers(grid):
    def rows(agent: str) -> list[str]:
        # More agents make more pairs.
        parts = {title: part for title, part in sections(markdown(report(grid))).items() if "improvement" not in title}
        return [line for part in parts.values() for line in part.splitlines() if line.startswith(f"| {agent} |")]

    before = rows("apt")
    write_grid(grid, ["aaa"], 3)
    write_grid(grid, ["zzz"], 3)
    assert rows("apt") == before
    assert len(before) == 3


def test_the_order_of_the_agents_changes_no_numbers(grid):
    one = markdown(report(grid, ["apt", "random"]))
    other = markdown(report(grid, ["random", "apt"]))
    assert one != other
    for agent in ("apt", "random"):
        rows = [[line for line in text.splitlines() if line.startswith(f"| {agent} |")] for text in (one, other)]
        assert rows[0] == rows[1]
        assert rows[0]


def test_a_reduced_preset_is_marked_everywhere(everything):
    text = markdown(everything)
    parts = sections(text)
    parts.pop("Provenance")
    for title, part in parts.items():
        assert REDUCED in part, title
    assert REDUCED in text.split("##")[0]
    for name, path in everything.items():
        if path.suffix == ".tex":
            assert escape_latex(REDUCED) in path.read_text(), name
        elif path.suffix == ".svg":
            assert REDUCED in path.read_text(), name
        else:
            assert "smoke" in name


def test_figures_carry_marks_and_origin(grid, monkeypatch):
    shown = []
    from urlbench.reports import figures

    monkeypatch.setattr(figures, "save", lambda figure, path, description: shown.append((figure, description)))
    shutil.rmtree(grid / make_job("apt", "arm_left", 2).path)
    report(grid, formats=("png",), allow_partial=True)
    assert len(shown) == 7
    for figure, description in shown:
        visible = " ".join(" ".join(text.get_text().split()) for text in figure.texts)
        for words in (REDUCED, "PARTIAL 17/18 runs", "git 0123456789ab", "urlbench report --suite toy", "seeds 0-2"):
            assert words in visible
        assert "PARTIAL 17/18 runs" in description
        assert "Run ids: 17 runs" in description


def test_the_papers_preset_is_not_marked(tmp_path):
    write_grid(tmp_path, ["apt"], 2, preset="paper")
    files = report(tmp_path, preset="paper")
    assert "REDUCED" not in markdown(files)
    assert "report-toy@1-paper.md" in files


def test_png_and_pdf_carry_their_origin_and_no_date(everything):
    png = everything["aggregates-toy@1-smoke.png"].read_bytes()
    pdf = everything["aggregates-toy@1-smoke.pdf"].read_bytes()
    assert b"Git state of the runs: 0123456789ab" in png
    assert b"/Subject" in pdf
    assert b"CreationDate" not in pdf
    assert b"/FontType 3" not in pdf


def test_svg_files_carry_their_origin_and_neither_a_date_nor_a_font_to_look_for(everything):
    svg = everything["aggregates-toy@1-smoke.svg"].read_text()
    assert "Git state of the runs: 0123456789ab" in svg
    assert "<dc:date>" not in svg
    assert "<text" not in svg


def test_every_table_says_where_it_comes_from(everything):
    parts = sections(markdown(everything))
    origin = parts.pop("Provenance")
    for title, part in parts.items():
        assert "git 0123456789ab" in part, title
    for words in ("torch 2.13.0", "mujoco 3.3.0", "python 3.11.9", "Toy & Sons", "2024-05-06", "seeds 0-2"):
        assert words in origin
    assert "urlbench run --suite toy --agent apt --tasks walker_walk" in origin
    assert make_job("apt", "arm_left", 2).id in origin
    table = everything["tasks-toy@1-smoke.tex"].read_text()
    assert "% Git state of the runs: 0123456789ab" in table
    assert make_job("apt", "arm_left", 2).id in table


def test_one_seed_has_no_interval_and_says_so(tmp_path):
    write_grid(tmp_path, ["apt"], 1)
    parts = sections(markdown(report(tmp_path)))
    row = next(line for line in parts["Normalised score, all tasks"].splitlines() if line.startswith("| apt |"))
    assert row.count("[no interval]") == 4 or row.count("\\[no interval\\]") == 4
    assert "apt: one run per task: no interval." in parts["Normalised score, all tasks"]
    assert "A single run has no standard error." in parts["Final return per task"]
    assert "±" not in next(line for line in parts["Final return per task"].splitlines() if "walk |" in line)


def test_incomplete_data_is_refused(grid):
    shutil.rmtree(grid / make_job("apt", "arm_left", 2).path)
    with pytest.raises(IncompleteError, match="17 of 18 runs can be used; 1 problem:"):
        report(grid)
    assert not (grid / "reports").exists()


def test_a_partial_report_is_stamped(grid):
    shutil.rmtree(grid / make_job("apt", "arm_left", 2).path)
    files = report(grid, allow_partial=True)
    parts = sections(markdown(files))
    parts.pop("Provenance")
    for title, part in parts.items():
        assert "PARTIAL 17/18 runs" in part, title
    assert all("partial" in name for name in files)
    for path in files.values():
        assert "PARTIAL 17/18 runs" in path.read_text()
    assert "(n=2)" in next(line for line in parts["Final return per task"].splitlines() if "arm\\_left" in line)


def test_allowing_partial_changes_nothing_of_complete_data(grid):
    assert "PARTIAL" not in markdown(report(grid, allow_partial=True))


def test_an_agent_without_any_run_is_shown_empty(grid):
    parts = sections(markdown(report(grid, ["apt", "cic"], allow_partial=True)))
    assert "| cic | — | — | — | — | 0 |" in parts["Normalised score, all tasks"]
    assert "cic: no run on walker" in parts["Normalised score, all tasks"]


def test_latex_is_well_formed(everything):
    wrapper = everything["report-toy@1-smoke.tex"].read_text()
    assert wrapper.count(r"\begin{document}") == wrapper.count(r"\end{document}") == 1
    for needed in (r"\usepackage{booktabs}", r"\input{tasks-toy@1-smoke}", "{curves-toy@1-smoke.pdf}"):
        assert needed in wrapper
    for path in everything.values():
        if path.suffix != ".tex":
            continue
        code = re.sub(r"(?<!\\)%.*", "", path.read_text())
        for name in set(re.findall(r"\\begin\{(\w+)\}", code)):
            assert code.count(f"\\begin{{{name}}}") == code.count(f"\\end{{{name}}}"), (path.name, name)
        bare = re.sub(r"\\[\\{}$&%#_]", "", code)
        assert bare.count("{") == bare.count("}"), path.name
        assert bare.count("$") % 2 == 0
    table = everything["tasks-toy@1-smoke.tex"].read_text()
    columns = len(re.search(r"\\begin\{tabular\}\{(\w+)\}", table)[1])
    body = table.split(r"\toprule")[1].split(r"\bottomrule")[0]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == 1 + len(TASKS)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(everything):
    wrapper = everything["report-toy@1-smoke.tex"]
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", wrapper.name]
    done = run_program(command, cwd=wrapper.parent, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]


def test_special_characters_are_escaped():
    assert escape_latex("a_b & 50% #1 {x} $y ~ ^ \\ --z") == (
        r"a\_b \& 50\% \#1 \{x\} \$y \textasciitilde{} \textasciicircum{} \textbackslash{} -{}-z"
    )
    assert escape_latex("Zoë ± 水") == r"Zoë $\pm$ [U+6C34]"
    assert escape_markdown("a_b|c*d") == r"a\_b\|c\*d"


def test_an_agent_with_an_odd_name_does_not_break_the_tables(tmp_path):
    for task in TASKS:
        write_run(tmp_path, make_job("my_agent|50%&", task, 0))
    files = report(tmp_path)
    assert r"my\_agent\|50%&" in markdown(files)
    assert r"my\_agent|50\%\&" in files["tasks-toy@1-smoke.tex"].read_text()


def test_bad_requests_are_refused(grid, tmp_path):
    with pytest.raises(UserError, match="did you mean 'latex'"):
        report(grid, formats=("latx",))
    with pytest.raises(UserError, match="unknown interval 'clustered'"):
        report(grid, ci="clustered")
    with pytest.raises(UserError, match="unknown preset 'smok'"):
        report(grid, preset="smok")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the report"):
        report(grid, out=tmp_path / "file")


def test_extra_evaluations_do_not_break_the_curves(tmp_path):
    rows = [evaluation(0, 5.0), evaluation(100, 10.0), evaluation(200, 20.0)]
    write_run(tmp_path, make_job("apt", "arm_left", 0), rows=rows)
    assert "| arm\\_left | 10.0 (n=1) | 20.0 (n=1) |" in markdown(report(tmp_path))
