"""Reports: tables, figures and where their numbers come from, as Markdown, HTML, LaTeX, PNG, PDF and SVG."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Suite
from urlbench.reports import figures, score_report, search_report
from urlbench.reports.document import Report
from urlbench.reports.files import FORMATS, write_report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import baseline_origins, origins_of
from urlbench.reports.provenance import baselines_provenance, provenance, report_command
from urlbench.reports.report_baselines import baseline_tasks, in_order, load_baselines, remarks, without_source
from urlbench.reports.scores import on_tasks
from urlbench.reports.sides import split_baselines
from urlbench.results.cells import Results, collect, collect_snapshots
from urlbench.results.score_kinds import kind_of
from urlbench.results.scores import final_scores
from urlbench.results.selection import Selection, make_selection, protocol_of, registered_suite
from urlbench.results.validation import check
from urlbench.runs.plan import parse_snapshots
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
    snapshots: str | None = None,
    goal_sets: Sequence[int] | None = None,
    plugins: Sequence[str] = (),
) -> list[Path]:
    """Write the report of one suite and one preset; the same runs give the same bytes.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name` or `name@version`.
        agents: names or labels `name-config8`, and `baseline:source/agent` or `baseline:source` for stored ones, in the
            order to show; default all that have runs. Baselines alone make a report without runs.
        preset: whose runs to report; it is in each title and file name, and marked there if it is a reduced one.
        out: folder for the report's own folder; default `reports` in `runs_root`.
        ci: how bootstrap intervals of scores resample runs; default `stratified`.
        reps: bootstrap repetitions; default 50,000.
        formats: some of `FORMATS`.
        allow_partial: report what there is, with PARTIAL n/N on every table and figure.
        domains: default all that have runs, and so for tasks and seeds.
        tasks: names, together with `domains` those of these domains.
        seeds: each is expected of every agent on every task.
        snapshot: of the pretraining that the runs started from; default the last one.
        snapshots: `all` or such as `100k,2M`: shows the score against pretraining, too; default not.
        goal_sets: each is expected of every seed; default the one with the number of the seed.
        plugins: files or modules that have registered suites or agents, which the command of the report names.

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
    own, baselines = split_baselines(agents or ())
    selection = make_selection(own, domains, tasks, seeds, snapshot, goal_sets)
    request = _Request(root, suite, preset, agents, selection, plugins, ci, reps, snapshots, allow_partial)
    with figures.figure_style():
        report = _of_runs(request, baselines) if own or not baselines else _of_baselines(request, baselines)
        folder = (Path(out) if out is not None else root / "reports") / report.frame.stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return write_report(report, folder, formats)
        except OSError as error:
            raise UserError(
                f"cannot write the report to {str(folder)!r} ({error.strerror}); give --out another folder."
            ) from error


@dataclass(frozen=True)
class _Request:
    """What was asked for, as `make_report` takes it.

    Attributes:
        selection: of the runs, without baselines.
    """

    root: Path
    suite: str
    preset: str
    agents: Sequence[str] | None
    selection: Selection
    plugins: Sequence[str]
    ci: CiMethod | None
    reps: int | None
    snapshots: str | None
    allow_partial: bool

    @property
    def intervals(self) -> tuple[CiMethod, int]:
        """How intervals are made, and with how many repetitions."""
        return self.ci or DEFAULT_CI, self.reps or DEFAULT_REPS

    def command(self, *, bootstrapped: bool) -> str:
        """The command line that makes the same report."""
        words = report_command(self.root, self.suite, self.preset, self.selection, self.agents, self.plugins)
        if self.snapshots:
            words += ["--snapshots", self.snapshots]
        if bootstrapped:
            ci, reps = self.intervals
            words += ["--ci", ci, "--reps", str(reps)]
        return shlex.join([*words, *(["--allow-partial"] if self.allow_partial else [])])


def _of_runs(request: _Request, words: Sequence[str]) -> Report:
    results, snapshots = _results(request)
    if not kind_of(results.suite).resampled:
        if request.ci is not None or request.reps is not None:
            raise UserError(
                f"suite {results.suite.name!r} counts goals found, whose intervals are Wilson's and not bootstrapped; "
                "leave --ci and --reps away."
            )
        _refuse_baselines(results.suite, words)
        command = request.command(bootstrapped=False)
        return search_report.assemble(results, command, allow_partial=request.allow_partial)
    baselines = [
        replace(baseline, scores=on_tasks(baseline.scores, results.suite, results.tasks))
        for baseline in load_baselines(words, results.suite, request.preset, results.snapshot)
    ]
    entries = in_order(request.agents, results, final_scores(results, allow_partial=request.allow_partial), baselines)
    frame = Frame.of(results, [baseline.label for baseline in baselines])
    origin = provenance(results, request.command(bootstrapped=True), baselines)
    origins = origins_of(results, {baseline.label: baseline for baseline in baselines}, snapshots.values())
    said = remarks(baselines)
    return score_report.assemble(results, entries, said, snapshots, frame, origin, origins, *request.intervals)


def _results(request: _Request) -> tuple[Results, dict[int, Results]]:
    """What is reported, and if it was asked for the runs that started from each of several snapshots."""
    place = request.root, request.suite, request.preset, request.selection
    if request.snapshots is None:
        return collect(*place), {}
    suite = registered_suite(request.suite)
    if not kind_of(suite).resampled:
        raise UserError(
            f"--snapshots is for suites that fine-tune; report {suite.name!r} for each snapshot alone, with --snapshot."
        )
    protocol = protocol_of(suite, request.preset)
    chosen = parse_snapshots(protocol, request.snapshots)
    main = request.selection.snapshot_of(protocol)
    found = collect_snapshots(*place, sorted({*chosen, main}))
    for results in found.values():
        check(results, allow_partial=request.allow_partial)
    return found[main], {at: found[at] for at in chosen}


def _of_baselines(request: _Request, words: Sequence[str]) -> Report:
    suite, selection = registered_suite(request.suite), request.selection
    if not kind_of(suite).resampled:
        _refuse_baselines(suite, words)
    if selection.seeds or selection.snapshot or selection.goal_sets or request.snapshots:
        raise UserError(
            "--seeds, --snapshot, --snapshots and --goal-sets choose runs, and a report of baselines alone has none; "
            "leave them away, or name agents that have runs."
        )
    last = protocol_of(suite, request.preset).last_snapshot
    found = load_baselines(words, suite, request.preset, last)
    tasks = baseline_tasks(suite, found, selection)
    baselines = [replace(baseline, scores=on_tasks(baseline.scores, suite, tasks)) for baseline in found]
    source, entries = without_source(in_order(request.agents, None, {}, baselines))
    frame = Frame.of_baselines(suite, request.preset, tasks, len(entries), source)
    # No run is read, wherever they are.
    command = replace(request, root=Path("runs")).command(bootstrapped=True)
    origin = baselines_provenance(suite, request.preset, baselines, command)
    by_label = {baseline.label.removeprefix(f"{source}/"): baseline for baseline in baselines}
    origins = baseline_origins(suite, tasks, by_label)
    return score_report.assemble(None, entries, remarks(baselines), {}, frame, origin, origins, *request.intervals)


def _refuse_baselines(suite: Suite, words: Sequence[str]) -> None:
    if words:
        raise UserError(
            f"suite {suite.name!r} counts goals found, and a report on it takes no baselines; leave {words[0]} away, "
            "or see it with: urlbench baselines show NAME"
        )
