"""The report of a suite that fine-tunes: normalised returns with bootstrap intervals, and learning curves."""

from urlbench.reports import curve_figures, score_figures, tables
from urlbench.reports.document import Report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import origins_of
from urlbench.reports.provenance import provenance
from urlbench.results.cells import Results
from urlbench.statistics.resampling import CiMethod

_BAND_NOTE = "Mean return of each evaluation over runs; band: ± one standard error, none for a single run."


def assemble(results: Results, command: str, ci: CiMethod, reps: int, *, allow_partial: bool) -> Report:
    """The report of a suite that fine-tunes.

    Args:
        results: what to report.
        command: the command line that makes the same report.
        ci: how intervals resample runs.
        reps: bootstrap repetitions.
        allow_partial: report what there is.

    Raises:
        IncompleteError: as `Results.scores` does.
    """
    matrices = results.scores(allow_partial=allow_partial)
    overall, domains = tables.estimates_of(matrices, ci, reps)
    origin = provenance(results, command)
    frame = Frame.of(results)
    aggregates = tables.aggregates_table(overall, results.tasks, ci, reps)
    tasks = tables.tasks_by_domain(next(iter(matrices.values())))
    by_domain = tables.domains_table(domains, tasks, ci, reps)
    curve_title = "Return during fine-tuning"
    return Report(
        frame=frame,
        tables=(aggregates, by_domain, tables.tasks_table(matrices)),
        long_tables=tuple(tables.curve_tables(results)),
        figures={
            "aggregates": (
                f"{aggregates.title} — {frame.name}",
                score_figures.aggregates_figure(
                    overall, frame.titled(aggregates.title), [*aggregates.notes, origin.short]
                ),
            ),
            "domains": (
                f"{by_domain.title} — {frame.name}",
                score_figures.domains_figure(domains, frame.titled(by_domain.title), [*by_domain.notes, origin.short]),
            ),
            "curves": (
                f"{curve_title} — {frame.name}",
                curve_figures.learning_figure(results, frame.titled(curve_title), [_BAND_NOTE, origin.short]),
            ),
        },
        provenance=origin,
        origins=origins_of(results),
    )
