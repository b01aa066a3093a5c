"""What is shipped: the same modules through sdist and wheel, and pins for everything that is imported."""

import os
import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from processes import run_program

from urlbench.baselines.published_data import HASHES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_every_dependency_is_pinned_by_version_alone() -> None:
    pinned = {canonicalize_name(name): version for name, version in pins().items()}
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = map(Requirement, [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)])
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement
    assert all(re.fullmatch(r"[\w.]+", version) for version in pins().values()), "no addresses, no local builds"


def test_the_continuous_integration_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution without .ci")
    assert os.access(script, os.X_OK)
    assert script.read_text().splitlines()[-1] == "make test"


@pytest.mark.slow
def test_the_wheel_from_the_sdist_has_every_module_and_nothing_beside_the_package(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = run_program(command)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = ROOT / "urlbench"
    shipped = [f for f in package.rglob("*") if f.is_file() and f.suffix not in (".pyc", ".pyo")]
    expected = {f"urlbench/{file.relative_to(package)}" for file in shipped}
    some = ("agents/choreographer/choreographer.py", "reports/report.py", "suites/dmc/environment.py")
    assert expected >= {f"urlbench/{name}" for name in some}
    assert expected >= {f"urlbench/baselines/published/{name}" for name in HASHES}
    assert {name for name in names if ".dist-info/" not in name} == expected
    (entry_points,) = [name for name in names if name.endswith("entry_points.txt")]
    with zipfile.ZipFile(wheel) as archive:
        assert "urlbench = urlbench.cli.app:main" in archive.read(entry_points).decode()
