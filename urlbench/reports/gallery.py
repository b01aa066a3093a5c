"""The gallery of docs/gallery: published tables as reports, and simulated aggregates beside the published ones.

`python -m urlbench.reports.gallery FOLDER` makes it from the stored baselines alone.
"""

import sys
from pathlib import Path

import numpy as np

from urlbench.baselines.catalogue import (
    PublishedBaseline,
    aggregates_of,
    find_published,
    fits,
    other_sources,
    source_of,
    summary_scores,
)
from urlbench.reports.files import markdown_environment
from urlbench.reports.provenance import made_with
from urlbench.reports.report import DEFAULT_REPS, make_report
from urlbench.reports.tables import Table, format_estimate
from urlbench.results.selection import registered_suite
from urlbench.statistics.aggregates import AGGREGATES
from urlbench.statistics.simulation import simulated

SUITE = "urlb-states"
SOURCES = ("choreographer-2023", "amped-2025", "moss-2022")
_FORMATS = ("md", "csv", "latex", "png")
_CHECKED = "amped-2025"
# The figure's agent is called otherwise in the table.
_IN_TABLE = {"AMPED": "AMPED (full)"}


def make_gallery(folder: Path, reps: int = DEFAULT_REPS) -> list[Path]:
    """Write the gallery into `folder`; its files, the page that shows them first.

    Args:
        folder: made if it does not exist.
        reps: repetitions of the simulations.
    """
    files: list[Path] = []
    reports = []
    for source in SOURCES:
        made = make_report("runs", SUITE, [f"baseline:{source}"], out=folder, reps=reps, formats=_FORMATS)
        files += made
        names = {path.name.partition(f"-{SUITE}@")[0] + path.suffix: path.name for path in made}
        reports.append(
            {
                "source": source,
                "what": source_of(source).what,
                "folder": made[0].parent.name,
                "file": made[0].name,
                "aggregates": names["aggregates.png"],
                "domains": names["domains.png"],
                "command": f"urlbench report --suite {SUITE} --agents baseline:{source}",
            }
        )
    page = folder / "README.md"
    text = (
        markdown_environment()
        .get_template("gallery.md.j2")
        .render(versions=made_with(), reports=reports, tables=[check_table(reps), sources_table()])
    )
    page.write_text(text, encoding="utf-8", newline="\n")
    return [page, *files]


def check_table(reps: int = DEFAULT_REPS) -> Table:
    """The aggregates that are simulated from a published table, beside those of the same source's figure."""
    suite = registered_suite(SUITE)
    in_table = {baseline.agent: baseline for baseline in find_published(_CHECKED)}
    drawn = [one for one in aggregates_of(_CHECKED) if one.value_kind.startswith("digitised")]
    rows, values = [], []
    for agent in dict.fromkeys(one.agent for one in drawn):
        found = simulated(summary_scores(in_table[_IN_TABLE.get(agent, agent)], suite), reps)
        for metric in AGGREGATES:
            (figure,) = [one for one in drawn if (one.agent, one.metric) == (agent, metric.lower().replace(" ", "_"))]
            value, published = found[metric].value, float(figure.value)
            assert value is not None, f"{_CHECKED} gives all that a simulation needs"
            ends = f"{published:.3f} [{float(figure.ci_low):.3f}, {float(figure.ci_high):.3f}]"
            rows.append((agent, metric, format_estimate(found[metric]), ends, f"{value - published:+.3f}"))
            values.append((None, None, found[metric], published, value - published))
    return Table(
        "check",
        f"Simulated from the table of {_CHECKED}, and measured on its figure",
        ("agent", "metric", "from the table", "from the figure", "difference"),
        tuple(rows),
        (
            "The figure was made from runs that are not public, and was measured to about 0.005. Means are exact: "
            "where they differ by more, table and figure tell of different runs, and nothing simulated can agree.",
        ),
        values=tuple(values),
    )


def sources_table() -> Table:
    """The mean score of every agent that several sources have, by each of them, on the tasks that all of these have."""
    suite = registered_suite(SUITE)
    rows, values, seen = [], [], set()
    for source in SOURCES:
        for baseline in find_published(source):
            if not fits(baseline, suite) or baseline.name in seen:
                continue
            same = [baseline, *other_sources(baseline)]
            same = [one for one in same if fits(one, suite) and len(one.scores) > 1]
            seen |= {one.name for one in same}
            if len({one.source for one in same}) > 1:
                shared = _shared_tasks(same)
                for one in same:
                    score = float(np.mean(summary_scores(one, suite).select(shared).scores))
                    rows.append((baseline.family, one.name, str(len(shared)), f"{score:.3f}"))
                    values.append((None, None, len(shared), score))
    return Table(
        "sources",
        "One agent, several sources",
        ("agent", "baseline", "tasks", "mean score"),
        tuple(rows),
        ("Mean over the tasks that all sources of the agent give. Sources are compared here and never averaged.",),
        values=tuple(values),
    )


def _shared_tasks(baselines: list[PublishedBaseline]) -> set[str]:
    return set.intersection(*({score.full_task for score in one.scores} for one in baselines))


if __name__ == "__main__":
    for file in make_gallery(Path(sys.argv[1])):
        print(file)
