"""Reports: tables, figures and where their numbers come from, as Markdown, LaTeX, PNG and PDF."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import jinja2
from matplotlib.figure import Figure

from urlbench.errors import UserError, unknown_name
from urlbench.reports import figures, tables
from urlbench.reports.provenance import Provenance, provenance, report_command
from urlbench.reports.statistics import CiMethod
from urlbench.reports.tables import Table
from urlbench.results import Results, collect
from urlbench.selection import make_selection

FORMATS = ("md", "latex", "png", "pdf")
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "—": r"\textemdash{}",
    "·": r"$\cdot$",
}
_MARKDOWN = "\\`*_|<>[]"


@dataclass(frozen=True)
class _Report:
    """Everything that is written, before it has a format."""

    stem: str
    title: str
    scope: str
    marks: tuple[str, ...]
    tables: tuple[Table, ...]
    curve_tables: tuple[Table, ...]
    figures: Mapping[str, tuple[str, Figure]]
    provenance: Provenance


def make_report(
    runs_root: Path | str,
    suite: str,
    agents: Sequence[str] | None = None,
    preset: str = "paper",
    out: Path | str | None = None,
    ci: CiMethod = "stratified",
    reps: int = 50_000,
    formats: Sequence[str] = FORMATS,
    allow_partial: bool = False,
    *,
    domains: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    snapshot: int | None = None,
) -> list[Path]:
    """Write the report of one suite and one preset; the same runs give the same bytes.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name` or `name@version`.
        agents: names or labels `name-config8`, in the order to show; default all that have runs.
        preset: whose runs to report; every other than `paper` is marked in each title and file name.
        out: folder for the report's own folder; default `reports` in `runs_root`.
        ci: how intervals resample runs.
        reps: bootstrap repetitions.
        formats: some of `FORMATS`.
        allow_partial: report what there is, with PARTIAL n/N on every table and figure.
        domains: default all that have runs, and so for tasks and seeds.
        tasks: names, together with `domains` those of these domains.
        seeds: each is expected of every agent on every task.
        snapshot: pretraining frames of the snapshot that fine-tunings started from; default the last one.

    Returns:
        The files written; the Markdown report first, if it was asked for.

    Raises:
        UserError: for unknown names, or if there are no runs.
        IncompleteError: if runs are missing, damaged or contradict each other; names each.
    """
    for name in formats:
        if name not in FORMATS:
            raise unknown_name("report format", name, FORMATS)
    if ci not in get_args(CiMethod):
        raise unknown_name("interval", ci, get_args(CiMethod), where="of --ci")
    if reps < 100:
        raise UserError(f"--reps {reps} is too few for a 95 % interval; ask for 100 or more (the default is 50000).")
    root = Path(runs_root)
    selection = make_selection(agents, domains, tasks, seeds, snapshot)
    results = collect(root, suite, preset, selection)
    command = report_command(root, suite, preset, selection, ci, reps, allow_partial)
    with figures.figure_style():
        report = _assemble(results, command, ci, reps, allow_partial=allow_partial)
        folder = (Path(out) if out is not None else root / "reports") / report.stem
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _write(report, folder, formats)
        except OSError as error:
            raise UserError(
                f"cannot write the report to {str(folder)!r} ({error.strerror}); give --out another folder."
            ) from error


def _assemble(results: Results, command: str, ci: CiMethod, reps: int, *, allow_partial: bool) -> _Report:
    matrices = results.scores(allow_partial=allow_partial)
    overall, domains = tables.estimates_of(matrices, ci, reps)
    is_partial = results.n_usable < results.n_expected
    suite, preset = results.suite, results.preset
    marks = []
    if preset != "paper":
        marks.append(f"REDUCED BUDGET: preset {preset} — not comparable with published numbers")
    if is_partial:
        marks.append(f"PARTIAL {results.n_usable}/{results.n_expected} runs")
    origin = provenance(results, command)
    name = f"{suite.full_name}, preset {preset}"
    foot = [tables.interval_words(ci, reps), origin.short]

    def titled(text: str) -> str:
        return "\n".join([f"{text} — {name}", *marks])

    aggregates = tables.aggregates_table(overall, ci, reps)
    by_domain = tables.domains_table(domains, ci, reps)
    curve_title = "Return during fine-tuning"
    return _Report(
        stem=f"{suite.full_name}-{preset}{'-partial' if is_partial else ''}",
        title=f"Report of {name}",
        scope=(
            f"{len(results.agents)} agents, {len(results.tasks)} of the suite's {len(suite.tasks)} tasks, "
            f"{len(results.seeds)} {'seed' if len(results.seeds) == 1 else 'seeds'}: {results.n_usable} runs."
        ),
        marks=tuple(marks),
        tables=(aggregates, by_domain, tables.tasks_table(matrices)),
        curve_tables=tuple(tables.curve_tables(results)),
        figures={
            "aggregates": (
                f"{aggregates.title} — {name}",
                figures.aggregates_figure(overall, titled(aggregates.title), [*aggregates.notes, origin.short]),
            ),
            "domains": (
                f"{by_domain.title} — {name}",
                figures.domains_figure(domains, titled(by_domain.title), [*by_domain.notes, origin.short]),
            ),
            "curves": (
                f"{curve_title} — {name}",
                figures.curves_figure(results, titled(curve_title), [_BAND_NOTE, *foot[1:]]),
            ),
        },
        provenance=origin,
    )


_BAND_NOTE = "Mean return of each evaluation over runs; band: ± one standard error, none for a single run."


def _write(report: _Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    written: dict[Path, str] = {}
    description = "\n".join([*report.marks, *report.provenance.lines()])
    pictures = {}
    for ending in [name for name in ("png", "pdf") if name in formats]:
        pictures[ending] = [
            {"title": title, "file": f"{name}-{report.stem}.{ending}"} for name, (title, _) in report.figures.items()
        ]
    common = {
        "title": report.title,
        "scope": report.scope,
        "marks": report.marks,
        "short": report.provenance.short,
        "provenance": report.provenance.entries,
        "provenance_lines": report.provenance.lines(),
    }
    if "md" in formats:
        written[folder / f"report-{report.stem}.md"] = (
            _markdown()
            .get_template("report.md.j2")
            .render(**common, tables=[*report.tables, *report.curve_tables], figures=pictures.get("png", []))
        )
    if "latex" in formats:
        environment = _latex()
        files = [f"{table.name}-{report.stem}" for table in report.tables]
        written[folder / f"report-{report.stem}.tex"] = environment.get_template("report.tex.j2").render(
            **common, table_files=files, figures=pictures.get("pdf", pictures.get("png", []))
        )
        for table, name in zip(report.tables, files, strict=True):
            written[folder / f"{name}.tex"] = environment.get_template("table.tex.j2").render(
                **common, table=table, label=name
            )
    for path, text in written.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    paths = list(written)
    for shown in pictures.values():
        for picture, (_, figure) in zip(shown, report.figures.values(), strict=True):
            paths.append(folder / picture["file"])
            figures.save(figure, paths[-1], description)
    return paths


def escape_latex(text: str) -> str:
    """`text` as LaTeX prints it, its own signs escaped and `--` kept from becoming a dash."""
    escaped = "".join(_TEX.get(character, _printable(character)) for character in text)
    return re.sub("-(?=-)", "-{}", escaped)


def _printable(character: str) -> str:
    """Latin letters as they are; what pdflatex has no glyph for as its code point."""
    return character if ord(character) < 0x180 else f"[U+{ord(character):04X}]"


def escape_markdown(text: str) -> str:
    """`text` with Markdown's own signs escaped."""
    return "".join(f"\\{character}" if character in _MARKDOWN else character for character in text)


def _markdown() -> jinja2.Environment:
    environment = _environment()
    environment.filters["md"] = escape_markdown
    return environment


def _latex() -> jinja2.Environment:
    # Braces and percent signs are LaTeX's own.
    environment = _environment(
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters["tex"] = escape_latex
    return environment


def _environment(**delimiters: Any) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("urlbench.reports"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
        **delimiters,
    )
