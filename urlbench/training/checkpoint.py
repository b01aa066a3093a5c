"""Checkpoints to continue a run, and snapshots to start another from: state dicts with a hash beside them.

Files hold tensors and plain values only and are read with `weights_only=True`. The sidecar with size and SHA-256
is written before the file gets its name, so a file with its name is complete.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from urlbench.core.durable import explained, remove_temporaries, write_atomic
from urlbench.core.errors import UserError
from urlbench.core.identity import config_hash, job_id
from urlbench.core.jobs import JobSpec
from urlbench.core.types import ObservationKind, Spec

KEPT_CHECKPOINTS = 2
_PREFIX = "checkpoint_"


class SnapshotHeader(Spec):
    """What a snapshot is a snapshot of.

    Attributes:
        config: first 8 hex digits of the agent configuration's hash.
        frames: the budget it was kept for; the first episode end at or after it.
        job: id of the job that wrote it; None in snapshots from before it was recorded.
    """

    suite: str
    observation: ObservationKind
    domain: str
    agent: str
    config: str
    seed: int
    frames: int
    job: str | None = None

    @classmethod
    def of(cls, spec: JobSpec, frames: int) -> "SnapshotHeader":
        """The header of a snapshot that a job of `spec` writes or starts from."""
        return cls(
            suite=spec.suite,
            observation=spec.observation,
            domain=spec.domain,
            agent=spec.agent,
            config=config_hash(spec.agent_config),
            seed=spec.seed,
            frames=frames,
            job=job_id(spec),
        )


def _save(path: Path, value: dict[str, Any], header: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    # Now, and not when a run wants to go on from what its whole pretraining left.
    if foreign := torch.serialization.get_unsafe_globals_in_checkpoint(buffer):
        raise UserError(
            f"{path} cannot be written: the agent's state needs {', '.join(sorted(foreign))} to be read again; "
            "let state_dict return nothing but tensors and plain values."
        )
    content = buffer.getbuffer()
    sidecar = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **header}
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise explained(error, path.parent) from error
    write_atomic(path.with_suffix(".json"), json.dumps(sidecar) + "\n")
    write_atomic(path, content)


def _load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content and sidecar of a file; UserError with the reason if they do not fit."""
    try:
        sidecar = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sidecar["sha256"]:
            raise ValueError("its SHA-256 is not the one recorded when it was written")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error})") from error
    value: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return value, sidecar


# --- Checkpoints ---


def save_checkpoint(folder: Path, progress: int, state: dict[str, Any], *, updates: int = 0) -> None:
    """Write a checkpoint and delete all but the two newest.

    Args:
        folder: where they are.
        progress: of the run, in frames or updates.
        state: what is written.
        updates: made since the run came to this frame; many of them may take long.

    Raises:
        UserError: if the disk is full or the folder cannot be written; older checkpoints are then still there.
    """
    part = f"_{updates:010d}" if updates else ""
    _save(folder / f"{_PREFIX}{progress:010d}{part}.pt", state, {"progress": progress, "updates": updates})
    for path in _checkpoints(folder)[KEPT_CHECKPOINTS:]:
        _delete(path)


def load_latest(
    folder: Path, accept: Callable[[dict[str, Any]], None] | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that is intact, and sentences about newer ones that are not; these are deleted.

    Args:
        folder: where they are; need not exist.
        accept: raises UserError, with the reason, for a checkpoint that does not go with the run's other files.

    Returns:
        The state, None if there never was a checkpoint, and the messages.

    Raises:
        UserError: if there are checkpoints and none is usable.
    """
    if not folder.exists():
        return None, []
    remove_temporaries(folder)
    for sidecar in folder.glob(f"{_PREFIX}*.json"):
        if not sidecar.with_suffix(".pt").exists():
            sidecar.unlink()  # a process was killed between the two files, when it wrote or deleted them
    paths, problems = _checkpoints(folder), []
    for path in paths:
        try:
            state, _ = _load(path)
            if accept is not None:
                accept(state)
        except UserError as error:
            problems.append(str(error).rstrip("."))
            continue
        for unusable in paths[: len(problems)]:
            _delete(unusable)
        return state, [f"{problem}; falling back to {path.name}." for problem in problems]
    if problems:
        raise UserError(
            f"no checkpoint in {folder} can be used: {'; '.join(problems)}; "
            f"restore the file, or remove {folder.parent} to start this run again from nothing."
        )
    return None, []


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    return sorted(folder.glob(f"{_PREFIX}*.pt"), reverse=True)


def _delete(path: Path) -> None:
    path.unlink()
    path.with_suffix(".json").unlink(missing_ok=True)


# --- Snapshots ---


def snapshot_path(run: Path, frames: int | None) -> Path:
    """Where a run keeps the agent of that budget; None for a fine-tuning's final agent."""
    return run / "snapshots" / ("final.pt" if frames is None else f"snapshot_{frames}.pt")


def save_snapshot(path: Path, header: SnapshotHeader, state: dict[str, Any]) -> None:
    """Write an agent's state with what it is; UserError if that is impossible."""
    _save(path, {"agent": state}, {"header": header.model_dump(mode="json")})


def snapshot_digest(path: Path) -> str:
    """The SHA-256 recorded for a snapshot."""
    digest: str = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sha256"]
    return digest


def load_snapshot(path: Path, expected: SnapshotHeader) -> dict[str, Any]:
    """The agent's state from a snapshot that is exactly the expected one.

    Raises:
        UserError: if the file is missing, damaged, or a snapshot of something else; nothing takes its place.
    """
    remedy = f"restore the file, or move the folder {path.parent.parent} away to pretrain anew"
    if not path.exists():
        raise UserError(f"the snapshot {path} does not exist; {remedy}.")
    try:
        state, sidecar = _load(path)
    except UserError as error:
        raise UserError(f"the snapshot {error}; {remedy}.") from error
    try:
        header = SnapshotHeader.model_validate(sidecar["header"])
    except (KeyError, ValidationError) as error:
        raise UserError(f"{path.with_suffix('.json')} does not describe a snapshot; {remedy}.") from error
    if differing := list(_differing(header, expected)):
        raise UserError(f"the snapshot {path} is another one, its {', '.join(differing)}; {remedy}.")
    agent: dict[str, Any] = state["agent"]
    return agent


def _differing(actual: SnapshotHeader, expected: SnapshotHeader) -> Iterator[str]:
    wanted = expected.model_dump()
    for name, value in actual.model_dump(exclude_none=True).items():
        if value != wanted[name]:
            yield f"{name} is {value!r} and should be {wanted[name]!r}"
