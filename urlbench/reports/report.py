"""Reports: tables, figures and where their numbers come from, as Markdown, HTML, LaTeX, PNG, PDF and SVG."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from urlbench.errors import UserError, unknown_name
from urlbench.reports import figures, found_report, returns_report
from urlbench.reports.document import FORMATS, Report, write_report
from urlbench.reports.provenance import report_command
from urlbench.results.cells import Results, collect
from urlbench.results.selection import Selection, make_selection
from urlbench.statistics.resampling import CiMethod

DEFAULT_CI: CiMethod = "stratified"
DEFAULT_REPS = 50_000


def make_report(
    runs_root: Path | str,
    suite: str,
    agents: Sequence[str] | None = None,
    preset: str = "paper",
    out: Path | str | None = None,
    ci: CiMethod | None = None,
    reps: int | None = None,
    formats: Sequence[str] = FORMATS,
    allow_partial: bool = False,
    *,
    domains: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    snapshot: int | None = None,
    goal_sets: Sequence[int] | None = None,
) -> list[Path]:
    """Write the report of one suite and one preset; the same runs give the same bytes.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name` or `name@version`.
        agents: names or labels `name-config8`, in the order to show; default all that have runs.
        preset: whose runs to report; it is in each title and file name, and marked there if it is a reduced one.
        out: folder for the report's own folder; default `reports` in `runs_root`.
        ci: how bootstrap intervals of returns resample runs; default `stratified`.
        reps: bootstrap repetitions; default 50,000.
        formats: some of `FORMATS`.
        allow_partial: report what there is, with PARTIAL n/N on every table and figure.
        domains: default all that have runs, and so for tasks and seeds.
        tasks: names, together with `domains` those of these domains.
        seeds: each is expected of every agent on every task.
        snapshot: of the pretraining that the runs started from; default the last one.
        goal_sets: each is expected of every seed; default the one with the number of the seed.

    Returns:
        The files written; the Markdown report first, if it was asked for.

    Raises:
        UserError: for unknown names, or if there are no runs.
        IncompleteError: if runs are missing, damaged or contradict each other; names each.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("report format", name, FORMATS)
    if ci is not None and ci not in get_args(CiMethod):
        raise unknown_name("interval", ci, get_args(CiMethod), where="of --ci")
    if reps is not None and reps < 100:
        raise UserError(f"--reps {reps} is too few for a 95 % interval; ask for 100 or more (the default is 50000).")
    root = Path(runs_root)
    selection = make_selection(agents, domains, tasks, seeds, snapshot, goal_sets)
    results = collect(root, suite, preset, selection)
    with figures.figure_style():
        report = _assemble(results, suite, selection, ci, reps, allow_partial=allow_partial)
        folder = (Path(out) if out is not None else root / "reports") / report.frame.stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return write_report(report, folder, formats)
        except OSError as error:
            raise UserError(
                f"cannot write the report to {str(folder)!r} ({error.strerror}); give --out another folder."
            ) from error


def _assemble(
    results: Results,
    suite: str,
    selection: Selection,
    ci: CiMethod | None,
    reps: int | None,
    *,
    allow_partial: bool,
) -> Report:
    command = report_command(results.root, suite, results.preset, selection)
    partial = ["--allow-partial"] if allow_partial else []
    if results.suite.measured_phase == "evaluate":
        if ci is not None or reps is not None:
            raise UserError(
                f"suite {results.suite.name!r} counts goals found, whose intervals are Wilson's and not bootstrapped; "
                "leave --ci and --reps away."
            )
        return found_report.assemble(results, shlex.join([*command, *partial]), allow_partial=allow_partial)
    ci, reps = ci or DEFAULT_CI, reps or DEFAULT_REPS
    command += ["--ci", ci, "--reps", str(reps), *partial]
    return returns_report.assemble(results, shlex.join(command), ci, reps, allow_partial=allow_partial)
