"""The scripts that install what tests need from the system, on made-up machines whose tools log their calls."""

import os
from pathlib import Path

import pytest
from processes import run_program

SCRIPTS = Path(__file__).parents[2] / "scripts"
PACKAGES = "libosmesa6 libegl1 libgl1-mesa-dri libopengl0"
ALL = "libOSMesa.so.8 libEGL.so.1 libOpenGL.so.0"


def install(
    folder: Path,
    script: str = "install_gl.sh",
    *,
    libraries: str = "",
    programs: tuple[str, ...] = (),
    user: int = 0,
    apt_get: str | None = "exit 0",
) -> tuple[str, list[str]]:
    """Run the script; what it says, and the calls of apt-get."""
    log = folder / "log"
    log.touch()
    tools = {"ldconfig": f"echo {libraries}", "id": f"echo {user}", **dict.fromkeys(programs, "exit 0")}
    if apt_get is not None:
        tools["apt-get"] = f'echo "$@" >> {log}; {apt_get}'
    for name, body in tools.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n")
        (folder / name).chmod(0o755)
    (folder / "bash").symlink_to("/bin/bash")
    done = run_program(
        ["/bin/bash", str(SCRIPTS / script)], env={**os.environ, "PATH": str(folder), "SBIN": ""}, check=True
    )
    return done.stdout + done.stderr, log.read_text().splitlines()


def test_nothing_is_done_where_nothing_is_missing(tmp_path: Path) -> None:
    assert install(tmp_path, libraries=ALL) == ("", [])


def test_root_gets_what_is_missing(tmp_path: Path) -> None:
    said, calls = install(tmp_path, libraries="libEGL.so.1 libOpenGL.so.0")
    assert said == f"Missing for rendering: libOSMesa.so. Running: apt-get install -y {PACKAGES}\n"
    assert calls == [f"install -y -qq {PACKAGES}"]


def test_lists_of_packages_are_fetched_if_they_have_to_be(tmp_path: Path) -> None:
    said, calls = install(tmp_path, libraries="", apt_get='[[ "$1" == update ]]')
    assert calls[:3] == [f"install -y -qq {PACKAGES}", "update -qq", f"install -y -qq {PACKAGES}"]
    assert said.endswith("That has failed, so tests that render are skipped.\n")


@pytest.mark.parametrize(("user", "apt_get"), [(1000, "exit 0"), (0, None)])
def test_others_are_told_what_to_run(tmp_path: Path, user: int, apt_get: str | None) -> None:
    said, calls = install(tmp_path, libraries="libEGL.so.1", user=user, apt_get=apt_get)
    assert calls == []
    assert said == (
        "Missing for rendering: libOSMesa.so libOpenGL.so.0. Tests that render are skipped; "
        f"as root on Debian or Ubuntu: apt-get install -y {PACKAGES}\n"
    )


PROGRAMS = {
    "install_chromium.sh": (
        ("chromium", "chromedriver"),
        "Missing for opening pages: {}. Tests that open a page are skipped",
        "chromium chromium-driver",
    ),
    "install_slurm.sh": (
        ("munged", "slurmctld", "slurmd", "sbatch"),
        "Missing for Slurm: {}. Tests that need a cluster are skipped",
        "--no-install-recommends slurmctld slurmd slurm-client munge",
    ),
    "install_tex.sh": (
        ("pdflatex",),
        "Missing for LaTeX: {}. Tests that compile LaTeX are skipped",
        "texlive-latex-base texlive-latex-recommended",
    ),
}


@pytest.mark.parametrize("script", PROGRAMS)
def test_programs_that_are_there_are_left_alone(tmp_path: Path, script: str) -> None:
    assert install(tmp_path, script, programs=PROGRAMS[script][0]) == ("", [])


@pytest.mark.parametrize("script", PROGRAMS)
def test_root_gets_programs_that_are_missing(tmp_path: Path, script: str) -> None:
    programs, _, packages = PROGRAMS[script]
    _, calls = install(tmp_path, script, programs=programs[1:])
    assert calls == [f"install -y -qq {packages}"]


@pytest.mark.parametrize("script", PROGRAMS)
def test_others_are_told_how_to_get_programs(tmp_path: Path, script: str) -> None:
    programs, said, packages = PROGRAMS[script]
    assert install(tmp_path, script, user=1000) == (
        f"{said.format(' '.join(programs))}; as root on Debian or Ubuntu: apt-get install -y {packages}\n",
        [],
    )
