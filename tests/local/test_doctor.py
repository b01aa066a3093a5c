"""What the doctor says of a machine that can, or cannot, render."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from graphics import needs_renderer

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
