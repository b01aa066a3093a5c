"""What `pip install` of the wheel takes by itself, without the list of pinned versions: what the suites ask for."""

import json
import os
import re
import sys
import tomllib
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from processes import run_program

from urlbench.core import registry

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DEPENDENCIES = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
PYTHONS = [
    match[1]
    for classifier in PROJECT["classifiers"]
    if (match := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", classifier))
]
# Other files register suites of their own.
SUITES = [registry.load_suite(name) for name, entry in registry._SUITES.items() if entry.origin == "urlbench"]
ASKED = {canonicalize_name(one.name): one for suite in SUITES for one in map(Requirement, suite.requirements)}


def run(*command: str | Path, tools: Path | None = None, text: str | None = None) -> CompletedProcess[str]:
    """Run a command with the machine's own index, but with no list of versions."""
    environment = {name: value for name, value in os.environ.items() if "CONSTRAINT" not in name}
    if tools is not None:
        environment["PYTHONPATH"] = str(tools)
    return run_program(list(map(str, command)), input=text, env=environment)


def test_the_suites_and_the_package_ask_for_the_same_versions() -> None:
    assert ASKED.keys() == {"dm-control", "metaworld", "mujoco", "numpy"}
    for name, asked in ASKED.items():
        everywhere = {line for suite in SUITES for line in suite.requirements if canonicalize_name(asked.name) == name}
        assert str(asked) in everywhere
        assert set(asked.specifier) <= set(DEPENDENCIES[name].specifier)
        assert len(asked.specifier) == 1


def test_what_no_suite_asks_for_is_open_above_a_floor() -> None:
    for name, dependency in DEPENDENCIES.items():
        assert dependency.url is None, "no addresses"
        operators = {one.operator for one in dependency.specifier}
        assert operators == {">="} or name in ASKED, name


def test_the_versions_of_python_are_said_alike() -> None:
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 30) if allowed.contains(f"3.{minor}.1")] == PYTHONS
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [f"{major}.{minor}" for major, minor in re.findall(r"\((\d), (\d+)\)", makefile)] == PYTHONS


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with today's pip and uv: they resolve from metadata alone, where older pips download everything."""
    folder = tmp_path_factory.mktemp("tools")
    done = run(sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, "pip>=26", "uv")
    if done.returncode:
        pytest.skip(f"no package index can be reached: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    return folder


def check(resolved: dict[str, str]) -> None:
    assert {"urlbench", "torch"} <= resolved.keys()
    found = {name: resolved[name] for name in ASKED}
    assert all(asked.specifier.contains(found[name]) for name, asked in ASKED.items()), found


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_pip_takes_what_the_suites_ask_for(python: str, wheel: Path, tools: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    elsewhere = ["--python-version", python, "--only-binary=:all:", "--target", tmp_path / "nothing"]
    choices = ["--dry-run", "--ignore-installed", "--use-feature=fast-deps", "--report", report, *elsewhere]
    done = run(sys.executable, "-m", "pip", "install", *choices, wheel, tools=tools)
    assert done.returncode == 0, done.stderr
    installs = [one["metadata"] for one in json.loads(report.read_text(encoding="utf-8"))["install"]]
    check({canonicalize_name(one["name"]): one["version"] for one in installs})


@pytest.mark.slow
@pytest.mark.parametrize("python", PYTHONS)
def test_uv_takes_what_the_suites_ask_for(python: str, wheel: Path, tools: Path) -> None:
    uv = [tools / "bin" / "uv", "pip", "compile", "--no-python-downloads", "--no-annotate", "--no-header"]
    reachable = run(*uv, "-", text="packaging")
    if reachable.returncode:
        pytest.skip(f"uv reaches no package index: {reachable.stderr.strip()}")
    choices = ["--python-version", python, "--only-binary", ":all:", "-"]
    done = run(*uv, *choices, text=f"urlbench @ {wheel.as_uri()}")
    assert done.returncode == 0, done.stderr
    lines = [re.split(r"==| @ ", line) for line in done.stdout.splitlines() if line]
    check({canonicalize_name(name): version for name, version in lines})
