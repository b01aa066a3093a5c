"""The names of the package `urlbench` itself: what plugins, notebooks and scripts need."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import urlbench

ROOT = Path(__file__).parents[2]
STUB = ast.parse((ROOT / "urlbench" / "__init__.pyi").read_text(encoding="utf-8"))
NAMES = [alias.name for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names]


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(urlbench, name) is not None
    assert name in dir(urlbench)


def test_the_package_alone_imports_nothing_of_its_own() -> None:
    script = "import sys, urlbench; print(*(name for name in sys.modules if name.startswith('urlbench.')))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == []


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Suit"):
        _ = urlbench.Suit


def imported_from(text: str) -> set[str]:
    """Modules of ours that the code in a text imports from."""
    return set(re.findall(r"^\s*(?:from|import) (urlbench[\w.]*)", text, re.MULTILINE))


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "urlbench").rglob("*.template")]),
    ids=lambda path: path.name,
)
def test_pages_and_templates_import_from_the_package_alone(path: Path) -> None:
    assert imported_from(path.read_text(encoding="utf-8")) <= {"urlbench"}
