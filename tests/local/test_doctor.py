"""What the doctor says of a machine that can, or cannot, render."""

import signal
import subprocess
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from graphics import needs_renderer

from urlbench import __version__
from urlbench.local import doctor


def rendering_check() -> doctor.Check:
    return doctor._CHECKS["rendering"]("rendering", Path("runs"))


@needs_renderer
def test_the_renderer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check = rendering_check()
    assert check.result == "ok"
    assert "in software" in check.detail


@pytest.mark.parametrize(
    ("code", "error", "detail"),
    [
        (1, "libEGL warning: no screen\nnothing here can render; as root: apt-get install", "nothing here can render"),
        (-signal.SIGSEGV, "", "drawing a picture ended with SIGSEGV; try MUJOCO_GL=osmesa or egl"),
    ],
)
def test_what_keeps_a_machine_from_rendering_is_only_a_warning(
    code: int, error: str, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, code, "", error)

    monkeypatch.setattr(subprocess, "run", run)
    check = rendering_check()
    assert check.result == "warning"
    assert check.detail.startswith(f"only suites from pixels need it: {detail}")


def installed_with(python: str, *needed: str) -> Message:
    """Metadata of a urlbench that needs these."""
    found = Message()
    found["Requires-Python"] = python
    for line in needed:
        found["Requires-Dist"] = line
    return found


def check(name: str) -> doctor.Check:
    return doctor._CHECKS[name](name, Path("runs"))


@pytest.mark.parametrize(("version", "result"), [("3.11.0", "ok"), ("3.12.7", "ok"), ("3.13.0", "failed")])
def test_the_python_is_one_that_the_package_allows(version: str, result: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_own_metadata", lambda: installed_with(">=3.11,<3.13"))
    monkeypatch.setattr("platform.python_version", lambda: version)
    assert check("python").result == result
    wrong = "; install urlbench with a Python <3.13,>=3.11" if result == "failed" else ""
    assert check("python").detail == f"{version}, urlbench {__version__}{wrong}"


def test_packages_that_are_too_old_or_too_new_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ("numpy>=2.0,<2.4", "rich>=13.8", 'wandb; extra == "wandb"', 'tomli>=2; python_version < "3.11"')
    versions = {"numpy": "2.4.6", "rich": "15.0.0"}
    monkeypatch.setattr(doctor, "_own_metadata", lambda: installed_with(">=3.11", *needed))
    monkeypatch.setattr(metadata, "version", lambda package: versions[package])
    assert check("packages").result == "failed"
    assert check("packages").detail == (
        "urlbench needs numpy<2.4,>=2.0 (installed: 2.4.6); run: pip install 'numpy<2.4,>=2.0'"
    )
    versions["numpy"] = "2.3.0"
    assert (check("packages").result, "numpy 2.3.0 (tried with 2." in check("packages").detail) == ("warning", True)
    monkeypatch.setattr(doctor, "_pins", lambda constraints: {})
    assert str(check("packages")) == "ok       packages: 2 packages as urlbench needs them"
