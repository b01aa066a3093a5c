"""The copy of the package that jobs run; test_slurm_element.py has a run with it."""

import json
import shutil
import sys
from pathlib import Path

import pytest

import urlbench
from urlbench.core.errors import UserError
from urlbench.runs.manifest import SNAPSHOT_FILE, collect_manifest, git_state
from urlbench.slurm import code_snapshot
from urlbench.slurm.code_snapshot import take_snapshot


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but compiled ones, by its path."""
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small package in place of the one that is running."""
    folder = tmp_path / "checkout" / "urlbench"
    (folder / "agents" / "__pycache__").mkdir(parents=True)
    (folder / "__init__.py").write_text("__version__ = 'small'\n")
    (folder / "agents" / "toy.py").write_text("A = 1\n")
    (folder / "agents" / "table.csv").write_text("a,b\n")
    (folder / "agents" / "__pycache__" / "toy.cpython-311.pyc").write_bytes(b"old")
    monkeypatch.setattr(urlbench, "__file__", str(folder / "__init__.py"))
    return folder


def test_the_copy_is_the_package_compiled_and_reused(package: Path, tmp_path: Path) -> None:
    copies = tmp_path / "my copies"
    target, digest = take_snapshot(copies)
    assert target == copies / digest[:16]
    assert contents(target / "urlbench") == contents(package)
    assert {file.name.partition(".")[0] for file in target.rglob("*.pyc")} == {"__init__", "toy"}
    description = json.loads((target / SNAPSHOT_FILE).read_text())
    assert description == {"sha256": digest, "git": git_state(), "source": str(package), "python": sys.executable}
    before = (target / SNAPSHOT_FILE).stat()
    assert take_snapshot(copies) == (target, digest)
    assert (target / SNAPSHOT_FILE).stat() == before
    assert list(copies.iterdir()) == [target]


def change(package: Path) -> None:
    (package / "agents" / "toy.py").write_text("A = 2\n")


def rename(package: Path) -> None:
    (package / "agents" / "toy.py").rename(package / "agents" / "top.py")


def add(package: Path) -> None:
    (package / "empty.py").touch()


def move_between_files(package: Path) -> None:
    (package / "agents" / "table.csv").write_text("a,")
    (package / "agents" / "toy.py").write_text("b\nA = 1\n")


@pytest.mark.parametrize("edit", [change, rename, add, move_between_files])
def test_changed_code_is_another_copy_and_the_old_one_stays(package: Path, tmp_path: Path, edit: object) -> None:
    first, first_digest = take_snapshot(tmp_path / "copies")
    old = contents(first)
    assert callable(edit)
    edit(package)
    second, second_digest = take_snapshot(tmp_path / "copies")
    assert second != first
    assert second_digest != first_digest
    assert contents(second / "urlbench") == contents(package)
    assert contents(first) == old


def test_compiled_files_are_no_change(package: Path, tmp_path: Path) -> None:
    _, digest = take_snapshot(tmp_path / "copies")
    (package / "agents" / "__pycache__" / "toy.cpython-311.pyc").write_bytes(b"new")
    assert take_snapshot(tmp_path / "copies")[1] == digest


@pytest.mark.parametrize("step", ["copyfile", "rename"])
def test_a_copy_that_was_cut_short_does_no_harm(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shutil if step == "copyfile" else Path, step, killed)
        with pytest.raises(Killed):
            take_snapshot(tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()), "something half-written is there"
    (package / "more.py").touch()
    target, _ = take_snapshot(tmp_path / "copies")
    assert contents(target / "urlbench") == contents(package)
    assert list((tmp_path / "copies").iterdir()) == [target]


def test_a_package_that_changes_while_it_is_copied_is_refused(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def copy_after_a_change(source: Path, target: Path) -> None:
        (package / "agents" / "toy.py").write_text("A = 3\n")
        copyfile(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_after_a_change)
        with pytest.raises(UserError, match=f"{package} was changed while it was copied for the jobs; run the same"):
            take_snapshot(tmp_path / "copies")
    target, _ = take_snapshot(tmp_path / "copies")
    assert contents(target / "urlbench")["agents/toy.py"] == b"A = 3\n"


def test_a_copy_that_was_edited_is_refused(package: Path, tmp_path: Path) -> None:
    target, _ = take_snapshot(tmp_path / "copies")
    (target / "urlbench" / "agents" / "toy.py").write_text("A = 4\n")
    with pytest.raises(UserError, match=f"{target} is not the copy of urlbench any more that it was; remove it"):
        take_snapshot(tmp_path / "copies")


def test_a_full_disk_is_told_and_leaves_nothing(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(
        UserError, match="cannot be written: the disk is full; make room and run the same command again"
    ):
        take_snapshot(tmp_path / "copies")
    assert list((tmp_path / "copies").iterdir()) == []


def test_the_git_state_is_that_of_the_original(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {"commit": "c" * 40, "dirty": True}
    with monkeypatch.context() as patch:
        patch.setattr(code_snapshot, "git_state", lambda: state)
        target, digest = take_snapshot(tmp_path / "copies")
    monkeypatch.setattr(urlbench, "__file__", str(target / "urlbench" / "__init__.py"))
    manifest = collect_manifest(device="cpu", threads=1, parent=None)
    assert (manifest["git"], manifest["code_snapshot"]) == (state, digest)
    assert take_snapshot(tmp_path / "copies") == (target, digest), "submitted by a job, it is the same code"
