"""Results: which cells of agents x tasks x seeds there are, and the runs that fill them.

A cell is what is measured of one agent on one task with one seed: a fine-tuning, or a search for the goals of one set.
Cells are never filled in, never averaged over duplicates, and never cut to the shortest: `validation` says what is
missing, with the command that fills it. Runs of several configurations of one agent are kept apart as `agent-config8`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from urlbench.core.errors import UserError
from urlbench.core.types import Suite
from urlbench.results.long_table import ResultRow, rows_of
from urlbench.results.problems import Problem
from urlbench.results.run_records import RunRecord, read_run
from urlbench.results.score_kinds import score_faults
from urlbench.results.selection import (
    EVERYTHING,
    AgentKey,
    Cell,
    Selection,
    agent_keys,
    belongs,
    lies_below,
    nothing_found,
    other_versions,
    own_runs,
    protocol_of,
    registered_suite,
    wanted_tasks,
)
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
    return results_of(scan(Path(runs_root)), Path(runs_root), suite, preset, selection)


def collect_snapshots(
    runs_root: Path | str, suite: str, preset: str, selection: Selection, snapshots: Sequence[int]
) -> dict[int, Results]:
    """The results of runs that started from each of `snapshots`, as `collect` gives them, from one look at the disk."""
    found = scan(Path(runs_root))
    return {
        snapshot: results_of(found, Path(runs_root), suite, preset, selection.model_copy(update={"snapshot": snapshot}))
        for snapshot in snapshots
    }


def results_of(
    found: Sequence[RunRecord | Problem], root: Path, suite_name: str, preset: str, selection: Selection
) -> Results:
    """The results of one suite and one preset among all that `scan` has found; see `collect`."""
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
            replace(run, faults=(*run.faults, *score_faults(suite, run)))
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
