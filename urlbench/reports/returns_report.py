"""The report of a suite that fine-tunes: normalised returns with bootstrap intervals, and learning curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from urlbench.reports import score_tables
from urlbench.reports.completeness_figure import completeness_figure
from urlbench.reports.curve_figures import learning_figure, profiles_figure
from urlbench.reports.document import Report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import Origins, origins_of
from urlbench.reports.pair_figures import matrix_notes, pairs_figure
from urlbench.reports.provenance import Provenance
from urlbench.reports.score_figures import aggregates_figure, domains_figure
from urlbench.reports.scores import Scores, published_labels, with_runs
from urlbench.reports.tables import Table
from urlbench.results.cells import Results
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.estimates import Floats
from urlbench.statistics.improvement import probabilities_of_improvement
from urlbench.statistics.profiles import performance_profile
from urlbench.statistics.resampling import CiMethod

_THRESHOLDS = 121

_BAND_NOTE = "Mean return of each evaluation over runs; band: ± one standard error, none for a single run."
_HOLLOW_NOTE = "Hollow marks and outlined bars: published means, whose intervals are a normal approximation."


def _thresholds(matrices: Mapping[str, ScoreMatrix]) -> Floats:
    """From 0, or the lowest score below it, to the highest score of all, [121]."""
    scores = np.concatenate([matrix.scores.ravel() for matrix in matrices.values()])
    return np.linspace(min(0.0, float(np.nanmin(scores))), max(1.0, float(np.nanmax(scores))), _THRESHOLDS)


def assemble(
    results: Results | None,
    entries: Mapping[str, Scores],
    remarks: Sequence[str],
    frame: Frame,
    origin: Provenance,
    ci: CiMethod,
    reps: int,
) -> Report:
    """The report of a suite that fine-tunes.

    Args:
        results: the runs; None for baselines alone.
        entries: the scores of agents and baselines on the same tasks, by label, in the order to show.
        remarks: what tables must say of baselines.
        frame: of the report.
        origin: of all of it.
        ci: how intervals resample runs.
        reps: bootstrap repetitions.
    """
    overall, domains = score_tables.estimates_of(entries, ci, reps)
    aggregates = score_tables.aggregates_table(overall, entries, ci, reps, remarks)
    by_domain = score_tables.domains_table(domains, entries, ci, reps, remarks)
    hollow = published_labels(entries)
    figures: dict[str, tuple[str, Figure]] = {}

    def add(name: str, title: str, figure: Figure) -> None:
        figures[name] = f"{title} — {frame.name}", figure

    def foot(notes: Sequence[str]) -> list[str]:
        return [*notes, *([_HOLLOW_NOTE] if hollow else []), origin.short]

    def titled(table: Table) -> tuple[str, list[str]]:
        return frame.titled(table.title), foot(table.notes)

    add("aggregates", aggregates.title, aggregates_figure(overall, *titled(aggregates), hollow))
    add("domains", by_domain.title, domains_figure(domains, *titled(by_domain), hollow))
    matrices = with_runs(entries)
    if matrices:
        title = "Performance profiles"
        note = "The fraction of all runs, on all tasks, whose score is above τ; band: 95 % intervals, at each τ alone."
        profiles = {
            label: performance_profile(matrix, _thresholds(matrices), ci, reps) for label, matrix in matrices.items()
        }
        words = [note, score_tables.interval_words(ci, reps), origin.short]
        add("profiles", title, profiles_figure(profiles, frame.titled(title), words))
    pairs = probabilities_of_improvement(matrices, ci, reps)
    improvement = (score_tables.pairs_table(pairs, entries, ci, reps),) if pairs else ()
    for table in improvement:
        words = [*table.notes, *matrix_notes(pairs), origin.short]
        add(table.name, table.title, pairs_figure(pairs, frame.titled(table.title), words))
    if results is not None:
        title = "Return during fine-tuning"
        add("curves", title, learning_figure(results, frame.titled(title), [_BAND_NOTE, origin.short]))
        title = "Runs there are"
        note = "A mark for each task and seed; above each panel the runs that count, of those expected."
        add("completeness", title, completeness_figure(results, frame.titled(title), [note, origin.short]))
    first = next(iter(entries.values()))
    no_runs = Origins(domains=dict(zip(first.tasks, first.domains, strict=True)), commands={}, runs=())
    curves = [] if results is None else score_tables.curve_tables(results)
    return Report(
        frame=frame,
        tables=(aggregates, by_domain, score_tables.tasks_table(entries, remarks)),
        long_tables=(*improvement, *curves),
        figures=figures,
        provenance=origin,
        origins=no_runs if results is None else origins_of(results),
    )
