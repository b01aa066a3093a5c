"""`urlbench new suite`: its files work as they are, and the guide's commands go from nothing to a report."""

import re
import shlex
from pathlib import Path

import pytest
from command_line import Command, urlbench as urlbench_process
from python_files import checked

from urlbench.cli.starters import write_suite
from urlbench.core import registry
from urlbench.core.errors import UserError

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "suite-of-your-own.md").read_text(encoding="utf-8")


def guide_commands() -> list[list[str]]:
    """The arguments of the guide's commands, in their order."""
    return [shlex.split(line) for line in re.findall(r"^    ((?:urlbench|python) .*)$", GUIDE, re.MULTILINE)]


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SUITES", dict(registry._SUITES))


def test_the_command_names_the_files_and_what_comes_next(urlbench: Command) -> None:
    made = urlbench("new", "suite", "my-suite")
    assert made.code == 0
    assert sorted(path.name for path in Path().iterdir()) == ["my_suite.py", "test_my_suite.py"]
    assert "python -m pytest test_my_suite.py\n" in made.out
    assert "urlbench report --suite my-suite --plugin my_suite.py --preset smoke\n" in made.out
    again = urlbench("new", "suite", "my-suite")
    assert (again.code, again.err) == (
        2,
        "error: my_suite.py exists and is not overwritten; remove it, or choose another name.\n",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("urlb-states", "suite 'urlb-states' is registered already"),
        ("torch", "torch.py would hide the Python module 'torch'"),
        ("My-suite", "'My-suite' cannot name a suite"),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_suite(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_file_is_a_plugin_without_a_simulator(tmp_path: Path) -> None:
    files = write_suite("new-places", tmp_path)
    registry.load_plugin(str(files.plugin))
    suite = registry.load_suite("new-places")
    assert {"paper", "small", "smoke"} <= suite.protocols.keys()
    assert not re.search(r"\$\w", files.plugin.read_text() + files.test.read_text())


@pytest.mark.slow
def test_the_files_pass_their_test_and_the_linters(tmp_path: Path) -> None:
    checked(tmp_path, [path.name for path in write_suite("new-places", tmp_path)])


@pytest.mark.slow
def test_the_guide_goes_from_nothing_to_a_report(tmp_path: Path) -> None:
    new, test, run, report, show = guide_commands()
    urlbench_process(tmp_path, *new[1:])
    checked(tmp_path, [test[-1]])
    assert "jobs are done" in urlbench_process(tmp_path, *run[1:], "--device", "cpu")
    written = urlbench_process(tmp_path, *report[1:], "--reps", "200", "--format", "md").split()
    (page,) = [tmp_path / word for word in written if word.endswith(".md")]
    cells = {cell.strip() for cell in page.read_text(encoding="utf-8").replace("\\_", "_").split("|")}
    assert cells >= {"random", "ddpg", "point_left", "point_right", "point_corner"}
    assert "point_right" in urlbench_process(tmp_path, *show[1:])
