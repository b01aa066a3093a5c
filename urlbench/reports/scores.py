"""What a report compares: agents with their runs, frozen ones, and published ones of which only means are known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from urlbench.baselines.catalogue import PREFIX, find_published, fits, source_names, summary_scores
from urlbench.baselines.library import find_frozen, load_baseline
from urlbench.errors import UserError, unknown_name
from urlbench.plan import format_frames
from urlbench.results.cells import Results
from urlbench.results.score_matrix import Floats, ScoreMatrix
from urlbench.results.selection import Selection
from urlbench.results.summary_scores import SummaryScores
from urlbench.results.validation import seeds_flag
from urlbench.statistics.aggregates import AGGREGATES, aggregate
from urlbench.statistics.estimates import Estimate, TaskMean, task_mean
from urlbench.statistics.resampling import CiMethod
from urlbench.statistics.simulation import simulated
from urlbench.types import Suite

Scores = ScoreMatrix | SummaryScores


@dataclass(frozen=True)
class Baseline:
    """One agent that a report shows without its run directories.

    Attributes:
        label: `source/agent`.
        word: what --agents asked for it with, without `baseline:`.
        origin: where its scores come from.
        remark: what keeps it from being the same experiment as the others; empty if nothing does.
    """

    label: str
    word: str
    scores: Scores
    origin: str
    remark: str


def split_baselines(agents: Sequence[str]) -> tuple[list[str], list[str]]:
    """The agents that have runs, and the names of baselines without `baseline:`, both in their order."""
    runs = [agent for agent in agents if not agent.startswith(PREFIX)]
    return runs, [agent.removeprefix(PREFIX) for agent in agents if agent.startswith(PREFIX)]


def load_baselines(names: Sequence[str], suite: Suite, preset: str, snapshot: int) -> list[Baseline]:
    """Baselines to stand beside results.

    Args:
        names: `source` or `source/agent`.
        suite: of the results.
        preset: of the results.
        snapshot: that the results started from.

    Raises:
        UserError: for unknown names, and baselines of another suite, version, preset or snapshot.
    """
    found = []
    for name in names:
        baselines = _published(name, suite) if name.partition("/")[0] in source_names() else _frozen(name, suite)
        for baseline, of_snapshot in baselines:
            if baseline.scores.preset != preset:
                raise UserError(
                    f"baseline {name!r} is of preset {baseline.scores.preset!r} and never stands beside results of "
                    f"preset {preset!r}, whose budgets are others; leave it out."
                )
            last = suite.protocols[preset].snapshots[-1] if of_snapshot is None else of_snapshot
            if last not in (0, snapshot):
                raise UserError(
                    f"baseline {baseline.label!r} started from the snapshot at {format_frames(last)} and cannot stand "
                    f"beside results that started from {format_frames(snapshot)}; leave it out, or change --snapshot."
                )
            found.append(baseline)
    return found


def _published(name: str, suite: Suite) -> list[tuple[Baseline, int | None]]:
    found = find_published(name)
    baselines: list[tuple[Baseline, int | None]] = []
    for one in [one for one in found if fits(one, suite)] or found:
        scores = summary_scores(one, suite)
        remark = "" if one.protocol == suite.name else f"pretrained as in {one.protocol}, not as in {suite.name}"
        lines = [*one.tables, *([remark] if remark else []), *one.notes]
        baselines.append((Baseline(scores.label, name, scores, "; ".join(lines), remark), None))
    return baselines


def _frozen(name: str, suite: Suite) -> list[tuple[Baseline, int | None]]:
    matrices = load_baseline(name, suite.full_name)
    frozen, agents = find_frozen(name)
    baselines: list[tuple[Baseline, int | None]] = []
    for matrix, agent in zip(matrices, agents, strict=True):
        assert isinstance(matrix, ScoreMatrix), f"{name} is no published source"
        versions = ", ".join(f"{package} {' and '.join(found)}" for package, found in sorted(agent.versions.items()))
        seeds = seeds_flag(run.seed for run in agent.runs)
        origin = f"frozen baseline {frozen.name}, {len(agent.runs)} runs, seeds {seeds}"
        origin += f", configuration {agent.config_hash}, {versions}" if frozen.kind == "runs" else ", of other code"
        remark = "" if frozen.kind == "runs" else "results of other code"
        baselines.append((Baseline(matrix.agent, name, matrix, origin, remark), agent.snapshot))
    return baselines


def baseline_lines(baselines: Sequence[Baseline]) -> list[str]:
    """Where baselines come from, one line for each."""
    return [f"{baseline.label}: {baseline.origin}" for baseline in baselines]


def in_order(
    agents: Sequence[str] | None, results: Results | None, matrices: Mapping[str, Scores], baselines: Sequence[Baseline]
) -> dict[str, Scores]:
    """The scores by label, in the order of --agents; without it runs in theirs.

    Args:
        agents: words of --agents.
        results: that `matrices` are of.
        matrices: of the agents with runs, by label.
        baselines: on the tasks of the others.
    """
    words: list[str] = list(matrices) if agents is None else list(agents)
    keys = () if results is None else results.agents
    entries: dict[str, Scores] = {}
    for word in words:
        for key in keys:
            if word in (key.label, key.name, f"{key.name}-{key.config_hash}"):
                entries.setdefault(key.label, matrices[key.label])
        for baseline in baselines:
            if word == PREFIX + baseline.word:
                entries.setdefault(baseline.label, baseline.scores)
    return entries


def baseline_tasks(suite: Suite, baselines: Sequence[Baseline], selection: Selection) -> list[str]:
    """The tasks of a report without runs, in the suite's order: all that any baseline has, or those asked for.

    Raises:
        UserError: for unknown names, and if no baseline has any of the tasks.
    """
    domains = {task.name: task.domain for task in suite.tasks}
    for domain in selection.domains or ():
        if domain not in domains.values():
            raise unknown_name("domain", domain, set(domains.values()), where=f"in suite {suite.name!r}")
    for task in selection.tasks or ():
        if task not in domains:
            raise unknown_name("task", task, domains, where=f"in suite {suite.name!r}", see="urlbench list tasks")
    found = {task for baseline in baselines for task in baseline.scores.tasks}
    tasks = [
        task
        for task in domains
        if task in found
        and (selection.tasks is None or task in selection.tasks)
        and (selection.domains is None or domains[task] in selection.domains)
    ]
    if not tasks:
        raise UserError("none of these baselines has a score on any of these tasks; see urlbench baselines show NAME.")
    return tasks


def published_labels(entries: Mapping[str, Scores]) -> list[str]:
    """The labels of those that come without runs."""
    return [label for label, scores in entries.items() if isinstance(scores, SummaryScores)]


def with_runs(entries: Mapping[str, Scores]) -> dict[str, ScoreMatrix]:
    """Those whose runs are known, frozen ones among them."""
    return {label: scores for label, scores in entries.items() if isinstance(scores, ScoreMatrix)}


def on_tasks(scores: Scores, suite: Suite, tasks: Sequence[str]) -> Scores:
    """The scores on exactly these tasks of the suite, NaN on those without any."""
    places = [scores.tasks.index(task) if task in scores.tasks else None for task in tasks]

    def spread(values: Floats) -> Floats:
        columns = [np.full(values.shape[:-1], np.nan) if place is None else values[..., place] for place in places]
        return np.stack(columns, axis=-1)

    references = {} if suite.normaliser is None else suite.normaliser.references
    common: dict[str, Any] = {
        "tasks": tuple(tasks),
        "domains": tuple(suite.task(task).domain for task in tasks),
        "references": np.array([references.get(task, 1.0) for task in tasks]),
    }
    if isinstance(scores, ScoreMatrix):
        return replace(scores, returns=spread(scores.returns), **common)
    seeds = np.array([0 if place is None else scores.n_seeds[place] for place in places], dtype=np.int64)
    return replace(
        scores, means=spread(scores.means), standard_errors=spread(scores.standard_errors), n_seeds=seeds, **common
    )


def task_means(scores: Scores) -> list[TaskMean]:
    """Mean return and standard error on each task."""
    if isinstance(scores, ScoreMatrix):
        return [task_mean(column) for column in scores.returns.T]
    return [
        TaskMean(None, None, 0)
        if np.isnan(mean)
        else TaskMean(float(mean), None if np.isnan(error) else float(error), int(n))
        for mean, error, n in zip(scores.means, scores.standard_errors, scores.n_seeds, strict=True)
    ]


def estimates(scores: Scores, ci: CiMethod, reps: int) -> dict[str, Estimate]:
    """The aggregates of `AGGREGATES`; of published means by the normal approximation, which their notes name."""
    if isinstance(scores, ScoreMatrix):
        return aggregate(scores, ci, reps)
    absent = [task for task, mean in zip(scores.tasks, scores.means, strict=True) if np.isnan(mean)]
    if absent:
        note = f"no published score on {', '.join(absent)}"
        return {name: Estimate(None, None, None, 0, note) for name in AGGREGATES}
    return simulated(scores, reps)
