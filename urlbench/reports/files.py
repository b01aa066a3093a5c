"""The files of a report: Markdown, HTML, LaTeX, CSV, PNG, PDF and SVG."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from urlbench.reports import figures, html_page
from urlbench.reports.document import Report
from urlbench.reports.tables import to_csv

FORMATS = ("md", "html", "latex", "csv", *figures.PICTURES)
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
    "−": "$-$",
    "—": r"\textemdash{}",
    "·": r"$\cdot$",
}
_MARKDOWN = "\\`*_|<>[]"


def write_report(report: Report, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the report into `folder`; the files, the Markdown report first.

    Args:
        report: what to write.
        folder: must exist.
        formats: some of `FORMATS`.
    """
    frame = report.frame
    written: dict[Path, str] = {}
    description = "\n".join([*frame.marks, *report.provenance.lines()])
    pictures = {}
    for ending in [name for name in figures.PICTURES if name in formats]:
        pictures[ending] = [
            {"title": title, "file": f"{name}-{frame.stem}.{ending}"} for name, (title, _) in report.figures.items()
        ]
    drawn, drawings = {}, {}
    if {"html", *figures.PICTURES} & set(formats):
        drawn = {name: draw() for name, (_, draw) in report.figures.items()}
    if {"html", "svg"} & set(formats):
        drawings = {name: figures.svg(figure) for name, figure in drawn.items()}
    common = {
        "title": f"Report of {frame.name}",
        "scope": frame.scope,
        "marks": frame.marks,
        "short": report.provenance.short,
        "provenance": report.provenance.entries,
        "provenance_lines": report.provenance.lines(),
    }
    if "md" in formats:
        written[folder / f"report-{frame.stem}.md"] = (
            markdown_environment()
            .get_template("report.md.j2")
            .render(
                **common,
                tables=[*report.tables, *report.long_tables],
                figures=pictures.get("png", pictures.get("svg", [])),
            )
        )
    if "html" in formats:
        written[folder / f"report-{frame.stem}.html"] = html_page.render(report, drawings)
    if "latex" in formats:
        environment = _latex()
        files = [f"{table.name}-{frame.stem}" for table in report.tables]
        written[folder / f"report-{frame.stem}.tex"] = environment.get_template("report.tex.j2").render(
            **common, table_files=files, figures=pictures.get("pdf", pictures.get("png", []))
        )
        for table, name in zip(report.tables, files, strict=True):
            written[folder / f"{name}.tex"] = environment.get_template("table.tex.j2").render(
                **common, table=table, label=name
            )
    if "csv" in formats:
        words = "; ".join([frame.name, *frame.marks])
        for table in [*report.tables, *report.long_tables]:
            written[folder / f"{table.name}-{frame.stem}.csv"] = to_csv(table, words, report.provenance.short)
    for path, text in written.items():
        path.write_text(text, encoding="utf-8", newline="\n")
    paths = list(written)
    for ending, shown in pictures.items():
        for picture, (name, figure) in zip(shown, drawn.items(), strict=True):
            path = folder / picture["file"]
            paths.append(path)
            if ending == "svg":
                drawing = figures.with_description(drawings[name], description)
                path.write_text(drawing, encoding="utf-8", newline="\n")
            else:
                figures.save(figure, path, description)
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


def markdown_environment() -> jinja2.Environment:
    """The templates of Markdown files."""
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
