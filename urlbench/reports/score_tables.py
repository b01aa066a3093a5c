"""The tables of a report about fine-tunings: aggregates, domains, tasks, pairs of agents, and each agent's curves."""

from collections.abc import Mapping, Sequence

import numpy as np

from urlbench.reports.origins import Source
from urlbench.reports.pair_figures import Pairs, by_wins
from urlbench.reports.scores import Scores, estimates, published_labels, task_means
from urlbench.reports.tables import Table, format_estimate, format_mean
from urlbench.results.cells import Results
from urlbench.results.score_kinds import kind_of
from urlbench.results.summary_scores import SummaryScores
from urlbench.statistics.aggregates import AGGREGATES
from urlbench.statistics.estimates import Estimate, Floats, TaskMean, task_mean
from urlbench.statistics.resampling import CiMethod

_CI_WORDS = {
    "stratified": "stratified bootstrap over runs, task by task",
    "cluster": "cluster bootstrap over (domain, pretraining seed); agents without pretraining: over runs, task by task",
}
# More labels than these are not listed where a word says it.
_FEW = 3
BEST_NOTE = (
    "Bold: in each row the highest mean, and every mean that is below it by no more than the standard error of that "
    "highest mean."
)


def estimates_of(
    entries: Mapping[str, Scores], ci: CiMethod, reps: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """The aggregates over all tasks, and the mean score of each domain; both by agent label."""
    overall = {label: estimates(scores, ci, reps) for label, scores in entries.items()}
    domains = {
        label: {
            domain: estimates(scores.select(tasks), ci, reps)["Mean"]
            for domain, tasks in tasks_by_domain(scores).items()
        }
        for label, scores in entries.items()
    }
    return overall, domains


def tasks_table(entries: Mapping[str, Scores], remarks: Sequence[str] = ()) -> Table:
    """What was measured at the end, per task: mean ± standard error, the best in bold.

    Source: the form of Mazzaglia et al. 2023 (Choreographer), Table 2.
    """
    first = next(iter(entries.values()))
    columns = [task_means(scores) for scores in entries.values()]
    numbers = {mean.n for column in columns for mean in column}
    kind, ends = first.scale.kind, first.scale.ends
    decimals = [0 if all(map(_is_whole, column)) else kind.decimals for column in columns]
    values = list(zip(*columns, strict=True))
    rows, sources = [], []
    for index, (task, means) in enumerate(zip(first.tasks, values, strict=True)):
        texts = (
            format_mean(mean, places, with_n=len(numbers) > 1) for mean, places in zip(means, decimals, strict=True)
        )
        rows.append((first.domains[index], task, *texts, *(f"{end[index]:g}" for end in ends.values())))
        sources.append((None, None, *(Source((label,), (task,)) for label in entries), *[None] * len(ends)))
    notes = [f"{kind.of_task} of the final evaluation ± standard error over runs."]
    if len(numbers) == 1:
        (n,) = numbers
        notes.append(
            f"Every mean is over {n} {'run' if n == 1 else 'runs'}." if n else "The number of runs is unknown."
        )
    else:
        notes.append("n = number of runs.")
    if any(mean.n == 1 for column in columns for mean in column):
        notes.append("A single run has no standard error.")
    if len(entries) > 1:
        notes.append(BEST_NOTE)
    best = {(row, 2 + column) for row, means in enumerate(values) for column in best_of(means)}
    return Table(
        "tasks",
        f"Final {kind.measured} per task",
        ("domain", "task", *entries, *ends),
        tuple(rows),
        (" ".join(notes), *_published_notes(entries), *remarks),
        tuple(sources),
        tuple(
            (None, None, *means, *(float(end[index]) for end in ends.values())) for index, means in enumerate(values)
        ),
        frozenset(best),
    )


def best_of(means: Sequence[TaskMean]) -> list[int]:
    """The places of the highest mean and of those within its standard error below it; none if there is no choice."""
    known = [mean for mean in means if mean.mean is not None]
    if len(means) < 2 or not known:
        return []
    # Of equal means the one with the smallest error draws the line.
    highest = max(known, key=lambda mean: (mean.mean, -(mean.standard_error or 0.0)))
    line = (highest.mean or 0.0) - (highest.standard_error or 0.0)
    return [place for place, mean in enumerate(means) if mean.mean is not None and mean.mean >= line]


def _is_whole(mean: TaskMean) -> bool:
    """True for a mean that its source printed without decimals."""
    return all(float(value).is_integer() for value in (mean.mean, mean.standard_error) if value is not None)


def aggregates_table(
    overall: Mapping[str, Mapping[str, Estimate]],
    entries: Mapping[str, Scores],
    ci: CiMethod,
    reps: int,
    remarks: Sequence[str] = (),
) -> Table:
    """IQM, median, mean and optimality gap of the scores."""
    first = next(iter(entries.values()))
    tasks = first.tasks
    values = tuple((None, *(row[name] for name in AGGREGATES), row["IQM"].n_runs) for row in overall.values())
    rows = tuple(
        (label, *(format_estimate(row[name]) for name in AGGREGATES), _runs_word(entries[label], row["IQM"].n_runs))
        for label, row in overall.items()
    )
    sources = tuple((None, *[Source((label,), tasks)] * (len(AGGREGATES) + 1)) for label in overall)
    title = f"{first.scale.kind.score.capitalize()}, {'all tasks' if len(tasks) > 1 else tasks[0]}"
    notes = _interval_notes({label: list(row.values()) for label, row in overall.items()}, entries, ci, reps) + tuple(
        remarks
    )
    return Table("aggregates", title, ("agent", *AGGREGATES, "runs"), rows, notes, sources, values)


def _runs_word(scores: Scores, n_runs: int) -> str:
    """Of published scores the seeds that the source states; a dash where it states none."""
    return "—" if isinstance(scores, SummaryScores) and not n_runs else str(n_runs)


def domains_table(
    domains: Mapping[str, Mapping[str, Estimate]],
    entries: Mapping[str, Scores],
    ci: CiMethod,
    reps: int,
    remarks: Sequence[str] = (),
) -> Table:
    """Mean score of each domain."""
    names = tuple(next(iter(domains.values())))
    first = next(iter(entries.values()))
    tasks, title = tasks_by_domain(first), f"Mean {first.scale.kind.score} per domain"
    rows = tuple((label, *(format_estimate(row[name]) for name in names)) for label, row in domains.items())
    values = tuple((None, *(row[name] for name in names)) for row in domains.values())
    sources = tuple((None, *(Source((label,), tasks[name]) for name in names)) for label in domains)
    notes = _interval_notes({label: list(row.values()) for label, row in domains.items()}, entries, ci, reps) + tuple(
        remarks
    )
    return Table("domains", title, ("agent", *names), rows, notes, sources, values)


def pairs_table(pairs: Pairs, entries: Mapping[str, Scores], ci: CiMethod, reps: int) -> Table:
    """P(X > Y) of each pair, once, the agent that wins more often as X."""
    agents = by_wins(pairs)
    shown = [(x, y) for number, x in enumerate(agents) for y in agents[number + 1 :]]
    tasks = next(iter(entries.values())).tasks
    return Table(
        "improvement",
        "Probability of improvement",
        ("X", "Y", "P(X > Y)"),
        tuple((x, y, format_estimate(pairs[x, y])) for x, y in shown),
        (
            "The probability that a run of X scores higher than a run of Y on the same task, ties counted half; the "
            "mean over tasks.",
            interval_words(ci, reps),
            *_reasons([pairs[pair].note for pair in shown], agents),
        ),
        tuple((None, None, Source((x, y), tasks)) for x, y in shown),
        tuple((None, None, pairs[x, y]) for x, y in shown),
    )


def _reasons(notes: Sequence[str], agents: Sequence[str]) -> list[str]:
    """Why pairs have no value or no interval, `x: reason; y: reason` each, as one sentence a reason."""
    found: dict[str, dict[str, None]] = {}
    for piece in dict.fromkeys(piece for note in notes if note for piece in note.split("; ")):
        agent, _, reason = piece.partition(": ")
        found.setdefault(reason, {})[agent] = None
    return [
        f"{'All agents' if len(names) == len(agents) > _FEW else ', '.join(names)}: {reason}."
        for reason, names in found.items()
    ]


def curve_tables(results: Results) -> list[Table]:
    """For each agent: what was measured on each task at each evaluation of the fine-tuning."""
    kind, frames, tables = kind_of(results.suite), evaluation_frames(results), []
    note = f"Columns are fine-tuning frames; mean {kind.measured} ± standard error over runs (n = number of runs)."
    for agent in results.agents:
        means = [
            [task_mean(column) for column in curve(results, agent.label, task, frames).T] for task in results.tasks
        ]
        sources = tuple(
            (None, *(Source((agent.label,), (task,), frame=frame) for frame in frames)) for task in results.tasks
        )
        tables.append(
            Table(
                f"curve-{agent.label}",
                f"{kind.measured.capitalize()} during fine-tuning, {agent.label}",
                ("task", *(f"{frame:,}" for frame in frames)),
                tuple(
                    (task, *(format_mean(one, kind.decimals) for one in row))
                    for task, row in zip(results.tasks, means, strict=True)
                ),
                (note,),
                sources,
                tuple((None, *row) for row in means),
            )
        )
    return tables


def evaluation_frames(results: Results) -> list[int]:
    """The fine-tuning frames before each evaluation that the protocol asks for."""
    protocol = results.suite.protocols[results.preset]
    return list(range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames))


def curve(results: Results, agent: str, task: str, frames: Sequence[int]) -> Floats:
    """What an agent's runs on a task measured at the evaluations `frames`, [runs, frames]."""
    of_runs, rows = kind_of(results.suite).of_runs, []
    for seed in results.seeds:
        run = results.run(agent, task, seed)
        if run is not None:
            rows.append([of_runs([run], frame) for frame in frames])
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(frames))


def interval_words(ci: CiMethod, reps: int) -> str:
    """What the brackets of an estimate mean."""
    return f"Intervals: 95 % percentile, {_CI_WORDS[ci]}, {reps:,} repetitions."


def tasks_by_domain(scores: Scores) -> dict[str, tuple[str, ...]]:
    """The tasks of each domain, in the suite's order."""
    tasks: dict[str, tuple[str, ...]] = {}
    for task, domain in zip(scores.tasks, scores.domains, strict=True):
        tasks[domain] = (*tasks.get(domain, ()), task)
    return tasks


def _interval_notes(
    rows: Mapping[str, Sequence[Estimate]], entries: Mapping[str, Scores], ci: CiMethod, reps: int
) -> tuple[str, ...]:
    """What the brackets mean, and why some are missing or of another kind; agents of one reason together."""
    labels: dict[str, list[str]] = {}
    for label, row in rows.items():
        for note in {estimate.note: None for estimate in row if estimate.note}:
            labels.setdefault(note, []).append(label)
    published = published_labels(entries)

    def who(names: Sequence[str]) -> str:
        if len(names) > _FEW and set(names) in (set(rows), set(published)):
            return "all agents" if len(names) == len(rows) else "all published agents"
        return ", ".join(names)

    score = next(iter(entries.values())).scale.formula
    drawn = (
        [interval_words(ci, reps)] if len(published) < len(rows) else ["Intervals: 95 %, by a normal approximation."]
    )
    reasons = [f"{who(names)}: {note}." for note, names in labels.items()]
    return (
        *drawn,
        " ".join(
            [score, *(reason[0].upper() + reason[1:] if reason.startswith("all ") else reason for reason in reasons)]
        ),
        *_published_notes(entries),
    )


def _published_notes(entries: Mapping[str, Scores]) -> list[str]:
    published = published_labels(entries)
    if not published:
        return []
    which = "All agents" if len(published) == len(entries) else "Published agents"
    sources = dict.fromkeys(scores.source for scores in entries.values() if isinstance(scores, SummaryScores))
    notes = [f"{which} are means and standard errors of {', '.join(sources)}; no run of them is known."]
    if len(sources) + (len(published) < len(entries)) > 1:
        notes.append("Each source ran its own baselines: numbers of several sources differ in more than the agent.")
    return notes
