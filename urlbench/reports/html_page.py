"""The report as one HTML page that loads nothing: tables that sort, figures that zoom, and the runs behind each number.

Everything is in the file, and its policy forbids the browser to fetch anything, from the network or from disk. What
comes from runs is escaped, in the page by the template and in its data as JSON; no script but the page's own can run.
"""

import base64
import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import jinja2

from urlbench.reports.appearance import looks
from urlbench.reports.document import Report
from urlbench.reports.origins import Origins, Source
from urlbench.reports.provenance import git_words, hardware_words, package_versions
from urlbench.reports.tables import Table
from urlbench.results.run_records import RunRecord

Kind = Literal["word", "number"]
_NUMBER = re.compile(r"[-−]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Cell:
    """One cell of a table of the page.

    Attributes:
        key: what rows are sorted by; empty for a number that is not there.
        source: place in the page's list of sources; None for what is no number.
        is_best: True for what is in bold.
    """

    text: str
    kind: Kind
    key: str
    source: int | None
    is_best: bool


def render(report: Report, drawings: Mapping[str, str]) -> str:
    """The page, in UTF-8; the same report gives the same bytes.

    Args:
        report: what to show.
        drawings: the SVG of each of its figures, by name.
    """
    # Each list is numbered by its own order of first use.
    numbers: dict[Source, int] = {}
    tables = [_page_table(table, numbers) for table in (*report.tables, *report.long_tables)]
    agents = list(dict.fromkeys(agent for source in numbers for agent in source.agents))
    script = _asset("page.js")
    return (
        _environment()
        .get_template("html.j2")
        .render(
            title=f"Report of {report.frame.name}",
            marks=report.frame.marks,
            scope=report.frame.scope,
            agents={agent: look.colour for agent, look in looks(agents).items()},
            domains=dict.fromkeys(report.origins.domains.values(), ""),
            figures=[
                {
                    "name": name,
                    "title": title.removesuffix(f" — {report.frame.name}"),
                    "svg": inline_svg(drawings[name], f"figure-{number}-"),
                }
                for number, (name, (title, _)) in enumerate(report.figures.items(), start=1)
            ],
            tables=tables,
            n_first_tables=len(report.tables),
            provenance=report.provenance.entries,
            data=_data(report.origins, list(numbers), dict(report.provenance.entries)["Report"][0]),
            style=_asset("page.css"),
            script=script,
            script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


def sort_key(text: str, kind: Kind) -> str:
    """What a cell is sorted by: a word itself; of a number its first, or of a fraction its value; empty for none.

    `312.4 ± 20.1 (n=3)` gives `312.4`, `31/50 = 0.620 [0.482, 0.741]` gives `0.620`, `— (n=0)` gives nothing.
    """
    if kind == "word":
        return text
    found = None if text.startswith("—") else _NUMBER.search(text.partition(" = ")[2] or text)
    return found[0].replace(",", "").replace("−", "-") if found else ""


def inline_svg(drawing: str, prefix: str) -> str:
    """An SVG file as an svg element, all of whose ids begin with `prefix`."""
    text = re.sub("<!--.*?-->", "", drawing[drawing.index("<svg") :], flags=re.DOTALL)
    text = text.replace("<svg ", '<svg aria-hidden="true" ', 1)
    # See figure_parts: what an artist shows is written where its id is.
    text = re.sub(r"""\bid=("\{[^"]*\}"|'\{[^']*\}')""", r"data-of=\1", text)
    text = re.sub(r'\b(id="|xlink:href="#)', rf"\1{prefix}", text)
    return text.replace("url(#", f"url(#{prefix}").strip()


def _page_table(table: Table, numbers: dict[Source, int]) -> dict[str, Any]:
    kinds: list[Kind] = ["word" if is_words else "number" for is_words in table.is_words]
    sources = table.sources or itertools.repeat((None,) * len(kinds))
    rows = []
    for cells, row in zip(table.cells, sources, strict=bool(table.sources)):
        places = [None if source is None else numbers.setdefault(source, len(numbers)) for source in row]
        rows.append(
            [
                Cell(text, kind, sort_key(text, kind), place, is_best)
                for (text, is_best), kind, place in zip(cells, kinds, places, strict=True)
            ]
        )
    return {
        "name": table.name,
        "title": table.title,
        "header": [{"text": text, "kind": kind} for text, kind in zip(table.header, kinds, strict=True)],
        "rows": rows,
        "notes": table.notes,
        # The last of the words before the numbers names a row.
        "heading": max(len(list(itertools.takewhile(lambda kind: kind == "word", kinds))) - 1, 0),
    }


def _data(origins: Origins, sources: Sequence[Source], command: str) -> dict[str, Any]:
    """What the page's script knows of runs and baselines; versions, states and machines that runs share come once."""
    shared: dict[tuple[tuple[str, str], ...], int] = {}
    scores = []
    for origin in origins.scores:
        score: dict[str, Any] = {
            "agent": origin.agent,
            "task": origin.task,
            "goalSet": origin.goal_set,
            "snapshot": origin.snapshot,
            "seed": origin.seed,
            "seeds": origin.seeds,
            "values": list(origin.values.values()),
            "curve": list(origin.curve.items()),
            "run": None,
        }
        if origin.run is not None:
            circumstances = _circumstances(origin.run)
            score["run"] = {
                "path": origin.run.path,
                "id": origin.run.id,
                "config": origin.run.config_hash,
                "ended": origin.run.finished,
                "circumstances": shared.setdefault(tuple(circumstances.items()), len(shared)),
            }
        scores.append(score)
    return {
        "command": command,
        "commands": list(origins.commands.items()),
        "baselines": list(origins.baselines.items()),
        "domains": list(origins.domains.items()),
        "snapshot": origins.snapshot,
        "measures": list(origins.scores[0].values) if origins.scores else [],
        "circumstances": [dict(one) for one in shared],
        "scores": scores,
        "sources": [
            {
                "agents": source.agents,
                "tasks": source.tasks,
                "goalSet": source.goal_set,
                "frame": source.frame,
                "snapshot": source.snapshot,
            }
            for source in sources
        ],
    }


def _circumstances(run: RunRecord) -> dict[str, str]:
    return {
        "versions": ", ".join(package_versions([run])),
        "git": git_words(run.manifest.get("git")),
        "hardware": hardware_words(run.manifest.get("hardware")),
    }


def _asset(name: str) -> str:
    return resources.files("urlbench.reports").joinpath("templates", name).read_text(encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("urlbench.reports"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment
