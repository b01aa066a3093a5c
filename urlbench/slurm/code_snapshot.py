"""The copy of urlbench that submitted jobs run, so that changes to the code reach only what is submitted later."""

import compileall
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import urlbench
from urlbench.core.durable import explained
from urlbench.core.errors import UserError
from urlbench.runs.manifest import SNAPSHOT_FILE, git_state

_REMEDY = "run the same command again"


def take_snapshot(folder: Path) -> tuple[Path, str]:
    """Copy the package that is running to `folder`, or find the copy that is there; one process at a time.

    Args:
        folder: of all copies; each is called by its digest.

    Returns:
        The folder that PYTHONPATH has to name, and the digest: SHA-256 over the names and contents of all files.

    Raises:
        UserError: if it cannot be written, if the package is changed meanwhile, or if the copy was changed.
    """
    package = Path(urlbench.__file__).parent
    digest = _digest(package)
    target = folder / digest[:16]
    if (target / SNAPSHOT_FILE).exists():
        if _digest(target / package.name) != digest:
            raise UserError(f"{target} is not the copy of urlbench any more that it was; remove it, then {_REMEDY}")
        return target, digest
    temporary = folder / f".{digest[:16]}.tmp"
    try:
        for left in folder.glob(".*.tmp"):  # by a command that was killed
            shutil.rmtree(left)
        for file in _files(package):
            copy = temporary / package.name / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if _digest(temporary / package.name) != digest:
            raise UserError(f"{package} was changed while it was copied for the jobs; {_REMEDY}")
        # Many jobs start at once, and none of them should have to compile.
        compileall.compile_dir(temporary, quiet=2, stripdir=temporary, prependdir=target)
        description = {"sha256": digest, "git": git_state(), "source": str(package), "python": sys.executable}
        (temporary / SNAPSHOT_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        temporary.rename(target)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise explained(error, target, _REMEDY) from error
    return target, digest


def _digest(package: Path) -> str:
    total = hashlib.sha256()
    for file in _files(package):
        content = file.read_bytes()
        total.update(f"{file.relative_to(package).as_posix()}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


def _files(package: Path) -> Iterator[Path]:
    """Every file of the package but compiled ones, sorted."""
    yield from sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
