"""A comparison on one screen, readable in 80 columns."""

from collections.abc import Iterator, Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from urlbench.reports.comparison import Comparison, Verdict, verdict
from urlbench.reports.comparison_report import answer_words, grouped_cautions, more_seeds, signed
from urlbench.reports.sides import Side
from urlbench.reports.tables import format_estimate, format_mean
from urlbench.statistics.differences import Difference
from urlbench.statistics.estimates import Estimate

_STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "not resolved": "", "no interval": "dim"}
_MARKS: dict[Verdict, str] = {"better": "better", "worse": "worse", "not resolved": "?", "no interval": ""}
_MOST_CAUTIONS = 12


def show(comparisons: Sequence[Comparison], console: Console) -> None:
    """Print the answers, where the differences are, and what to be careful about."""
    for part in (*(_one(comparisons[0]) if len(comparisons) == 1 else _several(comparisons)), *_cautions(comparisons)):
        console.print(part)


def _one(comparison: Comparison) -> Iterator[RenderableType]:
    """Tasks, domains and aggregates against a single opponent."""
    yield Text(f"{answer_words(comparison)}.", style=f"bold {_STYLES[comparison.answer.verdict]}")
    yield Text(f"new: {_words(comparison.new)}\nagainst: {_words(comparison.against)}", style="dim")
    table = _table("", "new", "against", "difference", "")
    # One less than in a file, for the width.
    kind = comparison.kind
    decimals = kind.decimals - 1
    for row in comparison.tasks:
        own, other = (format_mean(mean, decimals, with_n=False) for mean in (row.new, row.against))
        _add(table, row.task, own, other, row.difference, verdict(row.difference))
    for title, rows in ((f"mean {kind.short}", comparison.domains), ("all tasks", comparison.aggregates)):
        table.add_row(Text(title, style="dim"))
        for score in rows:
            _add(
                table,
                comparison.metric_words(score.name),
                _value(score.new),
                _value(score.against),
                score.difference,
                score.verdict,
            )
    yield table
    yield Text(f"P(new > against) = {format_estimate(comparison.improvement)}. {_power_words(comparison)}")
    notes = [row.difference.estimate.note for row in comparison.aggregates] + [comparison.improvement.note]
    yield from (Text(f"Note: {note}.") for note in dict.fromkeys(notes) if note)
    yield Text(
        f"Tasks: mean {kind.measured} ± standard error, the difference is of scores. Brackets: 95 %, each for itself.\n"
        "better, worse: the interval excludes 0.",
        style="dim",
    )


def _several(comparisons: Sequence[Comparison]) -> Iterator[RenderableType]:
    """One row for each opponent: the answer, and in which domains and on how many tasks the difference is."""
    first = comparisons[0]
    yield Text(f"new: {_words(first.new)}", style="dim")
    groups = {one.against.label.rpartition("/")[0] for one in comparisons}
    # The group that all share is said once, so that the table is no wider than the screen.
    group = f"{groups.pop()}/" if len(groups) == 1 and "" not in groups else ""
    against = f"against {group}" if group else "against"
    table = _table(against, "metric", "new", "other", "difference", "P(>)", "more", names=2)
    domains = list(dict.fromkeys(row.name for one in comparisons for row in one.domains))
    where = _table(against, *domains, "tasks >", "<", "of")
    for one in comparisons:
        answer, label = one.answer, one.against.label.removeprefix(group)
        table.add_row(
            label,
            one.headline_words,
            _value(answer.new),
            _value(answer.against),
            Text(signed(answer.difference), style=_STYLES[answer.verdict]),
            "—" if one.improvement.value is None else f"{one.improvement.value:.2f}",
            more_seeds(one.power),
        )
        by_domain = {row.name: row.difference for row in one.domains}
        verdicts = [verdict(row.difference) for row in one.tasks]
        counts = [str(verdicts.count("better")), str(verdicts.count("worse")), str(len(verdicts))]
        where.add_row(label, *(_short(by_domain.get(domain)) for domain in domains), *counts)
    yield table
    yield Text()
    yield where
    yield Text(
        "P(>): probability that a run of new is better; more: seeds until the difference is resolved.\n"
        "Domains: differences of mean scores, with a star where the 95 % interval excludes 0; tasks >, <: on how\n"
        "many tasks it is better, worse. Task by task: one --against, or --out.",
        style="dim",
    )


def _cautions(comparisons: Sequence[Comparison]) -> Iterator[Text]:
    found = grouped_cautions(comparisons)
    if found:
        yield Text("Careful:", style="bold yellow")
    yield from (Text(f"- {_about(labels)}: {text}") for labels, text in found[:_MOST_CAUTIONS])
    if len(found) > _MOST_CAUTIONS:
        yield Text(f"- and {len(found) - _MOST_CAUTIONS} more: see them with --out, or with --json")


def _about(labels: Sequence[str]) -> str:
    return "; ".join(labels) if len(labels) < 4 else f"{labels[0]} and {len(labels) - 1} others"


def _table(*header: str, names: int = 1) -> Table:
    """A table whose first `names` columns hold names."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    # Names may be folded, numbers never: a number that is cut is another number.
    for number, name in enumerate(header):
        table.add_column(name, no_wrap=number >= names, overflow="fold", justify="right" if number else "left")
    return table


def _add(table: Table, name: str, new: str, against: str, difference: Difference, word: Verdict) -> None:
    table.add_row(name, new, against, Text(signed(difference), style=_STYLES[word]), Text(_MARKS[word], _STYLES[word]))


def _value(estimate: Estimate) -> str:
    return "—" if estimate.value is None else f"{estimate.value:.3f}"


def _short(difference: Difference | None) -> Text:
    if difference is None or difference.estimate.value is None:
        return Text("—")
    mark = "*" if difference.resolved else " "
    return Text(f"{difference.estimate.value:+.3f}{mark}", style=_STYLES[verdict(difference)])


def _words(side: Side) -> str:
    """Who that is: `apt, frozen, 10 seeds, urlb-states@1 paper`."""
    seeds = "seeds unknown" if side.least_seeds is None else f"{side.least_seeds} seeds"
    return f"{side.label} ({side.kind}, {seeds}, {side.suite}, preset {side.protocol.preset})"


def _power_words(comparison: Comparison) -> str:
    power, headline = comparison.power, comparison.headline_words
    if power.more_seeds is None:
        return f"More seeds: {power.note}."
    if power.more_seeds == 0:
        return f"The {headline} needs no more seeds."
    return (
        f"About {power.more_seeds} more seeds of each agent would resolve the {headline} with a probability "
        f"of {power.power:.1f}, if the true difference is the one observed."
    )
