"""docs/gallery is what the stored baselines give today, and its numbers are those of the published tables."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from urlbench.baselines.published_data import published
from urlbench.reports import gallery
from urlbench.reports.gallery import SOURCES, check_table, make_gallery, sources_table

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
TABLES = {
    "choreographer-2023": ("choreographer-2023 Table 2",),
    "moss-2022": ("moss-2022 README table",),
    "amped-2025": (
        "amped-2025 page performance_table.png (paper Table 13)",
        "amped-2025 page component_ablation.png (paper Table 1)",
    ),
}


def folder(source: str) -> Path:
    return GALLERY / f"urlb-states@1-paper-{source}"


def rows(source: str, table: str) -> dict[str, dict[str, str]]:
    """The rows of a table of the gallery by their first word that is no domain."""
    text = (folder(source) / f"{table}-urlb-states@1-paper-{source}.csv").read_text()
    found = list(csv.DictReader(text.splitlines()))
    return {row["task"] if "task" in row else row["agent"]: row for row in found}


def published_scores(source: str) -> dict[str, dict[str, tuple[float, float]]]:
    """Return and score of each task by agent, straight from the stored rows."""
    experts = {row.full_task: row.value for row in published().normalisation if "Expert column" in row.source}
    assert len(experts) == 12
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for row in published().scores:
        if row.source in TABLES[source] and row.suite == "urlb-states":
            found.setdefault(row.agent, {})[row.full_task] = (row.value, row.value / experts[row.full_task])
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_the_tables_are_the_published_ones(source):
    table, aggregates, domains = (rows(source, name) for name in ("tasks", "aggregates", "domains"))
    scores = published_scores(source)
    assert list(aggregates) == list(scores)
    for agent, by_task in scores.items():
        assert {task: float(row[f"{agent} mean"]) for task, row in table.items()} == {
            task: value for task, (value, _) in by_task.items()
        }
        mean = np.mean([score for _, score in by_task.values()])
        assert float(aggregates[agent]["Mean"]) == pytest.approx(mean, abs=1e-12)
        walker = np.mean([score for task, (_, score) in by_task.items() if task.startswith("walker")])
        assert float(domains[agent]["walker"]) == pytest.approx(walker, abs=1e-12)


def test_the_mean_score_of_choreographer_is_the_one_of_its_table():
    found = rows("choreographer-2023", "aggregates")["Choreographer"]
    assert round(float(found["Mean"]), 3) == 0.912
    text = (folder("choreographer-2023") / "report-urlb-states@1-paper-choreographer-2023.md").read_text()
    assert "| Choreographer | 0.931 " in text
    assert "pretrained as in urlb-offline@1, not as in urlb-states@1" in text


def test_no_report_mixes_sources():
    for source in SOURCES:
        text = (folder(source) / f"report-urlb-states@1-paper-{source}.md").read_text()
        assert not any(other in text for other in SOURCES if other != source)


def numbers(text: str) -> tuple[list[float], str]:
    """The numbers of a text, and the text without them."""
    pattern = r"[-+]?\d+(?:\.\d+)?"
    return [float(number) for number in re.findall(pattern, text)], re.sub(pattern, "#", text)


def test_the_check_of_the_page_is_what_the_baselines_give():
    page = (GALLERY / "README.md").read_text()
    table = check_table()
    assert len(table.rows) == 8 * 4
    shown = [line for line in page.splitlines() if re.match(r"\| \w+ \| (IQM|Median|Mean|Optimality gap) \|", line)]
    assert len(shown) == len(table.rows)
    for line, row in zip(shown, table.rows, strict=True):
        found, words = numbers(line.replace("\\", ""))
        expected, expected_words = numbers(f"| {' | '.join(row)} |")
        assert words == expected_words
        # Sums may differ in their last bits on other processors, which can turn a last digit.
        assert found == pytest.approx(expected, abs=0.0011)


def test_simulated_aggregates_are_within_the_stated_error_of_the_published_ones():
    tolerances = {"IQM": 0.0085, "Optimality gap": 0.0055, "Mean": 0.0035, "Median": 0.0185}
    table = check_table(reps=5000)
    off = {row[0] for row, values in zip(table.rows, table.values, strict=True) if abs(values[4]) > tolerances[row[1]]}
    # Whose table and figure differ in their means, too.
    assert off == {"CeSD"}


def test_one_agent_of_several_sources_is_never_averaged():
    table = sources_table()
    by_agent: dict[str, list[str]] = {}
    for agent, baseline, *_ in table.rows:
        by_agent.setdefault(agent, []).append(baseline)
    assert by_agent["cic"] == ["choreographer-2023/CIC", "moss-2022/CIC", "amped-2025/CIC"]
    assert len({row[1] for row in table.rows}) == len(table.rows)
    values = {row[1]: value[3] for row, value in zip(table.rows, table.values, strict=True)}
    eleven = [task for task in published_scores("choreographer-2023")["CIC"] if task != "jaco_reach_top_right"]
    for source in SOURCES:
        scores = published_scores(source)["CIC"]
        assert values[f"{source}/CIC"] == pytest.approx(np.mean([scores[task][1] for task in eleven]))


@pytest.mark.slow
def test_the_gallery_on_disk_is_up_to_date(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "_FORMATS", ("md", "csv", "latex", "png"))
    made = make_gallery(tmp_path)
    found = sorted(path.relative_to(GALLERY) for path in GALLERY.rglob("*") if path.is_file())
    assert sorted(path.relative_to(tmp_path) for path in made) == found
    for path in made:
        if path.suffix == ".png":
            continue
        shown, words = numbers((GALLERY / path.relative_to(tmp_path)).read_text())
        expected, expected_words = numbers(path.read_text())
        assert words == expected_words, path.name
        assert shown == pytest.approx(expected, abs=0.0011), path.name
