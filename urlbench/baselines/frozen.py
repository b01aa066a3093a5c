"""Frozen baselines: finished results in one file that needs nothing else, with everything that identifies them.

The file is canonical JSON and holds the SHA-256 of its own content, so that a changed number is noticed. Nothing in it
comes from a clock: the same command on the same runs gives the same bytes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat, ValidationError

from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json
from urlbench.core.types import Normaliser, Protocol, Spec
from urlbench.results.cells import Results
from urlbench.results.run_records import RunRecord
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.search_scores import fraction_found
from urlbench.results.validation import Commands


class FrozenRun(Spec):
    """What one run measured.

    Attributes:
        run_id: None for results of other code, which have no run directory.
        eval_sha256: of the run's eval.jsonl; None for results of other code.
        finished: when the run ended, as it recorded it; empty if it is not known.
        environment: its place in `Frozen.environments`; None if it is not known.
        frames: fine-tuning frames before each evaluation, ascending; empty in a search for goals.
        returns: mean return of each evaluation; the last one is the score.
        goals_found: goals that at least one episode found; None for fine-tunings.
        goals: that were looked for.
        episodes_found: episodes that found their goal; None for fine-tunings and where it is not known.
    """

    task: str
    seed: int
    goal_set: int | None = None
    run_id: str | None = None
    eval_sha256: str | None = None
    finished: str = ""
    environment: int | None = None
    frames: tuple[int, ...] = ()
    returns: tuple[FiniteFloat, ...] = ()
    goals_found: int | None = None
    goals: int | None = None
    episodes_found: int | None = None
    episodes: int | None = None


class FrozenAgent(Spec):
    """The runs of one agent in one configuration.

    Attributes:
        label: its name, or `name-config8` where several configurations were frozen together.
        config_hash: empty for results of other code.
        config: the resolved configuration; None for results of other code.
        snapshot: of the pretraining, in the protocol's unit, that the runs started from; 0 without pretraining.
        data: fingerprint of the data set that was pretrained on, by domain; empty online.
        versions: of the packages that are part of a result's identity; empty where they are not known.
        command: makes the runs again; empty for results of other code.
    """

    label: str
    name: str
    config_hash: str = ""
    config: dict[str, Any] | None = None
    snapshot: int
    data: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    versions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    command: str = ""
    runs: tuple[FrozenRun, ...] = Field(min_length=1)


class Environment(Spec):
    """What runs were made with: versions, code and machine, as their manifests say."""

    urlbench: str | None = None
    python: str | None = None
    packages: dict[str, str] = Field(default_factory=dict)
    git: dict[str, Any] | None = None
    hardware: dict[str, Any] | None = None


class Frozen(Spec):
    """A frozen baseline.

    Attributes:
        name: what it is called after `baseline:`.
        kind: `runs` of urlbench, or `foreign` results of other code.
        suite: `name@version`.
        protocol: the budgets, whole.
        domains: the domain of each task, in the suite's order.
        normaliser: what returns are divided by; None for fractions of goals found.
        origin: of results of other code: the file that was imported and how its columns were read.
    """

    format: Literal[1] = 1
    name: str
    kind: Literal["runs", "foreign"]
    suite: str
    protocol: Protocol
    domains: dict[str, str]
    tasks: tuple[str, ...]
    normaliser: Normaliser | None
    origin: dict[str, Any] = Field(default_factory=dict)
    environments: tuple[Environment, ...] = ()
    agents: tuple[FrozenAgent, ...] = Field(min_length=1)

    @property
    def preset(self) -> str:
        """The preset of all runs."""
        return self.protocol.preset

    def matrix(self, agent: FrozenAgent) -> ScoreMatrix:
        """The final scores of one of the agents.

        It is called `name/label`, so that neither tables nor random streams take it for runs of the same agent
        elsewhere.
        """
        seeds = sorted({run.seed for run in agent.runs})
        runs: dict[tuple[int, str], list[FrozenRun]] = defaultdict(list)
        for run in agent.runs:
            runs[run.seed, run.task].append(run)
        tasks = [task for task in self.tasks if any(run.task == task for run in agent.runs)]
        references = {} if self.normaliser is None else self.normaliser.references
        return ScoreMatrix(
            agent=f"{self.name}/{agent.label}",
            config_hash=agent.config_hash,
            suite=self.suite,
            preset=self.preset,
            tasks=tuple(tasks),
            domains=tuple(self.domains[task] for task in tasks),
            seeds=tuple(seeds),
            pretrains=agent.snapshot > 0,
            returns=np.array([[_score(runs[seed, task]) for task in tasks] for seed in seeds]),
            references=np.array([references.get(task, 1.0) for task in tasks]),
        )


def _score(runs: Sequence[FrozenRun]) -> float:
    """Of one seed on one task: the final return, or the fraction of the goals found, of all its goal sets together."""
    if runs[0].goals is None:
        (run,) = runs
        return run.returns[-1]
    return fraction_found([(run.goals_found or 0, run.goals or 0) for run in runs])


def freeze(results: Results, name: str) -> Frozen:
    """Everything of complete `results` in one record.

    Args:
        results: what to keep.
        name: what the baseline is to be called.

    Raises:
        IncompleteError: if anything is missing or wrong.
    """
    results.check()
    environments: list[Environment] = []
    commands = Commands(results, overrides=False)
    agents = []
    for agent in results.agents:
        runs = [run for cell in results.expected() if cell.agent == agent.label and (run := results.run(*cell))]
        agents.append(
            FrozenAgent(
                label=agent.label,
                name=agent.name,
                config_hash=agent.config_hash or "",
                config=runs[0].spec.agent_config,
                snapshot=results.snapshot if agent.pretrains else 0,
                data=_data(results, runs),
                versions=_versions(runs),
                command=commands.run(agent, results.tasks, results.seeds),
                runs=tuple(_freeze_run(results, run, environments) for run in runs),
            )
        )
    suite = results.suite
    return Frozen(
        name=name,
        kind="runs",
        suite=suite.full_name,
        protocol=suite.protocols[results.preset],
        domains={task: suite.task(task).domain for task in results.tasks},
        tasks=results.tasks,
        normaliser=suite.normaliser,
        environments=tuple(environments),
        agents=tuple(agents),
    )


def _freeze_run(results: Results, run: RunRecord, environments: list[Environment]) -> FrozenRun:
    content = (results.root / run.path / "eval.jsonl").read_bytes()
    environment = Environment(
        **{field: run.manifest.get(field) for field in ("urlbench", "python", "git", "hardware")},
        packages=run.manifest.get("packages") or {},
    )
    if environment not in environments:
        environments.append(environment)
    measured: dict[str, Any] = {
        "frames": [one.frame for one in run.evaluations],
        "returns": [one.mean for one in run.evaluations],
    }
    if run.searches:
        measured = {
            "goals_found": run.goals_found,
            "goals": len(run.searches),
            "episodes_found": run.episodes_found,
            "episodes": run.n_episodes,
        }
    return FrozenRun(
        task=run.spec.task,
        seed=run.spec.seed,
        goal_set=run.spec.goal_set,
        run_id=run.id,
        eval_sha256=hashlib.sha256(content).hexdigest(),
        finished=run.finished,
        environment=environments.index(environment),
        **measured,
    )


def _data(results: Results, runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    parents = {run.spec.parent for run in runs}
    found: dict[str, set[str]] = defaultdict(set)
    for run in results.pretrainings.values():
        if run.id in parents and run.spec.data is not None:
            found[run.spec.domain].add(run.spec.data)
    return {domain: tuple(sorted(prints)) for domain, prints in found.items()}


def _versions(runs: Sequence[RunRecord]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for package, version in run.spec.versions.items():
            found[package].add(version)
    return {package: tuple(sorted(versions)) for package, versions in found.items()}


def to_bytes(frozen: Frozen) -> bytes:
    """The file: canonical JSON with the SHA-256 of everything else in it."""
    content = frozen.model_dump(mode="json")
    return (canonical_json({**content, "sha256": _digest(content)}) + "\n").encode()


def from_bytes(data: bytes, where: str) -> Frozen:
    """The baseline in a file, checked.

    Args:
        data: content of the file.
        where: the file's name, for errors.

    Raises:
        UserError: if it is no frozen baseline, was changed, or does not agree with itself.
    """
    try:
        content = json.loads(data)
        stored = content.pop("sha256")
        frozen = Frozen.model_validate(content)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{where} is no baseline that this urlbench wrote ({reason}); freeze or import it again."
        ) from error
    if stored != _digest(frozen.model_dump(mode="json")) or data != to_bytes(frozen):
        raise UserError(f"{where} was changed after it was written: its SHA-256 is another; take it from its origin.")
    faults = _faults(frozen)
    if faults:
        raise UserError(f"{where} does not agree with itself: {faults[0]}; take it from its origin.")
    return frozen


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _faults(frozen: Frozen) -> list[str]:
    """What no freeze and no import writes, even if the hash was made to fit."""
    faults = []
    for agent in frozen.agents:
        cells = [(run.task, run.seed, run.goal_set) for run in agent.runs]
        if len(set(cells)) < len(cells):
            faults.append(f"{agent.label} has a cell twice")
        pairs = {(task, seed) for task, seed, _ in cells}
        if len(pairs) < len({task for task, _ in pairs}) * len({seed for _, seed in pairs}):
            faults.append(f"{agent.label} lacks cells of tasks x seeds")
        for run in agent.runs:
            whole = run.goals is not None and run.goals_found is not None and 0 <= run.goals_found <= run.goals
            if frozen.protocol.search is None:
                whole = len(run.returns) == len(run.frames) > 0 and run.frames[-1] == frozen.protocol.finetune_frames
            if not whole or run.task not in frozen.domains:
                faults.append(f"{agent.label} on {run.task}, seed {run.seed}, has no final score")
    return faults
