"""A comparison as files: tables for Markdown, LaTeX and CSV, and everything as JSON."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import urlbench
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Suite
from urlbench.reports.comparison import Comparison, ScoreRow, verdict
from urlbench.reports.document import Report
from urlbench.reports.files import write_report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import Origins
from urlbench.reports.provenance import Provenance
from urlbench.reports.sides import Side
from urlbench.reports.tables import Table, Value, format_estimate, format_mean
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.differences import Difference, Power

FORMATS = ("md", "latex", "csv", "json")
ONE_IN_TWENTY = (
    "Each interval is one of 95 %, not corrected for their number: of twenty true differences of 0, about one is "
    "called better or worse."
)


def write_comparison(
    comparisons: Sequence[Comparison], suite: Suite, command: str, folder: Path, formats: Sequence[str] = FORMATS
) -> list[Path]:
    """Write comparisons of one new agent into `folder`; the files. The same input gives the same bytes.

    Args:
        comparisons: at least one.
        suite: that was asked for.
        command: the command line that makes the same files.
        folder: made if it does not exist.
        formats: some of `FORMATS`.

    Raises:
        UserError: for unknown formats, and if the folder cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
    report = _report(comparisons, suite, command)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = write_report(report, folder, [name for name in formats if name != "json"])
        if "json" in formats:
            files.append(folder / f"comparison-{report.frame.stem}.json")
            text = json.dumps(as_json(comparisons, suite, command), indent=2, ensure_ascii=False) + "\n"
            files[-1].write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(
            f"cannot write the comparison to {str(folder)!r} ({error.strerror}); give --out another folder."
        ) from error
    return files


def _report(comparisons: Sequence[Comparison], suite: Suite, command: str) -> Report:
    new = comparisons[0].new
    sides = [new, *(one.against for one in comparisons)]
    published = [side.label for side in sides if isinstance(side.scores, SummaryScores)]
    marks = [f"REDUCED BUDGET: preset {new.protocol.preset}"] if any(side.protocol.reduced for side in sides) else []
    if published:
        marks.append(f"SUMMARY ONLY: no runs of {_enumerated(published)}, intervals rest on a normal approximation")
    frame = Frame(
        name=(
            f"{new.label} against {_enumerated([one.against.label for one in comparisons])} on {suite.full_name}, "
            f"preset {new.protocol.preset}"
        ),
        stem=f"{_file_name(new.label)}-{suite.full_name}-{new.protocol.preset}",
        scope="; ".join(answer_words(one) for one in comparisons) + ".",
        marks=tuple(marks),
    )
    details = (tasks_table(comparisons), domains_table(comparisons), aggregates_table(comparisons))
    # On paper there is room for one opponent's tasks.
    on_paper = details if len(comparisons) == 1 else ()
    return Report(
        frame=frame,
        tables=(answers_table(comparisons), *on_paper),
        long_tables=(*(() if on_paper else details), cautions_table(comparisons)),
        figures={},
        provenance=Provenance(
            short=f"urlbench {urlbench.__version__} · {command}",
            entries=(
                ("Comparison", (command,)),
                ("Made with", (f"urlbench {urlbench.__version__}",)),
                *((side.label, side.origin) for side in sides),
            ),
        ),
        origins=Origins(
            domains={task.name: task.domain for task in suite.tasks if task.name in new.scores.tasks},
            commands={},
            baselines={},
            snapshot=None,
            scores=(),
        ),
    )


def _enumerated(labels: Sequence[str]) -> str:
    return ", ".join(labels) if len(labels) < 4 else f"{len(labels)} agents"


def answers_table(comparisons: Sequence[Comparison]) -> Table:
    """One row for each opponent: is the new agent better, by how much, how sure is that?"""
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value | None, ...]] = []
    for one in comparisons:
        answer = one.answer
        texts = (format_estimate(answer.new), format_estimate(answer.against), signed(answer.difference))
        improvement = format_estimate(one.improvement)
        rows.append(
            (
                one.against.label,
                one.metric_words(one.headline),
                *texts,
                answer.verdict,
                improvement,
                more_seeds(one.power),
            )
        )
        numbers = (answer.new, answer.against, answer.difference.estimate, None, one.improvement, None)
        values.append((None, None, *numbers))
    new = comparisons[0].new.label
    notes = [
        f"Difference: {new} minus the agent of the row, over the tasks that both have. Verdict: whether its 95 % "
        "interval excludes 0.",
        "More seeds: of each agent whose runs are known, until the interval excludes 0 with a probability of "
        f"{comparisons[0].power.power:.1f}, if the true difference is the one observed.",
        *_notes(comparisons),
    ]
    header = ("agent", "metric", new, "other", "difference", "verdict", f"P({new} > other)", "more seeds")
    return Table("answers", f"Is {new} better?", header, tuple(rows), tuple(notes), values=tuple(values))


def tasks_table(comparisons: Sequence[Comparison]) -> Table:
    """Task by task: what was measured, and the difference of scores."""
    rows: list[tuple[str, ...]] = []
    values: list[tuple[Value | None, ...]] = []
    for one in comparisons:
        decimals = one.kind.decimals
        for row in one.tasks:
            means = (format_mean(row.new, decimals), format_mean(row.against, decimals))
            place = (one.against.label, row.domain, row.task)
            rows.append((*place, *means, signed(row.difference), verdict(row.difference)))
            values.append((None, None, None, row.new, row.against, row.difference.estimate, None))
    new = comparisons[0].new.label
    return Table(
        "tasks",
        f"{new}, task by task",
        ("agent", "domain", "task", new, "other", "difference of scores", "verdict"),
        tuple(rows),
        (
            "Mean ± standard error over runs (n = number of runs; ? if it is not stated). "
            + comparisons[0].new.scores.scale.formula,
            ONE_IN_TWENTY,
        ),
        values=tuple(values),
    )


def domains_table(comparisons: Sequence[Comparison]) -> Table:
    """The mean score of each domain."""
    rows = [(one.against.label, row) for one in comparisons for row in one.domains]
    return _scores_table(comparisons, "domains", f"mean {comparisons[0].kind.short} per domain", "domain", rows)


def aggregates_table(comparisons: Sequence[Comparison]) -> Table:
    """The aggregates over all tasks."""
    rows = [
        (one.against.label, replace(row, name=one.metric_words(row.name)))
        for one in comparisons
        for row in one.aggregates
    ]
    return _scores_table(comparisons, "aggregates", "all tasks", "metric", rows)


def _scores_table(
    comparisons: Sequence[Comparison], name: str, what: str, first: str, rows: Sequence[tuple[str, ScoreRow]]
) -> Table:
    new = comparisons[0].new.label
    texts = [
        (label, row.name, format_estimate(row.new), format_estimate(row.against), signed(row.difference), row.verdict)
        for label, row in rows
    ]
    values = [(None, None, row.new, row.against, row.difference.estimate, None) for _, row in rows]
    header = ("agent", first, new, "other", "difference", "verdict")
    return Table(name, f"{new}, {what}", header, tuple(texts), _notes(comparisons), values=tuple(values))


def cautions_table(comparisons: Sequence[Comparison]) -> Table:
    """What speaks against taking the numbers at face value."""
    rows = [("; ".join(about), text) for about, text in grouped_cautions(comparisons)]
    return Table("cautions", "What to be careful about", ("agent", "caution"), tuple(rows), ())


def grouped_cautions(comparisons: Sequence[Comparison]) -> list[tuple[list[str], str]]:
    """Whom each caution is about, and its text; the gravest first, and the same text once."""
    found = sorted((caution for one in comparisons for caution in one.cautions), key=lambda caution: caution.rank)
    about: dict[str, list[str]] = {}
    for caution in found:
        labels = about.setdefault(caution.text, [])
        labels += [] if caution.about in labels else [caution.about]
    return [(labels, text) for text, labels in about.items()]


def _notes(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What values and intervals rest on, each remark once with all it is about."""
    about: dict[str, dict[str, None]] = {}
    for one in comparisons:
        for row in (*one.domains, *one.aggregates):
            for label, estimate in ((one.new.label, row.new), (one.against.label, row.against)):
                if estimate.note:
                    about.setdefault(estimate.note, {})[label] = None
    return tuple(f"{', '.join(labels)}: {note}." for note, labels in about.items())


def answer_words(comparison: Comparison) -> str:
    """The answer in one sentence, without a full stop."""
    answer, new, against = comparison.answer, comparison.new.label, comparison.against.label
    counts = [verdict(row.difference) for row in comparison.tasks]
    where = f"of {len(counts)} tasks better on {counts.count('better')}, worse on {counts.count('worse')}"
    words = {
        "better": f"{new} is better than {against}",
        "worse": f"{new} is worse than {against}",
        "not resolved": f"whether {new} is better than {against} is not resolved",
        "no interval": f"how sure the difference between {new} and {against} is cannot be said",
    }
    return f"{words[answer.verdict]}: {comparison.headline_words} {signed(answer.difference)}; {where}"


def signed(difference: Difference) -> str:
    """`+0.051 [-0.010, +0.112]`; `+0.051 [no interval]` or a dash where there is none."""
    one = difference.estimate
    if one.value is None:
        return "—"
    if one.low is None or one.high is None:
        return f"{one.value:+.3f} [no interval]"
    return f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def more_seeds(power: Power) -> str:
    """How many more seeds it takes, in a word."""
    if power.more_seeds is None:
        return "—"
    return "none" if power.more_seeds == 0 else str(power.more_seeds)


def as_json(comparisons: Sequence[Comparison], suite: Suite, command: str) -> dict[str, Any]:
    """Everything, as plain values."""
    return {
        "urlbench": urlbench.__version__,
        "command": command,
        "suite": suite.full_name,
        "score": suite.score,
        "new": _side_json(comparisons[0].new),
        "against": [
            {
                **_side_json(one.against),
                "answer": answer_words(one),
                "verdict": one.answer.verdict,
                "headline": one.headline,
                "probability_of_improvement": asdict(one.improvement),
                "power": asdict(one.power),
                "aggregates": {row.name: _row_json(row) for row in one.aggregates},
                "domains": {row.name: _row_json(row) for row in one.domains},
                "tasks": {
                    row.task: {
                        "domain": row.domain,
                        "new": asdict(row.new),
                        "against": asdict(row.against),
                        "difference": _difference_json(row.difference),
                        "verdict": verdict(row.difference),
                    }
                    for row in one.tasks
                },
                "cautions": [caution._asdict() for caution in one.cautions],
            }
            for one in comparisons
        ],
    }


def _row_json(row: ScoreRow) -> dict[str, Any]:
    return {
        "new": asdict(row.new),
        "against": asdict(row.against),
        "difference": _difference_json(row.difference),
        "verdict": row.verdict,
    }


def _difference_json(difference: Difference) -> dict[str, Any]:
    return {**asdict(difference.estimate), "resolved": difference.resolved, "paired": difference.paired}


def _side_json(side: Side) -> dict[str, Any]:
    return {
        "label": side.label,
        "kind": side.kind,
        "summary_only": isinstance(side.scores, SummaryScores),
        "suite": side.suite,
        "preset": side.protocol.preset,
        "pretrained_in": side.pretrained_in,
        "snapshot": side.snapshot,
        "versions": {name: list(found) for name, found in side.versions.items()},
        "origin": list(side.origin),
    }


def _file_name(label: str) -> str:
    """A label in letters that every file system takes, and that two labels rarely share."""
    return re.sub(r"[^\w.@+-]+", "-", label).strip("-") or "agent"
