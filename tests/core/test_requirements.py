"""Suites refuse packages they were not checked with, in one sentence, before anything starts."""

from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from pydantic import ValidationError
from synthetic_runs import TOY, make_job, write_grid, write_run
from toy_runs import PLUGIN

from urlbench.cli import app as cli
from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.requirements import suite_versions, unmet
from urlbench.core.types import Suite
from urlbench.data.physics_replay import offline_environment
from urlbench.local import doctor
from urlbench.runs.plan import PlanRequest, make_plan

# Other files register suites of their own.
SUITES = sorted(name for name, entry in registry._SUITES.items() if entry.origin == "urlbench")
# What a plain installation took before there were bounds, and older ones.
OTHER_VERSIONS = {
    "dm_control": ("1.0.50", "1.0.27"),
    "metaworld": ("3.0.0",),
    "mujoco": ("4.0.0", "3.3.1", "3.2.7"),
    "numpy": ("2.4.6", "2.4.0"),
}
SIMULATORS = {"dm_control": "1.0.28", "metaworld": "3.1.1", "mujoco": "3.3.0"}
CASES = [
    (name, package, version)
    for name in SUITES
    for package in (Requirement(line).name for line in registry.load_suite(name).requirements)
    for version in OTHER_VERSIONS[package]
]

Install = Callable[..., None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Pretend that packages are installed in other versions; None: not at all."""
    really = metadata.version

    def pretend(**versions: str | None) -> None:
        def version(package: str) -> str:
            found = versions[package] if package in versions else really(package)
            if found is None:
                raise metadata.PackageNotFoundError(package)
            return found

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def choices(name: str) -> list[str]:
    return ["--suite", name, "--agent", "random", "--seeds", "1", "--preset", "smoke"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert isinstance(end.value.code, int)
    return end.value.code, *capsys.readouterr()


@pytest.mark.parametrize("name", SUITES)
def test_every_simulator_of_a_suite_has_the_version_it_was_checked_with(name: str) -> None:
    suite = registry.load_suite(name)
    asked = {Requirement(line).name: str(Requirement(line).specifier) for line in suite.requirements}
    assert {package: asked[package] for package in suite.packages} == {
        package: f"=={SIMULATORS[package]}" for package in suite.packages
    }
    assert ("numpy" in asked) == ("dm_control" in asked)
    assert suite_versions(suite) == {package: SIMULATORS[package] for package in suite.packages}


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize(("name", "package", "version"), CASES)
def test_another_version_is_refused_before_anything_starts(
    name: str,
    package: str,
    version: str,
    command: str,
    install: Install,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    install(**{package: version})
    code, out, err = run(capsys, command, *choices(name))
    (requirement,) = [line for line in registry.load_suite(name).requirements if Requirement(line).name == package]
    assert (code, out) == (2, "")
    assert err == (
        f"error: suite '{name}' needs the packages that it was checked with: {requirement} (installed: {version}); "
        f"run: pip install '{requirement}'\n"
    )
    assert list(tmp_path.iterdir()) == [], "nothing was made"


def test_all_that_is_wrong_is_one_sentence(install: Install) -> None:
    install(dm_control="1.0.50", mujoco=None, numpy="2.4.6")
    with pytest.raises(UserError) as refusal:
        suite_versions(registry.load_suite("urlb-states"))
    assert str(refusal.value) == (
        "suite 'urlb-states' needs the packages that it was checked with: dm_control==1.0.28 (installed: 1.0.50), "
        "mujoco==3.3.0 (not installed), numpy<2.4 (installed: 2.4.6); "
        "run: pip install 'dm_control==1.0.28' 'mujoco==3.3.0' 'numpy<2.4'"
    )


@pytest.mark.parametrize("version", ["3.3.0", "3.3.0+from.source"])
def test_a_build_of_ones_own_is_the_same_version(version: str, install: Install) -> None:
    install(mujoco=version)
    assert unmet(["mujoco==3.3.0"]) == []


def test_the_version_of_numpy_that_has_no_in1d_begins_with_its_candidates(install: Install) -> None:
    install(numpy="2.4.0rc1")
    assert [str(problem) for problem in unmet(["numpy<2.4"])] == ["numpy<2.4 (installed: 2.4.0rc1)"]


def toy_suite(**changes: Any) -> Suite:
    registry.load_plugin(str(PLUGIN))
    return Suite.model_validate({**registry.load_suite("toy-states").model_dump(), **changes})


def test_a_suite_that_names_packages_alone_runs_with_any_version(install: Install) -> None:
    install(numpy="7.0")
    assert toy_suite().requirements == ()
    assert suite_versions(toy_suite()) == {"numpy": "7.0"}
    request = PlanRequest(
        suite="toy-states", agents=("toy",), domains=("ball",), seeds=(0,), preset="smoke", plugins=(str(PLUGIN),)
    )
    assert {job.spec.versions["numpy"] for job in make_plan(request).jobs} == {"7.0"}


def test_requirements_need_not_be_part_of_the_identity(install: Install) -> None:
    install(scipy="1.0")
    suite = toy_suite(requirements=("scipy>=1.1",))
    with pytest.raises(UserError, match=r"scipy>=1\.1 \(installed: 1\.0\); run: pip install 'scipy>=1\.1'"):
        suite_versions(suite)
    install(scipy="1.1")
    assert suite_versions(suite).keys() == {"numpy"}


def test_a_requirement_that_pip_could_not_read_is_refused_with_the_suite() -> None:
    with pytest.raises(ValidationError, match="mujoco three"):
        toy_suite(requirements=("mujoco three",))


def test_data_sets_are_replayed_by_the_simulator_that_was_checked(install: Install) -> None:
    install(mujoco="4.0.0")
    with pytest.raises(UserError, match=r"mujoco==3\.3\.0 \(installed: 4\.0\.0\)"):
        offline_environment("walker")


def test_what_has_failed_is_not_run_again_with_other_versions(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    directory = write_run(Path("runs"), make_job("random", "walker_walk", 0, snapshot=0), done=False)
    status = directory.read_status()
    assert status is not None
    directory.write_status(status.model_copy(update={"state": "failed"}))
    before = directory.status_file.read_bytes()
    install(mujoco="4.0.0")
    code, out, err = run(capsys, "retry", "--failed")
    assert (code, out) == (2, "")
    assert err.startswith("error: suite 'toy' needs the packages that it was checked with: mujoco==3.3.0 (installed: 4")
    assert directory.status_file.read_bytes() == before


def test_results_are_read_whatever_is_installed(
    install: Install, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_grid(Path("runs"), ["apt", "random"], 3)
    assert TOY.requirements == ("mujoco==3.3.0",)
    install(mujoco="4.0.0")
    with pytest.raises(UserError, match=r"suite 'toy' needs .* mujoco==3\.3\.0 \(installed: 4\.0\.0\)"):
        suite_versions(TOY)
    which = ["--suite", "toy", "--preset", "smoke"]
    assert run(capsys, "status", *which)[0] == 0
    assert run(capsys, "validate", *which)[:2] == (0, "complete: no gaps, no damage, no mixtures\n")
    assert run(capsys, "report", *which, "--format", "md", "--reps", "100")[0] == 0
    assert run(capsys, "compare", "apt", "--against", "random", *which, "--reps", "100")[0] == 0
    assert run(capsys, "export", "csv", *which, "--out", "all.csv")[0] == 0


def check(name: str) -> doctor.Check:
    return doctor._CHECKS[name](name, Path("runs"))


def test_the_doctor_names_the_suites_that_cannot_run(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SUITES", {name: registry._SUITES[name] for name in SUITES})
    assert check("suites").result == "ok"
    install(metaworld="3.0.0")
    assert check("suites").result == "failed"
    assert check("suites").detail == (
        "metaworld-reach, metaworld-reach-states: metaworld==3.1.1 (installed: 3.0.0); "
        "run: pip install 'metaworld==3.1.1'"
    )
    install(mujoco="4.0.0", numpy="2.4.6")
    assert check("suites").detail == (
        f"{', '.join(SUITES)}: mujoco==3.3.0 (installed: 4.0.0), numpy<2.4 (installed: 2.4.6); "
        "run: pip install 'mujoco==3.3.0' 'numpy<2.4'"
    )
