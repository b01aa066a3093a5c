"""Files that survive a kill, a power cut and a full disk: whole, or as they were before."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urlbench.core.errors import UserError

_CONTINUE = "continue with --rerun failed"


def explained(error: OSError, path: Path, remedy: str = _CONTINUE) -> UserError:
    """One sentence about why `path` cannot be written, with what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"{path} cannot be written: the disk is full; make room and {remedy}.")
    reason = error.strerror or str(error)
    return UserError(f"{path} cannot be written: {reason}; make it writable and {remedy}.")


def write_atomic(path: Path, content: bytes | memoryview | str, *, remedy: str = _CONTINUE) -> None:
    """Replace `path` by `content` so that a reader, or a power cut, sees the old file or the new one.

    Args:
        path: the file.
        content: of it.
        remedy: what to do once there is room, for the error.

    Raises:
        UserError: if the disk is full or the folder cannot be written; `path` is then as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        # Without syncing the folder, too, a power cut may take the name away again.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        _forget(temporary)
        raise explained(error, path, remedy) from error


def remove_temporaries(folder: Path) -> None:
    """Delete what killed processes left half-written; only for the holder of the run's lock."""
    for temporary in folder.glob(".*.tmp"):
        _forget(temporary)


def _forget(path: Path) -> None:
    # On a disk that went away, the error to report is the first one, not this one.
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"{path} is left behind: {error}")


def append_jsonl(path: Path, row: Mapping[str, Any]) -> None:
    """Add one line of JSON and sync it; NaN is refused with a ValueError.

    Raises:
        UserError: if the disk is full or the file cannot be written.
    """
    line = json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        with path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise explained(error, path) from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; empty if there is none.

    Raises:
        UserError: naming file and line, if a line is damaged or the last one has no end.
    """
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("the line has no end")
            rows.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path} line {number} is damaged ({error}); restore it or remove the run.") from error
    return rows
