"""The baselines that a report shows, beside agents with runs or alone."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from urlbench.core.errors import UserError
from urlbench.core.types import Suite
from urlbench.reports.scores import Scores
from urlbench.reports.sides import Side, sides_of
from urlbench.results.cells import Results
from urlbench.results.selection import Selection, wanted_tasks
from urlbench.runs.plan import format_frames


@dataclass(frozen=True)
class Baseline:
    """One agent that a report shows without its run directories.

    Attributes:
        word: what --agents asked for it with.
        side: all that is known of it.
        scores: on the tasks of the report.
        remark: how it was pretrained, if not as the suite says; empty otherwise.
    """

    word: str
    side: Side
    scores: Scores
    remark: str

    @property
    def label(self) -> str:
        """What it is called: `source/agent`."""
        return self.side.label

    @property
    def source(self) -> str:
        """The publication, or the name of the frozen file."""
        return self.label.partition("/")[0]


def load_baselines(words: Sequence[str], suite: Suite, preset: str, snapshot: int) -> list[Baseline]:
    """Baselines to stand beside results.

    Args:
        words: `baseline:source` or `baseline:source/agent`.
        suite: of the results.
        preset: of the results.
        snapshot: that the results started from.

    Raises:
        UserError: for unknown names, and baselines of another suite, version, preset or snapshot.
    """
    found = []
    for word in words:
        for side in sides_of(word, suite.full_name, preset):
            _check_alike(side, suite, preset, snapshot)
            remark = ""
            if side.pretrained_in != suite.full_name:
                remark = f"pretrained as in {side.pretrained_in}, not as in {suite.full_name}"
            found.append(Baseline(word, side, side.scores, remark))
    return found


def _check_alike(side: Side, suite: Suite, preset: str, snapshot: int) -> None:
    """UserError if a baseline cannot stand in one table with results."""
    if side.kind != "published" and side.suite != suite.full_name:
        raise UserError(
            f"baseline {side.label!r} was made on {side.suite} and never stands in one table with results of "
            f"{suite.full_name}; leave it out, or see urlbench compare."
        )
    if side.protocol.preset != preset:
        raise UserError(
            f"baseline {side.label!r} is of preset {side.protocol.preset!r} and never stands beside results of preset "
            f"{preset!r}, whose budgets are others; leave it out."
        )
    if side.pretrained_in == suite.full_name and side.snapshot not in (None, 0, snapshot):
        unit = side.protocol.pretrain_unit
        raise UserError(
            f"baseline {side.label!r} started from {format_frames(side.snapshot or 0)} {unit} of pretraining and "
            f"cannot stand beside results that started from {format_frames(snapshot)}; leave it out, or change "
            "--snapshot."
        )


def baseline_lines(baselines: Sequence[Baseline]) -> list[str]:
    """Where baselines come from; what holds for all of a source once."""
    lines: dict[tuple[str, str], list[str]] = {}
    for baseline in baselines:
        for line in dict.fromkeys((*baseline.side.origin, *([baseline.remark] if baseline.remark else []))):
            lines.setdefault((baseline.source, line), []).append(baseline.label)
    n_of = Counter(baseline.source for baseline in baselines)
    return [
        f"{source if len(labels) == n_of[source] else ', '.join(labels)}: {line}"
        for (source, line), labels in lines.items()
    ]


def remarks(baselines: Sequence[Baseline]) -> list[str]:
    """What a table must say of baselines that were not made as the suite says."""
    return [f"{baseline.label}: {baseline.remark}." for baseline in baselines if baseline.remark]


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
    words: list[str] = list(agents or matrices)
    keys = () if results is None else results.agents
    entries: dict[str, Scores] = {}
    for word in words:
        for key in keys:
            if word in (key.label, key.name, f"{key.name}-{key.config_hash}"):
                entries.setdefault(key.label, matrices[key.label])
        for baseline in baselines:
            if word == baseline.word:
                entries.setdefault(baseline.label, baseline.scores)
    return entries


def baseline_tasks(suite: Suite, baselines: Sequence[Baseline], selection: Selection) -> list[str]:
    """The tasks of a report without runs, in the suite's order: all that any baseline has, or those asked for.

    Raises:
        UserError: for unknown names, and if no baseline has any of the tasks.
    """
    found = {task for baseline in baselines for task in baseline.scores.tasks}
    chosen = wanted_tasks(suite, [], selection) if selection.tasks or selection.domains else None
    tasks = [task.name for task in suite.tasks if task.name in found and (chosen is None or task.name in chosen)]
    if not tasks:
        raise UserError("none of these baselines has a score on any of these tasks; see urlbench baselines show NAME.")
    return tasks


def without_source(entries: Mapping[str, Scores]) -> tuple[str, dict[str, Scores]]:
    """The source that all labels begin with, and the scores by what is left of them; no source if they have several."""
    sources = {label.partition("/")[0] for label in entries}
    if len(sources) != 1:
        return "", dict(entries)
    return sources.pop(), {label.partition("/")[2]: scores for label, scores in entries.items()}
