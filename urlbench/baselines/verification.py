"""`urlbench baselines verify`: are the stored numbers the released ones, and do they agree with each other?"""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from urlbench.baselines.catalogue import (
    SOURCES,
    find_published,
    published_baselines,
    source_names,
    source_of,
    summary_scores,
)
from urlbench.baselines.library import find_frozen
from urlbench.baselines.published_data import HASHES, changed_files, published
from urlbench.core.errors import UserError
from urlbench.core.types import Spec
from urlbench.results.selection import registered_suite
from urlbench.results.summary_scores import SummaryScores

COUNTS = {"scores": 740, "aggregates": 270, "normalisation": 27, "derived": 34, "sources": 17}
# Half a unit of the last digit of derived_means.csv, and a little for binary fractions.
_ROUNDING = 0.5e-4 + 1e-9
_NORMAL_95 = 1.96


class Check(Spec):
    """One check and how it ended."""

    name: str
    result: Literal["passed", "failed"]
    detail: str


def verify_published() -> list[Check]:
    """Check what urlbench carries; after a changed file nothing else is looked at."""
    changed = changed_files()
    hashes = _check("hashes", [f"{name} is not the released file" for name in changed], f"{len(HASHES)} files")
    if changed:
        return [hashes]
    return [
        hashes,
        _check("counts", [*_count_faults()], ", ".join(f"{count} {name}" for name, count in COUNTS.items())),
        _check("scores", [*_score_faults()], "every row once, on a task of its suite, with a spread that it names"),
        _check("sources", [*_source_faults()], f"{len(source_names())} short names, each with its provenance"),
        _check("normalisers", [*_normaliser_faults()], "expert returns are those the suites divide by"),
        _check("derived means", [*_derived_faults()], f"{COUNTS['derived']} worked out again from the scores"),
    ]


def verify_stored(name: str, folder: Path) -> Check:
    """Check a frozen or imported baseline: its hash, its form, and that its suite still means the same."""
    try:
        frozen, _ = find_frozen(name, folder)
        suite = registered_suite(frozen.suite.partition("@")[0])
    except UserError as error:
        return Check(name=name, result="failed", detail=str(error))
    if suite.full_name == frozen.suite:
        domains = {task.name: task.domain for task in suite.tasks if task.name in frozen.domains}
        now = (suite.score, suite.normaliser, suite.subtasks, suite.protocols.get(frozen.preset), domains)
        then = (frozen.score, frozen.normaliser, frozen.subtasks, frozen.protocol, frozen.domains)
        if now != then:
            detail = f"its tasks, budgets, score or normaliser are not {suite.full_name}'s, preset {frozen.preset}"
            return Check(name=name, result="failed", detail=detail)
    runs = sum(len(agent.runs) for agent in frozen.agents)
    whose = "runs" if frozen.kind == "runs" else "results of other code"
    detail = f"{frozen.suite}, preset {frozen.preset}: {len(frozen.agents)} agents, {runs} {whose}"
    return Check(name=name, result="passed", detail=detail)


def _check(name: str, faults: list[str], detail: str) -> Check:
    if not faults:
        return Check(name=name, result="passed", detail=detail)
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return Check(name=name, result="failed", detail="; ".join(faults[:3]) + more)


def _count_faults() -> Iterator[str]:
    for name, expected in COUNTS.items():
        found = len(getattr(published(), name))
        if found != expected:
            yield f"{found} {name} instead of {expected}"


def _score_faults() -> Iterator[str]:
    rows = Counter((row.suite, row.source, row.agent, row.full_task) for row in published().scores)
    yield from (f"{', '.join(key)} stands {count} times" for key, count in rows.items() if count > 1)
    names = Counter((one.name.lower(), one.suite) for one in published_baselines())
    yield from (f"two baselines are called {name}" for (name, _), count in names.items() if count > 1)
    for row in published().scores:
        if (row.spread is None) != (row.spread_type == "none"):
            yield f"{row.source}, {row.agent} on {row.full_task}: spread {row.spread} of type {row.spread_type}"
    for baseline in published_baselines():
        if baseline.suite is not None:
            known = {task.name for task in registered_suite(baseline.suite).tasks}
            yield from (
                f"{baseline.name}: {row.full_task} is no task of {baseline.suite}"
                for row in baseline.scores
                if row.full_task not in known
            )


def _source_faults() -> Iterator[str]:
    for name in source_names():
        if not source_of(name).reliability:
            yield f"source {name} does not say how reliable it is"
    tables = {row.source for row in published().scores} | {row.source for row in published().aggregates}
    yield from (f"{table} has no short name" for table in sorted(tables - SOURCES.keys()))
    yield from (f"{table} is given a short name and is in no file" for table in sorted(SOURCES.keys() - tables))


def _normaliser_faults() -> Iterator[str]:
    experts = [row for row in published().normalisation if row.kind == "expert"]
    for name in sorted({row.suite for row in experts}):
        normaliser = registered_suite(name).normaliser
        references = {} if normaliser is None else normaliser.references
        rows = [row for row in experts if row.suite == name]
        for row in rows:
            if references.get(row.full_task) != row.value:
                yield f"{name} divides {row.full_task} by {references.get(row.full_task)}, {row.source} by {row.value}"
        for task in sorted(references.keys() - {row.full_task for row in rows}):
            yield f"no source gives an expert return of {task}"


def _derived_faults() -> Iterator[str]:
    for stored in published().derived:
        source = stored.from_source.split()[0]
        baselines = [one for one in find_published(source) if (one.agent, one.suite) == (stored.agent, stored.suite)]
        if len(baselines) != 1:
            yield f"{stored.from_source}, {stored.agent}: {len(baselines)} baselines have these scores"
            continue
        name = baselines[0].name
        for column, value in derive(summary_scores(baselines[0], registered_suite(stored.suite))).items():
            if not math.isclose(getattr(stored, column), value, rel_tol=0, abs_tol=_ROUNDING):
                yield f"{name}: {column} is stored as {getattr(stored, column)} and comes out as {value:.5f}"


def derive(summary: SummaryScores) -> dict[str, float]:
    """The numbers of a row of derived_means.csv, by normal theory with independent tasks."""
    scores, errors = summary.scores, summary.score_errors
    n_tasks = len(scores)
    mean, error = float(np.mean(scores)), float(np.sqrt(np.sum(errors**2))) / n_tasks
    return {
        "n_tasks": n_tasks,
        "mean_normalised": mean,
        "stderr_normal_approx": error,
        "ci95_low": mean - _NORMAL_95 * error,
        "ci95_high": mean + _NORMAL_95 * error,
        "optimality_gap_lower_bound": float(np.mean(1 - np.minimum(scores, 1))),
    }
