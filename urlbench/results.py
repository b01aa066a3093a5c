"""Results: which cells of agents x tasks x seeds there are, which are missing or unusable, and the scores.

A cell is the fine-tuning of one agent on one task with one seed. Cells are never filled in, never
averaged over duplicates, and never cut to the shortest: what is missing is a `Problem` with the command
that fills it. Runs of several configurations of one agent are kept apart as `agent-config8`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from urlbench.errors import IncompleteError, UserError, unknown_name
from urlbench.run_records import Problem, RunRecord, read_run
from urlbench.selection import (
    EVERYTHING,
    AgentKey,
    Selection,
    agent_keys,
    belongs,
    lies_below,
    make_selection,
    nothing_found,
    other_versions,
    registered_suite,
    wanted_tasks,
)
from urlbench.store import RunStore
from urlbench.types import Spec, Suite
from urlbench.validation import find_problems, incomplete_message

Floats = npt.NDArray[np.float64]


class ResultRow(Spec):
    """One value in the long table.

    Attributes:
        goal_set: name of the set of goals, for suites that have several.
        pretrain_frames: frames of pretraining before the fine-tuning; 0 if there was none.
        frames: fine-tuning frames before the evaluation.
        metric: `episode_return`, the mean undiscounted return of the evaluation's episodes.
        source: the run's eval.jsonl, relative to the runs root.
    """

    suite: str
    suite_version: int
    agent: str
    config_hash: str
    preset: str
    phase: str
    domain: str
    task: str
    goal_set: str | None = None
    seed: int
    pretrain_frames: int
    frames: int
    metric: str
    value: float
    n_episodes: int
    run_id: str
    source: str


@dataclass(frozen=True)
class ScoreMatrix:
    """Final scores of one agent.

    Attributes:
        domains: the domain of each task.
        pretrains: whether the tasks of a domain share one pretraining run a seed.
        returns: final mean returns, [runs, tasks]; row i is seed `seeds[i]`. NaN marks a missing cell,
            which only a partial report lets through.
        references: what a return is divided by, [tasks].
    """

    agent: str
    config_hash: str
    suite: str
    preset: str
    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    seeds: tuple[int, ...]
    pretrains: bool
    returns: Floats
    references: Floats

    @property
    def scores(self) -> Floats:
        """Normalised scores, [runs, tasks]: return / reference."""
        return self.returns / self.references

    @property
    def complete(self) -> bool:
        """True if no cell is missing."""
        return not bool(np.isnan(self.returns).any())

    def select(self, tasks: Iterable[str]) -> "ScoreMatrix":
        """The same runs on some of the tasks."""
        chosen = set(tasks)
        keep = [index for index, task in enumerate(self.tasks) if task in chosen]
        return ScoreMatrix(
            agent=self.agent,
            config_hash=self.config_hash,
            suite=self.suite,
            preset=self.preset,
            tasks=tuple(self.tasks[index] for index in keep),
            domains=tuple(self.domains[index] for index in keep),
            seeds=self.seeds,
            pretrains=self.pretrains,
            returns=self.returns[:, keep],
            references=self.references[keep],
        )


class Results:
    """The runs of one suite and one preset, cell by cell.

    Attributes:
        agents: in the order asked for, else by label.
        tasks: in the suite's order.
        seeds: ascending.
        snapshot: pretraining frames of the snapshot that fine-tunings of agents that pretrain start from.
        selected: all runs of the cells.
        strays: runs of another suite or preset in the folders of this one.
        cells: the runs of each (agent label, task, seed); more than one is a duplicate.
        loose_problems: problems that belong to no cell.
    """

    def __init__(
        self,
        root: Path,
        suite: Suite,
        preset: str,
        agents: Sequence[AgentKey],
        tasks: Sequence[str],
        seeds: Sequence[int],
        snapshot: int,
        runs: Sequence[RunRecord],
        strays: Sequence[RunRecord],
        loose: Sequence[Problem],
    ) -> None:
        self.root, self.suite, self.preset, self.snapshot = root, suite, preset, snapshot
        self.agents, self.tasks, self.seeds = tuple(agents), tuple(tasks), tuple(seeds)
        self.loose_problems = tuple(loose)
        labels = {(agent.name, agent.config_hash): agent.label for agent in agents}
        self.selected, self.strays = tuple(runs), tuple(strays)
        self.cells: dict[tuple[str, str, int], list[RunRecord]] = defaultdict(list)
        for run in runs:
            self.cells[labels[run.spec.agent, run.config_hash], run.spec.task, run.spec.seed].append(run)

    @property
    def n_expected(self) -> int:
        """Number of cells of agents x tasks x seeds."""
        return len(self.agents) * len(self.tasks) * len(self.seeds)

    @property
    def n_usable(self) -> int:
        """Number of cells with exactly one run that ended and has no fault."""
        return sum(self.run(*cell) is not None for cell in self.expected())

    def expected(self) -> Iterator[tuple[str, str, int]]:
        """The cells: agent label, task, seed."""
        for agent in self.agents:
            for task in self.tasks:
                for seed in self.seeds:
                    yield agent.label, task, seed

    def run(self, agent: str, task: str, seed: int) -> RunRecord | None:
        """The run of a cell; None if there is none, more than one, or one that cannot be used."""
        runs = self.cells.get((agent, task, seed), [])
        return runs[0] if len(runs) == 1 and runs[0].usable else None

    def usable_runs(self) -> list[RunRecord]:
        """The runs that count, by agent, task and seed."""
        runs = (self.run(*cell) for cell in self.expected())
        return [run for run in runs if run is not None]

    def rows(self) -> list[ResultRow]:
        """Every evaluation of every run that counts."""
        return [
            ResultRow(
                suite=self.suite.name,
                suite_version=self.suite.version,
                agent=run.spec.agent,
                config_hash=run.config_hash,
                preset=self.preset,
                phase=run.spec.phase,
                domain=run.spec.domain,
                task=run.spec.task,
                seed=run.spec.seed,
                pretrain_frames=run.spec.snapshot,
                frames=evaluation.frame,
                metric="episode_return",
                value=evaluation.mean,
                n_episodes=len(evaluation.returns),
                run_id=run.id,
                source=f"{run.path}/eval.jsonl",
            )
            for run in self.usable_runs()
            for evaluation in run.evaluations
        ]

    def problems(self) -> list[Problem]:
        """Everything that keeps these results from being complete and comparable; empty if nothing does."""
        return find_problems(self)

    def scores(self, *, allow_partial: bool = False) -> dict[str, ScoreMatrix]:
        """The final scores of every agent, by label.

        Raises:
            IncompleteError: if anything is wrong; with `allow_partial`, only if runs contradict each other.
        """
        problems = self.problems()
        blocking = [problem for problem in problems if problem.is_conflict] if allow_partial else problems
        if blocking:
            raise IncompleteError(incomplete_message(self, blocking))
        if not self.n_usable:
            raise IncompleteError(incomplete_message(self, problems))
        assert self.suite.normaliser is not None, f"{self.suite.name} gives fractions of goals found, not returns"
        references = np.array([self.suite.normaliser.references[task] for task in self.tasks])
        domains = tuple(self.suite.task(task).domain for task in self.tasks)
        matrices = {}
        for agent in self.agents:
            runs = [[self.run(agent.label, task, seed) for task in self.tasks] for seed in self.seeds]
            matrices[agent.label] = ScoreMatrix(
                agent=agent.name,
                config_hash=agent.config_hash or "",
                suite=self.suite.full_name,
                preset=self.preset,
                tasks=self.tasks,
                domains=domains,
                seeds=self.seeds,
                pretrains=agent.pretrains,
                returns=np.array([[run.evaluations[-1].mean if run else np.nan for run in row] for row in runs]),
                references=references,
            )
        return matrices


def scan(runs_root: Path) -> list[RunRecord | Problem]:
    """Every run directory below `runs_root`.

    Raises:
        UserError: if there is no such folder.
    """
    if not runs_root.is_dir():
        raise UserError(f"there is no runs folder {str(runs_root)!r}; give --runs the folder that `urlbench run` used.")
    return [read_run(runs_root, directory) for directory in RunStore(runs_root).directories()]


def collect(runs_root: Path | str, suite: str, preset: str = "paper", selection: Selection = EVERYTHING) -> Results:
    """The results of one suite and one preset.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name`, for the registered version, or `name@version`.
        preset: whose runs to take; runs of several presets never mix.
        selection: which cells; by default all agents, tasks and seeds that any run has.

    Raises:
        UserError: for unknown names, or if there are no runs.
    """
    return _collect(scan(Path(runs_root)), Path(runs_root), suite, preset, selection)


def validate(
    runs_root: Path | str,
    suite: str | None = None,
    preset: str | None = None,
    agents: Sequence[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    snapshot: int | None = None,
) -> list[Problem]:
    """All problems of the runs below `runs_root`, as `collect` sees them.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name` or `name@version`; default every suite there is a run of.
        preset: default every preset there is a run of; each is looked at alone, for they never mix.
        agents: names or labels; default all that have runs, and so for domains, tasks and seeds.
        domains: names.
        tasks: names.
        seeds: each is expected of every agent on every task.
        snapshot: pretraining frames of the snapshot that fine-tunings started from; default the last one.

    Raises:
        UserError: for unknown names, or if there are no runs of what is asked for.
    """
    selection = make_selection(agents, domains, tasks, seeds, snapshot)
    found = scan(Path(runs_root))
    specs = [run.spec for run in found if isinstance(run, RunRecord)]
    problems = [] if specs else [problem for problem in found if isinstance(problem, Problem)]
    for name in [suite] if suite else sorted({spec.suite.partition("@")[0] for spec in specs}):
        presets = {spec.protocol.preset for spec in specs if spec.suite.partition("@")[0] == name.partition("@")[0]}
        for chosen in [preset] if preset else sorted(presets):
            results = _collect(found, Path(runs_root), name, chosen, selection)
            problems += [problem for problem in results.problems() if problem not in problems]
    return problems


def _collect(
    found: Sequence[RunRecord | Problem], root: Path, suite_name: str, preset: str, selection: Selection
) -> Results:
    suite = registered_suite(suite_name)
    if preset not in suite.protocols:
        raise unknown_name("preset", preset, suite.protocols, where=f"of suite {suite.name!r}")
    snapshot = selection.snapshot_of(suite.protocols[preset])
    everything = [run for run in found if isinstance(run, RunRecord)]
    loose = [problem for problem in found if isinstance(problem, Problem) and lies_below(problem.path, suite, preset)]
    if "@" not in suite_name:
        loose += other_versions(everything, suite, preset)
    strays = [run for run in everything if lies_below(run.path, suite, preset) and not belongs(run, suite, preset)]
    runs = [run for run in everything if belongs(run, suite, preset)]
    keys = agent_keys(runs, selection.agents)
    pretrains = {(key.name, key.config_hash): key.pretrains for key in keys}
    runs = [run for run in runs if (run.spec.agent, run.config_hash) in pretrains]
    tasks = wanted_tasks(suite, runs, selection)
    own_domains = {suite.task(task).domain for task in tasks}
    found_seeds = {run.spec.seed for run in runs if run.spec.domain in own_domains}
    seeds = sorted(found_seeds if selection.seeds is None else set(selection.seeds))
    if not (keys and tasks and seeds) and not loose and not strays:
        raise UserError(nothing_found(everything, root, suite, preset, selection))
    return Results(
        root=root,
        suite=suite,
        preset=preset,
        agents=keys,
        tasks=tasks,
        seeds=seeds,
        snapshot=snapshot,
        runs=[
            run
            for run in runs
            if run.spec.phase == "finetune"
            and run.spec.task in tasks
            and run.spec.seed in seeds
            and run.spec.snapshot == (snapshot if pretrains[run.spec.agent, run.config_hash] else 0)
        ],
        strays=strays,
        loose=loose,
    )
