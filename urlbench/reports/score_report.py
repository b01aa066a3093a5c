"""The report of a suite that fine-tunes: scores with bootstrap intervals, and learning curves."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from urlbench.reports import efficiency, score_tables
from urlbench.reports.completeness_figure import completeness_figure
from urlbench.reports.curve_figures import learning_figure, profiles_figure, score_curves_figure
from urlbench.reports.document import Report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import Origins, Source
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
# The number of pairs grows with the square of that of agents; of 60 there are 1,770.
MOST_PAIRED = 60
_BAND_NOTE = "Mean {} of each evaluation over runs; band: ± one standard error, none for a single run."
_PROFILE_NOTE = "The fraction of all runs, on all tasks, whose score is above τ; band: the interval at each τ alone."
_COMPLETENESS_NOTE = (
    "Which of the runs expected there are: a mark for each task and seed; of many agents their share, as a number "
    "where any are missing."
)
_HOLLOW_NOTE = "Hollow marks and outlined bars: published means, whose intervals are a normal approximation."
_CURVE_NOTE = "Mean over tasks of the {}; band: the interval at each number of frames alone."
_LEVEL_NOTE = "Agents without pretraining have the same score at all of them."


def assemble(
    results: Results | None,
    entries: Mapping[str, Scores],
    remarks: Sequence[str],
    snapshots: Mapping[int, Results],
    frame: Frame,
    origin: Provenance,
    origins: Origins,
    ci: CiMethod,
    reps: int,
) -> Report:
    """The report of a suite that fine-tunes.

    Args:
        results: the runs; None for baselines alone.
        entries: the scores of agents and baselines on the same tasks, by label, in the order to show.
        remarks: what tables must say of baselines.
        snapshots: the runs that started from each of several snapshots; empty for no curve over them.
        frame: of the report.
        origin: of all of it.
        origins: of single numbers.
        ci: how intervals resample runs.
        reps: bootstrap repetitions.
    """
    overall, domains = score_tables.estimates_of(entries, ci, reps)
    aggregates = score_tables.aggregates_table(overall, entries, ci, reps, remarks)
    by_domain = score_tables.domains_table(domains, entries, ci, reps, remarks)
    intervals = score_tables.interval_words(ci, reps)
    kind = next(iter(entries.values())).scale.kind
    curve_note = _CURVE_NOTE.format(kind.score)
    hollow = published_labels(entries)
    hollow_note = [_HOLLOW_NOTE] if hollow else []
    figures: dict[str, tuple[str, Callable[[], Figure]]] = {}
    long_tables: list[Table] = []

    def add(name: str, title: str, notes: Sequence[str], draw: Callable[[str, list[str]], Figure]) -> None:
        figures[name] = f"{title} — {frame.name}", partial(draw, frame.titled(title), [*notes, origin.short])

    add(
        "aggregates",
        aggregates.title,
        [*aggregates.notes, *hollow_note],
        lambda title, foot: aggregates_figure(overall, title, foot, kind.score, hollow),
    )
    add(
        "domains",
        by_domain.title,
        [*by_domain.notes, *hollow_note],
        lambda title, foot: domains_figure(domains, title, foot, kind.score, hollow),
    )
    matrices = with_runs(entries)
    if matrices:
        taus = _thresholds(matrices.values())
        profiles = {label: performance_profile(matrix, taus, ci, reps) for label, matrix in matrices.items()}
        add(
            "profiles",
            "Performance profiles",
            [_PROFILE_NOTE, intervals],
            lambda title, foot: profiles_figure(profiles, title, foot, kind.score),
        )
    if len(matrices) > MOST_PAIRED:
        frame = replace(frame, scope=f"{frame.scope} Pairs of agents are left out: more than {MOST_PAIRED} agents.")
    elif len(matrices) > 1:
        pairs = probabilities_of_improvement(matrices, ci, reps)
        table = score_tables.pairs_table(pairs, entries, ci, reps)
        long_tables.append(table)
        notes = [*table.notes, *matrix_notes(pairs)]
        add(table.name, table.title, notes, lambda title, foot: pairs_figure(pairs, title, foot))
    if snapshots:
        one = next(iter(snapshots.values()))
        unit = one.suite.protocols[one.preset].pretrain_unit
        before = efficiency.pretraining_curves(snapshots, ci, reps)
        title, words = (
            f"{kind.short.capitalize()} after more or less pretraining",
            f"{unit} of pretraining before the fine-tuning",
        )
        notes, tasks = [intervals, _LEVEL_NOTE], one.tasks
        table = efficiency.curves_table(
            "pretraining",
            title,
            before,
            words,
            kind.score,
            notes,
            lambda label, at: Source((label,), tasks, snapshot=at),
        )
        long_tables.append(table)
        add(
            "pretraining",
            title,
            [curve_note, _LEVEL_NOTE, intervals],
            lambda title, foot: score_curves_figure(before, title, foot, f"pretraining {unit}", kind.short),
        )
    if results is not None:
        during = efficiency.finetuning_curves(results, ci, reps)
        title, words = f"{kind.short.capitalize()} during fine-tuning", "fine-tuning frames"
        table = efficiency.curves_table(
            "efficiency",
            title,
            during,
            words,
            kind.score,
            [intervals],
            lambda label, at: Source((label,), results.tasks, frame=at),
        )
        long_tables.append(table)
        add(
            "efficiency",
            title,
            [curve_note, intervals],
            lambda title, foot: score_curves_figure(during, title, foot, words, kind.short),
        )
        add(
            "curves",
            # A score that is measured as it is has had this title above.
            f"{kind.measured.capitalize()} during fine-tuning{', by task' if kind.measured == kind.short else ''}",
            [_BAND_NOTE.format(kind.measured)],
            lambda title, foot: learning_figure(results, title, foot),
        )
        add(
            "completeness",
            "Runs there are",
            [_COMPLETENESS_NOTE],
            lambda title, foot: completeness_figure(results, title, foot),
        )
        long_tables += score_tables.curve_tables(results)
    return Report(
        frame=frame,
        tables=(aggregates, by_domain, score_tables.tasks_table(entries, remarks)),
        long_tables=tuple(long_tables),
        figures=figures,
        provenance=origin,
        origins=origins,
    )


def _thresholds(matrices: Iterable[ScoreMatrix]) -> Floats:
    """From 0, or the lowest score below it, to 1, or the highest score above it."""
    scores = np.concatenate([matrix.scores.ravel() for matrix in matrices])
    return np.linspace(min(0.0, float(np.nanmin(scores))), max(1.0, float(np.nanmax(scores))), _THRESHOLDS)
