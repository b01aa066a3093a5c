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
from urlbench.core.types import Normaliser, Protocol, Score, Spec
from urlbench.results.cells import Results
from urlbench.results.commands import Commands
from urlbench.results.measurements import LISTS
from urlbench.results.run_records import RunRecord
from urlbench.results.score_kinds import ScoreKind, fraction_found, kind_of, scale_of
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.validation import check


class FrozenRun(Spec):
    """What one run measured.

    Attributes:
        run_id: None for results of other code, which have no run directory.
        eval_sha256: of the run's eval.jsonl; None for results of other code.
        finished: when the run ended, as it recorded it; empty if it is not known.
        environment: its place in `Frozen.environments`; None if it is not known.
        frames: fine-tuning frames before each evaluation, ascending; empty in a search for goals.
        returns: mean return of each evaluation, ascending in frames, as the next two; the last one gives the score.
        success: fraction of successful episodes; empty where it was not measured.
        completed: mean number of completed sub-tasks; empty where it was not measured.
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
    success: tuple[FiniteFloat, ...] = ()
    completed: tuple[FiniteFloat, ...] = ()
    goals_found: int | None = None
    goals: int | None = None
    episodes_found: int | None = None
    episodes: int | None = None

    @property
    def curves(self) -> dict[str, tuple[float, ...]]:
        """What was measured at each of `frames`, by metric."""
        return {metric: getattr(self, field) for metric, field in LISTS.items()}


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
        score: what scores are made of, and with it normaliser and subtasks, as in the suite.
        origin: of results of other code: the file that was imported and how its columns were read.
    """

    format: Literal[1] = 1
    name: str
    kind: Literal["runs", "foreign"]
    suite: str
    protocol: Protocol
    domains: dict[str, str]
    tasks: tuple[str, ...]
    # Files made before do not say it.
    score: Score = Field(default_factory=lambda made: "goals_found" if made["protocol"].search else "normalised_return")
    normaliser: Normaliser | None
    subtasks: int | None = None
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
        kind = kind_of(self)
        return ScoreMatrix(
            agent=f"{self.name}/{agent.label}",
            config_hash=agent.config_hash,
            suite=self.suite,
            preset=self.preset,
            tasks=tuple(tasks),
            domains=tuple(self.domains[task] for task in tasks),
            seeds=tuple(seeds),
            pretrains=agent.snapshot > 0,
            measured=np.array([[_measured(kind, runs[seed, task]) for task in tasks] for seed in seeds]),
            scale=scale_of(self, tasks),
        )


def _measured(kind: ScoreKind, runs: Sequence[FrozenRun]) -> float:
    """Of one seed on one task: at the end, or the fraction of the goals found, of all its goal sets together."""
    if runs[0].goals is None:
        (run,) = runs
        return run.curves[kind.metric][-1]
    return fraction_found((run.goals_found or 0, run.goals or 0) for run in runs)


def freeze(results: Results, name: str) -> Frozen:
    """Everything of complete `results` in one record.

    Args:
        results: what to keep.
        name: what the baseline is to be called.

    Raises:
        IncompleteError: if anything is missing or wrong.
    """
    check(results)
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
        score=suite.score,
        normaliser=suite.normaliser,
        subtasks=suite.subtasks,
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
        **{
            field: [one.means[metric] for one in run.evaluations if metric in one.means]
            for metric, field in LISTS.items()
        },
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
    return _signed(frozen.model_dump(mode="json"))


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
        del content["sha256"]
        frozen = Frozen.model_validate(content)
    except (ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{where} is no baseline that this urlbench wrote ({reason}); freeze or import it again."
        ) from error
    # Of what the file holds, not of `frozen`: files made before lack what has been added since.
    if data != _signed(content):
        raise UserError(f"{where} was changed after it was written: its SHA-256 is another; take it from its origin.")
    faults = _faults(frozen)
    if faults:
        raise UserError(f"{where} does not agree with itself: {faults[0]}; take it from its origin.")
    return frozen


def _signed(content: Mapping[str, Any]) -> bytes:
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return (canonical_json({**content, "sha256": digest}) + "\n").encode()


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
                n_measured = len(run.curves[kind_of(frozen).metric])
                whole = n_measured == len(run.frames) > 0 and run.frames[-1] == frozen.protocol.finetune_frames
            if not whole or run.task not in frozen.domains:
                faults.append(f"{agent.label} on {run.task}, seed {run.seed}, has no final score")
    return faults
