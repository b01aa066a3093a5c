"""One run directory as results see it: its identity, its evaluations, and what is wrong with its files.

Reads only. A run counts when it is DONE and every line of its eval.jsonl is what its protocol asks for;
anything else becomes a `Problem` that names the file, never a number.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from urlbench.identity import canonical_json, config_hash
from urlbench.plan import run_path
from urlbench.store import RunDirectory, Status
from urlbench.types import JobSpec, Spec

ProblemKind = Literal[
    "missing",
    "unfinished",
    "failed",
    "unreadable",
    "truncated",
    "nan",
    "hash",
    "frames",
    "episodes",
    "duplicate",
    "misplaced",
    "preset",
    "protocol",
    "versions",
]
CONFLICTS: frozenset[ProblemKind] = frozenset({"duplicate", "misplaced", "preset", "protocol", "versions"})


class Problem(Spec):
    """One reason why results cannot be used as they are.

    Attributes:
        kind: what is wrong.
        agent: label of the agent, task and seed name the cell, where there is one.
        path: the run directory or file, relative to the runs root.
        message: one sentence for people; names the cell or the file.
        command: the command that fills the cell, after what `message` says was done.
    """

    kind: ProblemKind
    message: str
    agent: str | None = None
    task: str | None = None
    seed: int | None = None
    path: str | None = None
    command: str | None = None

    @property
    def is_conflict(self) -> bool:
        """True if runs contradict each other: no partial report can be made, either."""
        return self.kind in CONFLICTS

    def __str__(self) -> str:
        return self.message + (f"\n    {self.command}" if self.command else "")


@dataclass(frozen=True)
class Evaluation:
    """One line of eval.jsonl.

    Attributes:
        frame: fine-tuning frames before the evaluation.
        returns: undiscounted return of each episode.
    """

    frame: int
    returns: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean return over the episodes."""
        return float(np.mean(self.returns))


@dataclass(frozen=True)
class RunRecord:
    """One run directory.

    Attributes:
        path: relative to the runs root, with forward slashes.
        config_hash: first 8 hex digits of the SHA-256 of the agent's resolved configuration.
        status: its state is `done` only if the DONE file is there.
        finished: when the run ended, ISO 8601 in UTC as DONE says it; empty if it did not.
        evaluations: ascending in frames; empty unless done and without fault.
        faults: (kind, sentence) for each thing wrong with the files.
    """

    path: str
    id: str
    spec: JobSpec
    config_hash: str
    plugins: tuple[str, ...]
    status: Status
    finished: str
    manifest: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    faults: tuple[tuple[ProblemKind, str], ...]

    @property
    def usable(self) -> bool:
        """True if the run ended and nothing is wrong with its files."""
        return self.status.state == "done" and not self.faults

    @property
    def expected_path(self) -> str:
        """Where a run of this spec belongs, relative to the runs root."""
        return run_path(self.spec)


def read_run(root: Path, directory: RunDirectory) -> RunRecord | Problem:
    """The run in `directory`; a Problem if its spec.json cannot be read, for then nobody knows what it is."""
    path = directory.path.relative_to(root).as_posix()
    try:
        stored = json.loads(directory.spec_file.read_text(encoding="utf-8"))
        spec, run_id = JobSpec.model_validate(stored["spec"]), str(stored["id"])
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Problem(
            kind="unreadable",
            path=f"{path}/spec.json",
            message=f"{path}/spec.json cannot be read ({type(error).__name__}: {reason}); "
            "restore the file or remove the folder.",
        )
    faults: list[tuple[ProblemKind, str]] = []
    if hashlib.sha256(canonical_json(stored["spec"]).encode()).hexdigest()[:16] != run_id:
        faults.append(("hash", f"{path}/spec.json was changed: its hash is not its id {run_id}"))
    manifest = _read_object(directory.manifest_file, path, faults)
    done = _read_object(directory.done_file, path, faults)
    status = directory.read_status()
    assert status is not None, f"{path} has a spec.json"
    evaluations: tuple[Evaluation, ...] = ()
    if status.state == "done" and spec.phase == "finetune":
        evaluations = _read_evaluations(directory.eval_file, f"{path}/eval.jsonl", spec, done, faults)
    return RunRecord(
        path=path,
        id=run_id,
        spec=spec,
        config_hash=config_hash(spec.agent_config),
        plugins=tuple(stored.get("plugins") or ()),
        status=status,
        finished=str(done.get("finished", "")),
        manifest=manifest,
        evaluations=evaluations,
        faults=tuple(faults),
    )


def _read_object(file: Path, path: str, faults: list[tuple[ProblemKind, str]]) -> dict[str, Any]:
    name = file.name
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        faults.append(("unreadable", f"{path}/{name} cannot be read ({type(error).__name__}: {error})"))
        return {}
    if not isinstance(value, dict):
        faults.append(("unreadable", f"{path}/{name} does not hold a JSON object"))
        return {}
    return value


def _read_evaluations(
    file: Path, name: str, spec: JobSpec, done: Mapping[str, Any], faults: list[tuple[ProblemKind, str]]
) -> tuple[Evaluation, ...]:
    """The evaluations of a finished fine-tuning; adds to `faults` and returns nothing if any line is wrong."""
    try:
        content = file.read_bytes()
    except OSError as error:
        faults.append(("unreadable", f"{name} cannot be read ({type(error).__name__})"))
        return ()
    before = len(faults)
    evaluations = []
    lines = content.split(b"\n")
    if lines[-1]:
        faults.append(("truncated", f"{name} is truncated: line {len(lines)} has no end"))
    for number, line in enumerate(lines[:-1], start=1):
        evaluation = _parse_evaluation(line)
        if evaluation is None:
            faults.append(("truncated", f"{name} line {number} is damaged: not an evaluation in JSON"))
            continue
        if not all(math.isfinite(value) for value in evaluation.returns):
            faults.append(("nan", f"{name} line {number} (frame {evaluation.frame}) holds a return that is not finite"))
        if len(evaluation.returns) != spec.protocol.eval_episodes:
            faults.append(
                (
                    "episodes",
                    f"{name} line {number} (frame {evaluation.frame}) has {len(evaluation.returns)} episodes, "
                    f"the protocol asks for {spec.protocol.eval_episodes}",
                )
            )
        evaluations.append(evaluation)
    if len(faults) == before:
        faults.extend(_frame_faults(name, spec, [evaluation.frame for evaluation in evaluations]))
    if len(faults) == before and done.get("sha256") != hashlib.sha256(content).hexdigest():
        faults.append(("hash", f"{name} was changed after the run ended: its SHA-256 is not the one in DONE"))
    return tuple(evaluations) if len(faults) == before else ()


def _parse_evaluation(line: bytes) -> Evaluation | None:
    try:
        row = json.loads(line)
        return Evaluation(int(row["frame"]), tuple(float(value) for value in row["returns"]))
    except (ValueError, KeyError, TypeError):
        return None


def _frame_faults(name: str, spec: JobSpec, frames: list[int]) -> Iterator[tuple[ProblemKind, str]]:
    protocol = spec.protocol
    if any(later <= earlier for earlier, later in itertools.pairwise(frames)):
        yield "frames", f"{name} holds the frames {frames}: each must come once, ascending"
        return
    if not frames or frames[-1] != protocol.finetune_frames:
        last = f"ends at frame {frames[-1]}" if frames else "is empty"
        yield "frames", f"{name} {last}, the final evaluation belongs at frame {protocol.finetune_frames}"
        return
    due = range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames)
    absent = sorted(set(due) - set(frames))
    if absent:
        yield "frames", f"{name} lacks the evaluations at frames {', '.join(map(str, absent))}"
