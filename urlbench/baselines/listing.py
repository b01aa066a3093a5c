"""`urlbench baselines list` and `show`: what there is, where it comes from, and where sources disagree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from urlbench.baselines.catalogue import (
    PublishedBaseline,
    aggregates_of,
    find_published,
    mean_scores,
    other_sources,
    published_baselines,
    source_names,
    source_of,
)
from urlbench.baselines.frozen import Frozen, FrozenAgent
from urlbench.baselines.library import find_frozen, stored_names
from urlbench.baselines.published_data import PublishedScore
from urlbench.core.errors import UserError
from urlbench.results.score_kinds import kind_of
from urlbench.results.selection import registered_suite
from urlbench.statistics.estimates import task_mean


def published_rows() -> list[dict[str, str]]:
    """One row for each source and suite with scores per task, and for each source that only gives aggregates."""
    grouped: dict[tuple[str, str | None], list[PublishedBaseline]] = {}
    for baseline in published_baselines():
        grouped.setdefault((baseline.source, baseline.suite), []).append(baseline)
    rows = [
        {
            "name": source,
            "kind": "published",
            "suite": suite or "(no suite of urlbench)",
            "tasks": str(max(len(one.scores) for one in of_source)),
            "agents": ", ".join(one.name.partition("/")[2] for one in of_source),
        }
        for (source, suite), of_source in grouped.items()
    ]
    only_aggregates = sorted(set(source_names()) - {source for source, _ in grouped})
    for source in only_aggregates:
        agents = dict.fromkeys(aggregate.agent for aggregate in aggregates_of(source))
        suites = dict.fromkeys(aggregate.suite for aggregate in aggregates_of(source))
        suite = ", ".join("(no suite of urlbench)" if one == "others" else one for one in suites)
        rows.append(
            {"name": source, "kind": "aggregates", "suite": suite, "tasks": "none", "agents": ", ".join(agents)}
        )
    return rows


def stored_rows(folder: Path) -> list[dict[str, str]]:
    """One row for each frozen or imported baseline in a folder; a file that was changed says so."""
    rows = []
    for name in stored_names(folder):
        try:
            frozen, agents = find_frozen(name, folder)
        except UserError as error:
            rows.append({"name": name, "kind": "damaged", "suite": "", "tasks": "", "agents": str(error)})
            continue
        kind = "frozen" if frozen.kind == "runs" else "imported"
        suite, tasks = f"{frozen.suite} {frozen.preset}", str(len(frozen.tasks))
        labels = ", ".join(agent.label for agent in agents)
        rows.append({"name": name, "kind": kind, "suite": suite, "tasks": tasks, "agents": labels})
    return rows


def format_frozen(frozen: Frozen, agents: Sequence[FrozenAgent]) -> str:
    """The text of `urlbench baselines show` for a frozen or imported baseline."""
    whose = "runs of urlbench" if frozen.kind == "runs" else "results of other code, as they were imported"
    lines = [
        f"{frozen.name}: {whose}, {frozen.suite}, preset {frozen.preset}, {len(frozen.tasks)} tasks",
        *(f"{key}: {value}" for key, value in frozen.origin.items() if value),
    ]
    kind = kind_of(frozen)
    for agent in agents:
        matrix = frozen.matrix(agent)
        start = f"snapshot {agent.snapshot}" if agent.snapshot else "no pretraining"
        lines += [
            "",
            f"{matrix.agent}: {start}, configuration {agent.config_hash or 'unknown'}, {len(agent.runs)} runs",
        ]
        lines += [f"  made with: {agent.command}"] if agent.command else []
        lines += [f"  versions: {', '.join(_versions(agent)) or 'unknown'}"]
        rows = [["task", f"mean {kind.measured}", "std. error", "seeds"]]
        for column, task in enumerate(matrix.tasks):
            mean = task_mean(matrix.measured[:, column])
            error = "—" if mean.standard_error is None else f"{mean.standard_error:.3g}"
            rows.append([task, f"{mean.mean:.5g}", error, str(mean.n)])
        lines += [*_columns(rows), f"  mean {kind.short} over {len(matrix.tasks)} tasks: {np.mean(matrix.scores):.3f}"]
    for environment in frozen.environments:
        git = environment.git or {}
        state = " with uncommitted changes" if git.get("dirty") else ""
        packages = ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))
        lines += ["", f"environment: urlbench {environment.urlbench}, git {git.get('commit')}{state}, {packages}"]
    return "\n".join(lines)


def _versions(agent: FrozenAgent) -> list[str]:
    return [f"{package} {' and '.join(versions)}" for package, versions in sorted(agent.versions.items())]


def describe_published(name: str) -> dict[str, Any]:
    """All about a source, or about one of its agents, as plain values.

    Raises:
        UserError: for an unknown name.
    """
    source, _, agent = name.partition("/")
    only_aggregates = not agent and source in set(source_names()) - {one.source for one in published_baselines()}
    baselines = [] if only_aggregates else find_published(name)
    printed = {one.agent for one in baselines} if agent else None
    return {
        "name": name,
        "source": source_of(source).model_dump(),
        "baselines": [_describe(one) for one in baselines],
        "aggregates": [
            aggregate.model_dump()
            for aggregate in aggregates_of(source)
            if printed is None or aggregate.agent in printed
        ],
    }


def _describe(baseline: PublishedBaseline) -> dict[str, Any]:
    others = other_sources(baseline)
    means: dict[str, float] = {}
    shared: tuple[str, ...] = ()
    if baseline.suite is not None:
        means, shared = mean_scores([baseline, *others])
        if not means:
            means, shared = mean_scores([baseline])
    elsewhere = {other.name: {row.full_task: row for row in other.scores} for other in others}
    return {
        "name": baseline.name,
        "agent": baseline.agent,
        "suite": baseline.suite,
        "protocol": baseline.protocol,
        "summary_only": True,
        "tables": list(baseline.tables),
        "notes": list(baseline.notes),
        "scores": [
            {
                "task": row.full_task,
                "mean": row.value,
                "spread": row.spread,
                "spread_type": row.spread_type,
                "standard_error": row.standard_error,
                "n_seeds": row.n_seeds,
                "other_sources": {
                    name: by_task[row.full_task].value
                    for name, by_task in elsewhere.items()
                    if row.full_task in by_task
                },
            }
            for row in _in_suite_order(baseline)
        ],
        "mean_score": {"tasks": len(shared), "by_source": means},
    }


def _in_suite_order(baseline: PublishedBaseline) -> list[PublishedScore]:
    if baseline.suite is None:
        return list(baseline.scores)
    order = {task.name: number for number, task in enumerate(registered_suite(baseline.suite).tasks)}
    return sorted(baseline.scores, key=lambda row: order[row.full_task])


def format_published(description: dict[str, Any]) -> str:
    """The text of `urlbench baselines show` for a published source or agent."""
    source = description["source"]
    lines = [
        source["what"],
        f"read in: {source['where_read']} ({source['commit_or_index_id']})",
        f"reliability: {source['reliability']}",
        "summary only: no run behind these numbers was published",
    ]
    for baseline in description["baselines"]:
        lines += ["", *_baseline_lines(baseline)]
    if description["aggregates"]:
        lines += ["", "aggregates as published:"]
        rows = []
        for row in description["aggregates"]:
            interval = f"[{row['ci_low']}, {row['ci_high']}]" if row["ci_low"] else ""
            rows.append([row["agent"], row["metric"], row["value"], interval, row["value_kind"], row["source"]])
        lines += _columns(rows)
        notes = dict.fromkeys(row["notes"] for row in description["aggregates"] if row["notes"])
        lines += [f"  note: {note}" for note in notes]
    return "\n".join(lines)


def _baseline_lines(baseline: dict[str, Any]) -> list[str]:
    where = f"suite {baseline['suite']}" if baseline["suite"] else "a protocol that no suite of urlbench has"
    if baseline["protocol"] != baseline["suite"]:
        where += f", but pretrained as in {baseline['protocol']}"
    others = list(dict.fromkeys(name for row in baseline["scores"] for name in row["other_sources"]))
    rows = [["task", "mean", "as published", "std. error", "seeds", *others]]
    for row in baseline["scores"]:
        published = {"stderr": "± {:g} standard error", "std": "± {:g} standard deviation", "none": "no spread"}
        seeds = "not stated" if row["n_seeds"] is None else str(row["n_seeds"])
        error = "—" if row["standard_error"] is None else f"{row['standard_error']:.1f}"
        cells = [row["task"], f"{row['mean']:g}", published[row["spread_type"]].format(row["spread"]), error, seeds]
        rows.append(
            [*cells, *(f"{row['other_sources'][name]:g}" if name in row["other_sources"] else "—" for name in others)]
        )
    lines = [f"{baseline['name']}: {where}", *_columns(rows)]
    means = baseline["mean_score"]
    if len(means["by_source"]) > 1:
        text = ", ".join(f"{value:.3f} {name}" for name, value in means["by_source"].items())
        lines.append(f"  sources differ, mean score over the {means['tasks']} tasks that all give: {text}")
    elif means["by_source"]:
        (value,) = means["by_source"].values()
        lines.append(f"  mean score over {means['tasks']} tasks: {value:.3f}")
    return [*lines, *(f"  note: {note}" for note in baseline["notes"])]


def _columns(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  " + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
