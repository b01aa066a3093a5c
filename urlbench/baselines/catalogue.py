"""The published baselines by name: `choreographer-2023/CIC` is one agent of a source, `choreographer-2023` all of them.

Every paper runs its baselines again, so the same agent differs from source to source. Scores of two sources stand side
by side here and are never pooled.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from urlbench.baselines.published_data import PublishedAggregate, PublishedScore, Source, published
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Suite
from urlbench.results.score_kinds import scale_of
from urlbench.results.selection import registered_suite
from urlbench.results.summary_scores import SummaryScores

PREFIX = "baseline:"
PRESET = "paper"

# Short name and entry in sources.csv of each table, figure or sentence that numbers were read in. Two tables share a
# name only if they are of one study and none of its agents is in both.
SOURCES = {
    "choreographer-2023 Table 2": ("choreographer-2023", "choreographer-2023"),
    "choreographer-2023 Sec. 4.2 text": ("choreographer-2023", "choreographer-2023"),
    "moss-2022 README table": ("moss-2022", "moss-2022"),
    "moss-2022 README figures/rliable.png": ("moss-2022", "moss-2022"),
    "moss-2022 via wizwand listing": ("moss-2022-listing", "moss-2022 via wizwand listing"),
    "amped-2025 page performance_table.png (paper Table 13)": ("amped-2025", "amped-2025"),
    "amped-2025 page component_ablation.png (paper Table 1)": ("amped-2025", "amped-2025"),
    "amped-2025 page aggregated_performance.png": ("amped-2025", "amped-2025"),
    "amped-2025 note": ("amped-2025-note", "amped-2025 note"),
    "becl-2023 paper value quoted in Rooshy-yang/BeCL issue 4": ("becl-2023", "becl-2023 / becl-issue4"),
    "becl-issue4 reproduction (C. Ying)": ("becl-reproduction", "becl-2023 / becl-issue4"),
    "peac-2024 Table 8": ("peac-2024-states", "peac-2024"),
    "peac-2024 Table 9": ("peac-2024-states", "peac-2024"),
    "peac-2024 Table 10": ("peac-2024-pixels", "peac-2024"),
    "peac-2024 Table 11": ("peac-2024-pixels", "peac-2024"),
    "exdm-2026 page urlb_ddpg.png": ("exdm-2026", "exdm-2026"),
    "exdm-2026 note": ("exdm-2026-note", "exdm-2026 note"),
    "euclid-2023 abstract": ("euclid-2023", "euclid-2023 abstract"),
    "mastering-urlb-2023 abstract": ("mastering-urlb-2023", "mastering-urlb-2023 abstract"),
    "literature note quoting mastering-urlb-2023": ("mastering-urlb-2023-note", "mastering-urlb-2023 abstract"),
    "paperswithcode page of arXiv 2209.12016": ("mastering-urlb-2023-leaderboard", "paperswithcode page"),
    "cic-2022 abstract": ("cic-2022", "cic-2022 abstract"),
    "urlb-2021 Sec. 5": ("urlb-2021", "urlb-2021"),
}
_SUITES = {"urlb-states": "urlb-states", "sparse-jaco": "jaco-sparse", "urlb-pixels": "urlb-pixels"}
# What a table shows among runs of another protocol.
_OTHER_PROTOCOL = {("choreographer-2023", "Choreographer", "urlb-states"): "urlb-offline"}


@dataclass(frozen=True)
class PublishedBaseline:
    """One agent of one source on one suite.

    Attributes:
        source: short name of the source.
        agent: as the source prints it.
        suite: name of the suite whose tasks these are; None if no suite of ours has them.
        protocol: name of the suite whose protocol the numbers come from, mostly `suite` itself; None without one.
        scores: task by task, as they stand in the file.
    """

    source: str
    agent: str
    suite: str | None
    protocol: str | None
    scores: tuple[PublishedScore, ...]

    @property
    def name(self) -> str:
        """`source/agent`, in signs that need no quotes."""
        return f"{self.source}/{re.sub(r'[^A-Za-z0-9.+]+', '-', self.agent).strip('-')}"

    @property
    def family(self) -> str:
        """The agent without what a source adds in brackets, to find it in other sources: `apt` of `APT (ICM)`."""
        return self.agent.partition(" (")[0].lower()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about the scores, each remark once."""
        return tuple(dict.fromkeys(score.notes for score in self.scores))

    @property
    def tables(self) -> tuple[str, ...]:
        """Where the scores stand in the source."""
        return tuple(dict.fromkeys(score.source for score in self.scores))


@cache
def published_baselines() -> tuple[PublishedBaseline, ...]:
    """All published agents that come with scores per task, in the order of the file."""
    grouped: dict[tuple[str, str, str], list[PublishedScore]] = {}
    for score in published().scores:
        grouped.setdefault((source_name(score.source), score.agent, score.suite), []).append(score)
    return tuple(
        PublishedBaseline(
            source,
            agent,
            _SUITES.get(suite),
            _OTHER_PROTOCOL.get((source, agent, suite), _SUITES.get(suite)),
            tuple(scores),
        )
        for (source, agent, suite), scores in grouped.items()
    )


def source_name(table: str) -> str:
    """The short name of the source that a table belongs to."""
    return SOURCES[table][0]


def source_names() -> list[str]:
    """All short names, of sources with scores per task or with aggregates."""
    return sorted({name for name, _ in SOURCES.values()})


def source_of(name: str) -> Source:
    """What a source is, where it was read and how far to trust it."""
    ids = {identity for short, identity in SOURCES.values() if short == name}
    (found,) = [source for source in published().sources if source.id in ids]
    return found


def aggregates_of(name: str, agent: str | None = None) -> list[PublishedAggregate]:
    """The aggregates that a source prints or draws; with `agent`, those of that name as it is printed there."""
    return [
        aggregate
        for aggregate in published().aggregates
        if source_name(aggregate.source) == name and agent in (None, aggregate.agent)
    ]


def find_published(name: str) -> list[PublishedBaseline]:
    """The baselines called `source` or `source/agent`; signs other than letters and digits do not matter.

    Raises:
        UserError: for an unknown name.
    """
    source, _, agent = name.partition("/")
    of_source = [baseline for baseline in published_baselines() if baseline.source == source]
    if not of_source and source in source_names():
        raise UserError(
            f"source {source!r} gives no scores per task, only aggregates; see them with: urlbench baselines show "
            f"{source}"
        )
    if not of_source:
        raise unknown_name("baseline", source, {one.source for one in published_baselines()}, see=_SEE)
    found = [baseline for baseline in of_source if not agent or _plain(agent) == _plain(baseline.agent)]
    if not found:
        raise unknown_name("agent", agent, {one.name for one in of_source}, where=f"of source {source!r}", see=_SEE)
    return found


def other_sources(baseline: PublishedBaseline) -> list[PublishedBaseline]:
    """What other sources say of the same agent on the same suite."""
    return [
        other
        for other in published_baselines()
        if baseline.suite is not None
        and (other.family, other.suite) == (baseline.family, baseline.suite)
        and other.source != baseline.source
    ]


def summary_scores(baseline: PublishedBaseline, suite: Suite) -> SummaryScores:
    """The scores of a published agent as the statistics take them.

    Raises:
        UserError: if they cannot stand beside results of `suite`.
    """
    if not fits(baseline, suite):
        whose = f"of suite {baseline.suite}" if baseline.suite else "of a protocol that no suite of urlbench has"
        raise UserError(
            f"baseline {baseline.name!r} is {whose} and cannot stand beside results of {suite.name!r}; {_SEE_THEM}"
        )
    by_task = {score.full_task: score for score in baseline.scores}
    tasks = [task for task in suite.tasks if task.name in by_task]
    rows = [by_task[task.name] for task in tasks]
    errors = [np.nan if row.standard_error is None else row.standard_error for row in rows]
    return SummaryScores(
        agent=baseline.agent,
        source=baseline.source,
        suite=suite.full_name,
        preset=PRESET,
        tasks=tuple(task.name for task in tasks),
        domains=tuple(task.domain for task in tasks),
        means=np.array([row.value for row in rows]),
        standard_errors=np.array(errors),
        n_seeds=np.array([row.n_seeds or 0 for row in rows], dtype=np.int64),
        scale=scale_of(suite, [task.name for task in tasks]),
        label=f"{baseline.source}/{baseline.agent}",
    )


def mean_scores(baselines: Sequence[PublishedBaseline]) -> tuple[dict[str, float], tuple[str, ...]]:
    """The mean score of each baseline by its name, over the tasks that all of them give; and those tasks.

    There are no means if no task is given by all.

    Args:
        baselines: of one suite of ours.
    """
    summaries = {one.name: summary_scores(one, registered_suite(str(one.suite))) for one in baselines}
    shared = set.intersection(*(set(summary.tasks) for summary in summaries.values()))
    scores = {name: summary.select(shared).scores for name, summary in summaries.items()}
    means = {name: float(np.mean(values)) for name, values in scores.items() if shared}
    return means, tuple(task for task in next(iter(summaries.values())).tasks if task in shared)


def fits(baseline: PublishedBaseline, suite: Suite) -> bool:
    """Whether the scores can stand beside results of a suite; how agents were pretrained may differ."""
    return baseline.suite is not None and comparable(registered_suite(baseline.suite), suite)


def comparable(one: Suite, other: Suite) -> bool:
    """Whether scores mean the same in two suites: tasks, observations, and what scores are made of."""
    return one.name == other.name or _meaning(one) == _meaning(other)


def _meaning(suite: Suite) -> tuple[object, ...]:
    return suite.observation, suite.score, suite.normaliser, suite.subtasks, {task.name for task in suite.tasks}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())


_SEE = "urlbench baselines list"
_SEE_THEM = f"see what there is with: {_SEE}"
