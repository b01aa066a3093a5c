"""Results: which cells of agents x tasks x seeds there are, which are missing or unusable, and the scores.

A cell is what is measured of one agent on one task with one seed: a fine-tuning, or a search for the goals of one set.
Cells are never filled in, never averaged over duplicates, and never cut to the shortest: what is missing is a `Problem`
with the command that fills it. Runs of several configurations of one agent are kept apart as `agent-config8`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.types import Suite
from urlbench.results.long_table import ResultRow, rows_of
from urlbench.results.problems import Problem
from urlbench.results.run_records import RunRecord, read_run
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.selection import (
    EVERYTHING,
    AgentKey,
    Cell,
    Selection,
    agent_keys,
    belongs,
    lies_below,
    make_selection,
    nothing_found,
    other_versions,
    own_runs,
    protocol_of,
    registered_suite,
    wanted_tasks,
)
from urlbench.results.validation import find_problems, incomplete_message
from urlbench.runs.store import RunStore


class Results:
    """The runs of one suite and one preset, cell by cell.

    Attributes:
        agents: in the order asked for, else by label.
        tasks: in the suite's order.
        seeds: ascending.
        goal_sets: what every seed is expected on; None for the set with the number of the seed, if there are any.
        snapshot: of the pretraining, in its own unit, that the runs of agents that pretrain start from.
        selected: all runs of the cells.
        elsewhere: number of runs that are left out because they are on other goal sets.
        pretrainings: by job id, all that the runs could have started from.
        strays: runs of another suite or preset in the folders of this one.
        cells: the runs of each cell; more than one is a duplicate.
        loose_problems: problems that belong to no cell.
    """

    def __init__(
        self,
        root: Path,
        suite: Suite,
        preset: str,
        *,
        agents: Sequence[AgentKey],
        tasks: Sequence[str],
        seeds: Sequence[int],
        goal_sets: tuple[int, ...] | None,
        snapshot: int,
        runs: Sequence[RunRecord],
        pretrainings: Mapping[str, RunRecord],
        strays: Sequence[RunRecord],
        loose: Sequence[Problem],
    ) -> None:
        self.root, self.suite, self.preset, self.snapshot = root, suite, preset, snapshot
        self.agents, self.tasks, self.seeds, self.goal_sets = tuple(agents), tuple(tasks), tuple(seeds), goal_sets
        self.pretrainings, self.strays, self.loose_problems = pretrainings, tuple(strays), tuple(loose)
        self.selected = tuple(run for run in runs if run.spec.goal_set in self.goal_sets_of(run.spec.seed))
        self.elsewhere = len(runs) - len(self.selected)
        labels = {(agent.name, agent.config_hash): agent.label for agent in agents}
        self.cells: dict[Cell, list[RunRecord]] = defaultdict(list)
        for run in self.selected:
            label = labels[run.spec.agent, run.config_hash]
            self.cells[Cell(label, run.spec.task, run.spec.seed, run.spec.goal_set)].append(run)

    def goal_sets_of(self, seed: int) -> tuple[int | None, ...]:
        """The goal sets that `seed` is expected on; (None,) in suites without."""
        if self.suite.goal_sets is None:
            return (None,)
        return (seed,) if self.goal_sets is None else self.goal_sets

    @property
    def n_expected(self) -> int:
        """Number of cells of agents x tasks x seeds, with each goal set."""
        return sum(1 for _ in self.expected())

    @property
    def n_usable(self) -> int:
        """Number of cells with exactly one run that ended and has no fault."""
        return len(self.usable_runs())

    def expected(self) -> Iterator[Cell]:
        """The cells, by agent, task, seed and goal set."""
        for agent in self.agents:
            for task in self.tasks:
                for seed in self.seeds:
                    for goal_set in self.goal_sets_of(seed):
                        yield Cell(agent.label, task, seed, goal_set)

    def run(self, agent: str, task: str, seed: int, goal_set: int | None = None) -> RunRecord | None:
        """The run of a cell; None if there is none, more than one, or one that cannot be used."""
        runs = self.cells.get(Cell(agent, task, seed, goal_set), [])
        return runs[0] if len(runs) == 1 and runs[0].usable else None

    def usable_runs(self) -> list[RunRecord]:
        """The runs that count, in the order of the cells."""
        runs = (self.run(*cell) for cell in self.expected())
        return [run for run in runs if run is not None]

    def rows(self) -> list[ResultRow]:
        """Every value of every run that counts."""
        return [row for run in self.usable_runs() for row in rows_of(self.suite, run)]

    def problems(self) -> list[Problem]:
        """Everything that keeps these results from being complete and comparable; empty if nothing does."""
        return find_problems(self)

    def check(self, *, allow_partial: bool = False) -> None:
        """Refuse results that no table may be made of.

        Raises:
            IncompleteError: if anything is wrong; with `allow_partial`, only if runs contradict each other.
        """
        problems = self.problems()
        blocking = [problem for problem in problems if problem.is_conflict] if allow_partial else problems
        if blocking:
            raise IncompleteError(incomplete_message(self, blocking))
        if not self.n_usable:
            raise IncompleteError(incomplete_message(self, problems))

    def scores(self, *, allow_partial: bool = False) -> dict[str, ScoreMatrix]:
        """The final scores of every agent of a suite that fine-tunes, by label.

        Raises:
            IncompleteError: as `check` does.
        """
        self.check(allow_partial=allow_partial)
        return self.scores_at(self.suite.protocols[self.preset].finetune_frames)

    def scores_at(self, frame: int) -> dict[str, ScoreMatrix]:
        """The scores of every agent after `frame` fine-tuning frames, of results that `check` lets through."""
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
                returns=np.array([[run.return_at(frame) if run else np.nan for run in row] for row in runs]),
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


def collect_snapshots(
    runs_root: Path | str, suite: str, preset: str, selection: Selection, snapshots: Sequence[int]
) -> dict[int, Results]:
    """The results of runs that started from each of `snapshots`, as `collect` gives them, from one look at the disk."""
    found = scan(Path(runs_root))
    return {
        snapshot: _collect(found, Path(runs_root), suite, preset, selection.model_copy(update={"snapshot": snapshot}))
        for snapshot in snapshots
    }


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
    goal_sets: Sequence[int] | None = None,
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
        snapshot: of the pretraining that the runs started from; default the last one.
        goal_sets: each is expected of every seed; default the one with the number of the seed.

    Raises:
        UserError: for unknown names, or if there are no runs of what is asked for.
    """
    selection = make_selection(agents, domains, tasks, seeds, snapshot, goal_sets)
    found = scan(Path(runs_root))
    runs = [run for run in found if isinstance(run, RunRecord)]
    below = "" if suite is None else suite.partition("@")[0] + "@"
    problems = [one for one in found if isinstance(one, Problem) and (one.path or "").startswith(below)]
    for name, chosen in _groups(runs, suite, preset):
        results = _collect(found, Path(runs_root), name, chosen, selection)
        problems += [problem for problem in results.problems() if problem not in problems]
    return problems


def _groups(runs: Sequence[RunRecord], suite: str | None, preset: str | None) -> list[tuple[str, str]]:
    """The suites and presets to look at: those named, else those there are runs of."""
    if suite and preset:
        return [(suite, preset)]
    found = {(run.spec.suite.partition("@")[0], run.spec.protocol.preset) for run in runs}
    names = {suite} if suite else {name for name, _ in found}
    groups = {
        (name, one)
        for name in names
        for suite_name, one in found
        if suite_name == name.partition("@")[0] and preset in (None, one)
    }
    if not groups:
        return sorted((name, preset or "paper") for name in names)
    # Where there are only pretrainings that others start from, nothing was asked for.
    return sorted({group for group in groups if not _only_lends(runs, *group)} or groups)


def _only_lends(runs: Sequence[RunRecord], name: str, preset: str) -> bool:
    suite = registered_suite(name)
    return any(belongs(run, suite, preset) for run in runs) and not own_runs(runs, suite, preset)


def _collect(
    found: Sequence[RunRecord | Problem], root: Path, suite_name: str, preset: str, selection: Selection
) -> Results:
    suite = registered_suite(suite_name)
    snapshot, goal_sets = selection.snapshot_of(protocol_of(suite, preset)), selection.goal_sets_of(suite)
    everything = [run for run in found if isinstance(run, RunRecord)]
    loose = [problem for problem in found if isinstance(problem, Problem) and lies_below(problem.path, suite, preset)]
    if "@" not in suite_name:
        loose += other_versions(everything, suite, preset)
    strays = [run for run in everything if lies_below(run.path, suite, preset) and not belongs(run, suite, preset)]
    runs = own_runs(everything, suite, preset) or [run for run in everything if belongs(run, suite, preset)]
    pretrainings = {
        run.id: run
        for run in everything
        if run.spec.phase == "pretrain" and run.spec.suite.partition("@")[0] in (suite.name, suite.pretrained_in)
    }
    keys = agent_keys(runs, pretrainings, selection.agents)
    pretrains = {(key.name, key.config_hash): key.pretrains for key in keys}
    runs = [run for run in runs if any(key.made(run) for key in keys)]
    tasks = wanted_tasks(suite, runs, selection)
    own_domains = {suite.task(task).domain for task in tasks}
    found_seeds = {run.spec.seed for run in runs if run.spec.domain in own_domains}
    seeds = sorted(found_seeds if selection.seeds is None else set(selection.seeds))
    if not (keys and tasks and seeds) and not loose and not strays:
        raise UserError(nothing_found(everything, root, suite, preset, selection))
    return Results(
        root,
        suite,
        preset,
        agents=keys,
        tasks=tasks,
        seeds=seeds,
        goal_sets=goal_sets,
        snapshot=snapshot,
        runs=[
            run
            for run in runs
            if run.spec.phase == suite.measured_phase
            and run.spec.task in tasks
            and run.spec.seed in seeds
            and run.spec.snapshot in _starts(suite, run, snapshot if pretrains[run.spec.agent, run.config_hash] else 0)
        ],
        pretrainings=pretrainings,
        strays=strays,
        loose=loose,
    )


def _starts(suite: Suite, run: RunRecord, snapshot: int) -> tuple[int, ...]:
    """The snapshots that a run may have started from, of an agent whose others start from `snapshot`."""
    transferred = [task.name for task in suite.tasks if task.transfer is not None]
    # Where some tasks start from a training on another one, the rest may start from nothing.
    return (snapshot, 0) if transferred and run.spec.task not in transferred else (snapshot,)
