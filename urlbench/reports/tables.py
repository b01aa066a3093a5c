"""The tables of a report, as text cells that Markdown and LaTeX render alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urlbench.reports.origins import Source
from urlbench.results.cells import Results
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.aggregates import AGGREGATES, aggregate
from urlbench.statistics.estimates import Estimate, Floats, TaskMean, task_mean
from urlbench.statistics.resampling import CiMethod

_CI_WORDS = {
    "stratified": "stratified bootstrap over runs, task by task",
    "cluster": "cluster bootstrap over (domain, pretraining seed); agents without pretraining: over runs, task by task",
}


_WORD_COLUMNS = frozenset({"agent", "domain", "task", "not found by", "goals"})


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: for file names and labels.
        title: without the marks for reduced or partial results.
        rows: each as long as `header`.
        notes: sentences below the table.
        sources: the runs behind each cell, shaped as `rows`, None where a cell is no number; empty if none is known.
    """

    name: str
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    sources: tuple[tuple[Source | None, ...], ...] = ()

    def __post_init__(self) -> None:
        cells, sources = [len(row) for row in self.rows], [len(row) for row in self.sources]
        assert sources in ([], cells), f"table {self.name} has {cells} cells in its rows and sources for {sources}"

    @property
    def is_words(self) -> tuple[bool, ...]:
        """Whether each column holds words, which begin at the left, or numbers, which end at the right."""
        return tuple(column in _WORD_COLUMNS for column in self.header)


def estimates_of(
    matrices: Mapping[str, ScoreMatrix], ci: CiMethod, reps: int
) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """The aggregates over all tasks, and the mean score of each domain; both by agent label."""
    overall = {label: aggregate(matrix, ci, reps) for label, matrix in matrices.items()}
    domains = {
        label: {
            domain: aggregate(matrix.select(tasks), ci, reps)["Mean"]
            for domain, tasks in tasks_by_domain(matrix).items()
        }
        for label, matrix in matrices.items()
    }
    return overall, domains


def tasks_table(matrices: Mapping[str, ScoreMatrix]) -> Table:
    """Final return per task: mean ± standard error (n)."""
    first = next(iter(matrices.values()))
    rows, sources = [], []
    for index, task in enumerate(first.tasks):
        cells = [format_mean(task_mean(matrix.returns[:, index])) for matrix in matrices.values()]
        rows.append((first.domains[index], task, *cells, f"{first.references[index]:g}"))
        sources.append((None, None, *(Source((label,), (task,)) for label in matrices), None))
    notes = ["Mean undiscounted return of the final evaluation ± standard error over runs (n = number of runs)."]
    if any(np.count_nonzero(~np.isnan(matrix.returns), axis=0).min() < 2 for matrix in matrices.values()):
        notes.append("A single run has no standard error.")
    header = ("domain", "task", *matrices, "reference")
    return Table("tasks", "Final return per task", header, tuple(rows), tuple(notes), tuple(sources))


def aggregates_table(
    overall: Mapping[str, Mapping[str, Estimate]], tasks: Sequence[str], ci: CiMethod, reps: int
) -> Table:
    """IQM, median, mean and optimality gap of the normalised scores on `tasks`."""
    rows = [
        (label, *(format_estimate(estimates[name]) for name in AGGREGATES), str(estimates["IQM"].n_runs))
        for label, estimates in overall.items()
    ]
    notes = (interval_words(ci, reps), *_estimate_notes({label: list(row.values()) for label, row in overall.items()}))
    header = ("agent", *AGGREGATES, "runs")
    sources = tuple((None, *[Source((label,), tuple(tasks))] * (len(AGGREGATES) + 1)) for label in overall)
    return Table("aggregates", "Normalised score, all tasks", header, tuple(rows), notes, sources)


def domains_table(
    domains: Mapping[str, Mapping[str, Estimate]], tasks: Mapping[str, Sequence[str]], ci: CiMethod, reps: int
) -> Table:
    """Mean normalised score of each domain, whose tasks are `tasks`."""
    names = tuple(next(iter(domains.values())))
    rows = [(label, *(format_estimate(row[name]) for name in names)) for label, row in domains.items()]
    notes = (interval_words(ci, reps), *_estimate_notes({label: list(row.values()) for label, row in domains.items()}))
    sources = tuple((None, *(Source((label,), tuple(tasks[name])) for name in names)) for label in domains)
    return Table("domains", "Mean normalised score per domain", ("agent", *names), tuple(rows), notes, sources)


def curve_tables(results: Results) -> list[Table]:
    """For each agent: the return on each task at each evaluation of the fine-tuning."""
    protocol = results.suite.protocols[results.preset]
    frames = range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames)
    return [
        Table(
            f"curve-{agent.label}",
            f"Return during fine-tuning, {agent.label}",
            ("task", *(f"{frame:,}" for frame in frames)),
            tuple(
                (task, *(format_mean(task_mean(values)) for values in curve(results, agent.label, task, frames).T))
                for task in results.tasks
            ),
            ("Columns are fine-tuning frames; mean return ± standard error over runs (n = number of runs).",),
            tuple(
                (None, *(Source((agent.label,), (task,), frame=frame) for frame in frames)) for task in results.tasks
            ),
        )
        for agent in results.agents
    ]


def curve(results: Results, agent: str, task: str, frames: Sequence[int]) -> Floats:
    """Mean returns of an agent's runs on a task at the evaluations `frames`, [runs, frames]."""
    rows = []
    for seed in results.seeds:
        run = results.run(agent, task, seed)
        if run is not None:
            by_frame = {evaluation.frame: evaluation.mean for evaluation in run.evaluations}
            rows.append([by_frame[frame] for frame in frames])
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(frames))


def interval_words(ci: CiMethod, reps: int) -> str:
    """What the brackets of an estimate mean."""
    return f"Intervals: 95 % percentile, {_CI_WORDS[ci]}, {reps:,} repetitions."


def format_mean(mean: TaskMean) -> str:
    """`312.4 ± 20.1 (n=3)`; without a standard error for one run; a dash for none."""
    if mean.mean is None:
        return "— (n=0)"
    error = "" if mean.standard_error is None else f" ± {mean.standard_error:.1f}"
    return f"{mean.mean:.1f}{error} (n={mean.n})"


def format_estimate(estimate: Estimate) -> str:
    """`0.512 [0.401, 0.613]`; `0.512 [no interval]` or a dash where there is none."""
    if estimate.value is None:
        return "—"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} [no interval]"
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _estimate_notes(rows: Mapping[str, Sequence[Estimate]]) -> list[str]:
    notes = [f"{label}: {note}." for label, row in rows.items() for note in {e.note: None for e in row} if note]
    return [f"Score = return / reference. {notes[0]}", *notes[1:]] if notes else ["Score = return / reference."]


def tasks_by_domain(matrix: ScoreMatrix) -> dict[str, tuple[str, ...]]:
    """The tasks of each domain, in the suite's order."""
    tasks: dict[str, tuple[str, ...]] = {}
    for task, domain in zip(matrix.tasks, matrix.domains, strict=True):
        tasks[domain] = (*tasks.get(domain, ()), task)
    return tasks
