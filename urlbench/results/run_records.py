"""One run directory as results see it: its identity, what it measured, and what is wrong with its files.

Reads only. A run counts when it is DONE and every line of its eval.jsonl is what its protocol asks for;
anything else becomes a `Problem` that names the file, never a number.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json, config_hash
from urlbench.core.jobs import JobSpec
from urlbench.results.measurements import Evaluation, GoalSearch, read_evaluations, read_searches
from urlbench.results.problems import Fault, Problem, ProblemKind
from urlbench.runs.plan import run_path
from urlbench.runs.store import OtherVersionError, RunDirectory, Status


@dataclass(frozen=True)
class RunRecord:
    """One run directory.

    Attributes:
        path: relative to the runs root, with forward slashes.
        config_hash: first 8 hex digits of the SHA-256 of the agent's resolved configuration.
        status: its state is `done` only if the DONE file is there.
        finished: when the run ended, ISO 8601 in UTC as DONE says it; empty if it did not.
        data_path: folder of the data set that was pretrained on; None online and for what starts from a pretraining.
        evaluations: of a fine-tuning, ascending in frames; empty unless done and without fault.
        searches: of a search for goals, by goal; empty unless done and without fault.
        faults: (kind, sentence) for each thing wrong with the files.
    """

    path: str
    id: str
    spec: JobSpec
    config_hash: str
    plugins: tuple[str, ...]
    data_path: str | None
    status: Status
    finished: str
    manifest: Mapping[str, Any]
    evaluations: tuple[Evaluation, ...]
    searches: tuple[GoalSearch, ...]
    faults: tuple[Fault, ...]

    @property
    def usable(self) -> bool:
        """True if the run ended and nothing is wrong with its files."""
        return self.status.state == "done" and not self.faults

    def evaluation_at(self, frame: int) -> Evaluation:
        """The evaluation after `frame` fine-tuning frames, which the protocol must ask for."""
        (found,) = [evaluation for evaluation in self.evaluations if evaluation.frame == frame]
        return found

    @property
    def goals_found(self) -> int:
        """Number of goals that at least one episode found."""
        return sum(any(search.found) for search in self.searches)

    @property
    def episodes_found(self) -> int:
        """Number of episodes, over all goals, that found theirs."""
        return sum(sum(search.found) for search in self.searches)

    @property
    def n_episodes(self) -> int:
        """Number of episodes, over all goals."""
        return sum(len(search.found) for search in self.searches)

    @property
    def expected_path(self) -> str:
        """Where a run of this spec belongs, relative to the runs root."""
        return run_path(self.spec)


def read_run(root: Path, directory: RunDirectory) -> RunRecord | Problem:
    """The run in `directory`; a Problem if its spec.json cannot be read, for then nobody knows what it is."""
    path = directory.path.relative_to(root).as_posix()
    try:
        stored = directory.read_spec()
        spec, run_id = JobSpec.model_validate(stored["spec"]), str(stored["id"])
    except UserError as error:
        message = str(error).replace(str(directory.path), path)
        kind: ProblemKind = "versions" if isinstance(error, OtherVersionError) else "unreadable"
        return Problem(kind=kind, path=f"{path}/spec.json", message=message)
    except (TypeError, ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Problem(
            kind="unreadable",
            path=f"{path}/spec.json",
            message=f"{path}/spec.json cannot be read ({type(error).__name__}: {reason}); "
            "restore the file or remove the folder.",
        )
    faults: list[Fault] = []
    if hashlib.sha256(canonical_json(stored["spec"]).encode()).hexdigest()[:16] != run_id:
        faults.append(("hash", f"{path}/spec.json was changed: its hash is not its id {run_id}"))
    manifest = _read_object(directory.manifest_file, path, faults)
    done = _read_object(directory.done_file, path, faults)
    status = directory.read_status()
    assert status is not None, f"{path} has a spec.json"
    evaluations: list[Evaluation] = []
    searches: list[GoalSearch] = []
    if status.state == "done" and spec.phase != "pretrain":
        evaluations, searches = _read_measurement(directory.eval_file, f"{path}/eval.jsonl", spec, done, faults)
    return RunRecord(
        path=path,
        id=run_id,
        spec=spec,
        config_hash=config_hash(spec.agent_config),
        plugins=tuple(stored.get("plugins") or ()),
        data_path=stored.get("data_path"),
        status=status,
        finished=str(done.get("finished", "")),
        manifest=manifest,
        evaluations=tuple(evaluations),
        searches=tuple(searches),
        faults=tuple(faults),
    )


def _read_object(file: Path, path: str, faults: list[Fault]) -> dict[str, Any]:
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


def _read_measurement(
    file: Path, name: str, spec: JobSpec, done: Mapping[str, Any], faults: list[Fault]
) -> tuple[list[Evaluation], list[GoalSearch]]:
    """What a run that is done has measured; adds to `faults` and returns nothing if any line is wrong."""
    evaluations: list[Evaluation] = []
    searches: list[GoalSearch] = []
    try:
        content = file.read_bytes()
    except OSError as error:
        faults.append(("unreadable", f"{name} cannot be read ({type(error).__name__})"))
        return evaluations, searches
    if spec.protocol.search is None:
        evaluations, found = read_evaluations(content, name, spec, done.get("sha256"))
    else:
        searches, found = read_searches(content, name, spec, done.get("sha256"))
    faults.extend(found)
    return evaluations, searches
