"""What a process may use of its machine."""

import os
from pathlib import Path

import pytest

from urlbench.core.machine import visible_gpus


@pytest.mark.parametrize(("value", "gpus"), [("", ()), ("-1", ()), ("0", ("0",)), ("1, GPU-abc", ("1", "GPU-abc"))])
def test_visible_gpus_respects_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str, gpus: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == gpus


def test_visible_gpus_asks_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: One (UUID: a)'\necho 'GPU 1: Two (UUID: b)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert visible_gpus() == ("0", "1")
