"""The tables of a report about goals that were looked for without learning."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urlbench.core.types import Search
from urlbench.reports.origins import Source
from urlbench.reports.proportions import Count, Proportion, episodes, fractions, goals, pooled
from urlbench.reports.tables import Numbers, Table, Value
from urlbench.results.cells import Results
from urlbench.results.commands import number_words
from urlbench.results.run_records import RunRecord
from urlbench.statistics.estimates import TaskMean, task_mean

GOALS_NOTE = (
    "Brackets: 95 % Wilson interval over goals, for these trained agents: the goals of a run share one agent, so it "
    "says nothing about other seeds."
)
RUNS_NOTE = "Brackets: 95 % Wilson interval over runs. A run found the goal if any of its episodes did."
EPISODES_NOTE = (
    "Brackets: 95 % Wilson interval over episodes, for these trained agents: the episodes of a run share one agent, so "
    "it says nothing about other seeds."
)


@dataclass(frozen=True)
class Group:
    """One task, or one goal set of a task: a row of a table, a panel of a figure.

    Attributes:
        goal_set: None in suites without.
        runs: those that count, by agent label.
        reachable: number of goals of the set within the body's reach, as far as it is known; None if it is not.
    """

    task: str
    goal_set: int | None
    runs: Mapping[str, Sequence[RunRecord]]
    reachable: int | None


def groups_of(results: Results) -> list[Group]:
    """The groups of the results, in the order of tasks and goal sets."""
    sets = results.suite.goal_sets
    # What is within reach was counted over whole sets.
    whole = sets is not None and rules_of(results).goals == sets.goals
    reachable = sets.reachable if sets is not None and whole else {}
    runs: dict[tuple[str, int | None], dict[str, list[RunRecord]]] = {}
    for cell in results.expected():
        by_agent = runs.setdefault((cell.task, cell.goal_set), {agent.label: [] for agent in results.agents})
        run = results.run(*cell)
        by_agent[cell.agent] += [] if run is None else [run]
    order = {task: number for number, task in enumerate(results.tasks)}
    return [
        Group(task, goal_set, runs[task, goal_set], None if goal_set is None else reachable.get(goal_set))
        for task, goal_set in sorted(runs, key=lambda key: (order[key[0]], key[1] or 0))
    ]


def rules_of(results: Results) -> Search:
    """How the suite's goals are looked for."""
    rules = results.suite.protocols[results.preset].search
    assert rules is not None, f"{results.suite.name} looks for no goals"
    return rules


def runs_table(results: Results, groups: Sequence[Group]) -> Table:
    """For tasks with one goal: the fraction of runs that found it."""
    labels = [agent.label for agent in results.agents]
    rows, sources = [], []
    values: list[tuple[Value | None, ...]] = []
    for group in groups:
        by_agent = [pooled(group.runs[label], goals) for label in labels]
        rows.append((group.task, *(format_proportion(proportion) for proportion in by_agent)))
        sources.append((None, *(_source(group, label) for label in labels)))
        values.append((None, *by_agent))
    notes = [RUNS_NOTE, search_note(results)]
    if len(groups) > 1:
        totals = [pooled(runs_of(groups, label), goals) for label in labels]
        rows.append(("all tasks", *(format_count(total) for total in totals)))
        sources.append((None, *(Source((label,), results.tasks) for label in labels)))
        values.append((None, *(_count_numbers(total) for total in totals)))
        notes.insert(1, "No interval over all tasks: runs of one seed start from the same pretraining.")
    header = ("task", *labels)
    return Table("runs", "Runs that found the goal", header, tuple(rows), tuple(notes), tuple(sources), tuple(values))


def goals_table(results: Results, groups: Sequence[Group]) -> Table:
    """For tasks with several goals: how many each agent found, and how many of those within reach."""
    rows = []
    values: list[tuple[Value | None, ...]] = []
    for agent in results.agents:
        runs, ceiling = runs_of(groups, agent.label), ceiling_of(groups, agent.label)
        total = pooled(runs, goals)
        reach = {"": ceiling[0] / ceiling[1], "count": ceiling[0], "total": ceiling[1]} if ceiling else None
        of_reach = total.count / ceiling[0] if total and ceiling else None
        values.append((None, len(runs), mean_over_seeds(runs), total, reach, of_reach))
        share = "—" if of_reach is None else f"{of_reach:.3f}"
        limit = f"{ceiling[0]}/{ceiling[1]} = {ceiling[0] / ceiling[1]:.3f}" if ceiling else "—"
        rows.append((agent.label, str(len(runs)), format_mean(runs), format_proportion(total), limit, share))
    return Table(
        "goals",
        "Goals found",
        ("agent", "runs", "mean over seeds", "pooled goals", "within reach", "found of those within reach"),
        tuple(rows),
        (
            "A goal is found if any of its episodes found it. Mean of the seeds' fractions ± standard error (n = "
            "number of seeds). Pooled: the goals of all runs, each once for every run that looked for it.",
            GOALS_NOTE,
            *reach_notes(results, groups),
            search_note(results),
        ),
        tuple((None, *[Source((agent.label,), results.tasks)] * 5) for agent in results.agents),
        tuple(values),
    )


def sets_table(results: Results, groups: Sequence[Group]) -> Table:
    """For suites with goal sets: the goals found in each."""
    labels = [agent.label for agent in results.agents]
    rows = [
        (*_place(group), *(format_runs(group.runs[label], goals) for label in labels), _or_dash(group.reachable))
        for group in groups
    ]
    sources = tuple((None, None, *(_source(group, label) for label in labels), None) for group in groups)
    header = ("task", "goal set", *labels, "within reach")
    notes = (set_note(results), GOALS_NOTE, *_range_notes(groups), *reach_notes(results, groups))
    values = tuple(
        (None, None, *(_numbers_of_runs(group.runs[label], goals) for label in labels), group.reachable)
        for group in groups
    )
    return Table("goal-sets", "Goals found in each goal set", header, tuple(rows), notes, sources, values)


def episodes_table(results: Results, groups: Sequence[Group]) -> Table:
    """The fraction of episodes that found their goal."""
    labels = [agent.label for agent in results.agents]
    place = ("task",) if results.suite.goal_sets is None else ("task", "goal set")
    rows = []
    for group in groups:
        by_agent = (format_runs(group.runs[label], episodes) for label in labels)
        rows.append((*_place(group)[: len(place)], *by_agent))
    header = (*place, *labels)
    sources = tuple((*[None] * len(place), *(_source(group, label) for label in labels)) for group in groups)
    notes = (EPISODES_NOTE, *_range_notes(groups), search_note(results))
    values = tuple(
        (*[None] * len(place), *(_numbers_of_runs(group.runs[label], episodes) for label in labels)) for group in groups
    )
    return Table("episodes", "Episodes that found their goal", header, tuple(rows), notes, sources, values)


def not_found_table(results: Results, groups: Sequence[Group]) -> Table:
    """For suites with goal sets: the goals that no run of an agent found, and those that nobody found."""
    n_goals = rules_of(results).goals
    rows, sources = [], []
    for group in groups:
        every = [run for runs in group.runs.values() for run in runs]
        for who, runs in {**({"anybody": every} if len(group.runs) > 1 else {}), **group.runs}.items():
            found = {search.goal for run in runs for search in run.searches if any(search.found)}
            missed = sorted(set(range(n_goals)) - found)
            text = f"{len(missed)} of {n_goals}: {number_words(missed)}" if missed else "none"
            rows.append((*_place(group), who, text if runs else "—"))
            sources.append((None, None, None, _source(group, *(group.runs if who == "anybody" else [who]))))
    return Table(
        "not-found",
        "Goals that were not found",
        ("task", "goal set", "not found by", "goals"),
        tuple(rows),
        ("Numbers are places in the goal set, from 0. Not found: by no episode of any of the runs.",),
        tuple(sources),
    )


def runs_of(groups: Iterable[Group], label: str) -> list[RunRecord]:
    """The runs of an agent in all groups."""
    return [run for group in groups for run in group.runs[label]]


def ceiling_of(groups: Iterable[Group], label: str) -> tuple[int, int] | None:
    """Goals within reach and all goals, summed over the runs of an agent; None if the reach of a set is not known."""
    reachable = total = 0
    for group in groups:
        for run in group.runs[label]:
            if group.reachable is None:
                return None
            reachable, total = reachable + group.reachable, total + len(run.searches)
    return (reachable, total) if total else None


def search_note(results: Results) -> str:
    """How goals were looked for, as a sentence."""
    return f"Search: {rules_of(results).words(results.suite.protocols[results.preset].eval_episodes)}."


def set_note(results: Results) -> str:
    """Which agents looked for which goal set."""
    if results.goal_sets is None:
        return "Each goal set was searched by the agents of the seed with its number."
    return "Each goal set was searched by the agents of every seed."


def reach_notes(results: Results, groups: Sequence[Group]) -> list[str]:
    """Where the numbers of goals within reach come from, and which are missing."""
    sets = results.suite.goal_sets
    if sets is None:
        return []
    n_goals = rules_of(results).goals
    if n_goals != sets.goals:
        return [f"How many goals are within reach is known of whole sets of {sets.goals}, not of the first {n_goals}."]
    unknown = sorted({group.goal_set for group in groups if group.reachable is None and group.goal_set is not None})
    notes = [f"Within reach: {sets.source}."] if len(unknown) < len({group.goal_set for group in groups}) else []
    if unknown:
        notes.append(f"How many goals are within reach is not known of goal sets {number_words(unknown)}.")
    return notes


def format_count(proportion: Proportion | None) -> str:
    """`31/50 = 0.620`; a dash for no runs."""
    return f"{proportion.count}/{proportion.total} = {proportion.value:.3f}" if proportion else "—"


def format_proportion(proportion: Proportion | None) -> str:
    """`31/50 = 0.620 [0.482, 0.741]`; a dash for no runs."""
    interval = f" [{proportion.low:.3f}, {proportion.high:.3f}]" if proportion else ""
    return format_count(proportion) + interval


def format_runs(runs: Sequence[RunRecord], count: Count) -> str:
    """All runs together, and the range over them if they are several: `.../... = ... [...], runs 0.580 to 0.640`."""
    values = fractions(runs, count)
    spread = f", runs {min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
    return format_proportion(pooled(runs, count)) + spread


def mean_over_seeds(runs: Sequence[RunRecord]) -> TaskMean:
    """The fraction of goals found, averaged over each seed's runs and then over the seeds."""
    by_seed = defaultdict(list)
    for run in runs:
        by_seed[run.spec.seed].append(run)
    return task_mean(np.array([np.mean(fractions(of_seed, goals)) for of_seed in by_seed.values()]))


def format_mean(runs: Sequence[RunRecord]) -> str:
    """`0.613 ± 0.021 (n=3)`: the mean over n seeds."""
    mean = mean_over_seeds(runs)
    if mean.mean is None:
        return "— (n=0)"
    error = "" if mean.standard_error is None else f" ± {mean.standard_error:.3f}"
    return f"{mean.mean:.3f}{error} (n={mean.n})"


def _count_numbers(proportion: Proportion | None) -> Numbers | None:
    """Without an interval."""
    if proportion is None:
        return None
    return {"": proportion.value, "count": proportion.count, "total": proportion.total}


def _numbers_of_runs(runs: Sequence[RunRecord], count: Count) -> Numbers | None:
    """All runs together, and the range over them if they are several."""
    total, each = pooled(runs, count), fractions(runs, count)
    if total is None:
        return None
    spread = {"lowest run": min(each), "highest run": max(each)} if len(each) > 1 else {}
    return {**(_count_numbers(total) or {}), "low": total.low, "high": total.high, **spread}


def _range_notes(groups: Sequence[Group]) -> list[str]:
    several = any(len(runs) > 1 for group in groups for runs in group.runs.values())
    return ["Several runs are pooled; after the interval stands the range of their own fractions."] if several else []


def _source(group: Group, *labels: str) -> Source:
    return Source(labels, (group.task,), group.goal_set)


def _place(group: Group) -> tuple[str, str]:
    return group.task, _or_dash(group.goal_set)


def _or_dash(number: int | None) -> str:
    return "—" if number is None else str(number)
