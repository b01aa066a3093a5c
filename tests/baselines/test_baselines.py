"""Published baselines: the released numbers, each with its source, and what a source lacks stays unknown."""

import csv
from pathlib import Path

import numpy as np
import pytest

from urlbench.baselines import published_data
from urlbench.baselines.catalogue import (
    aggregates_of,
    find_published,
    mean_scores,
    other_sources,
    published_baselines,
    source_names,
    source_of,
    summary_scores,
)
from urlbench.baselines.library import load_baseline
from urlbench.baselines.listing import describe_published, format_published, published_rows
from urlbench.baselines.published_data import HASHES, published
from urlbench.baselines.verification import COUNTS, verify_published
from urlbench.core.errors import UserError
from urlbench.core.registry import load_suite
from urlbench.results.summary_scores import SummaryScores

FILES = Path(published_data.__file__).parent / "published"


def one(name: str, suite: str = "urlb-states") -> SummaryScores:
    (summary,) = load_baseline(name, suite)
    assert isinstance(summary, SummaryScores)
    return summary


def faults(monkeypatch: pytest.MonkeyPatch, **changes) -> dict[str, str]:
    """What `verify` says once some rows are others."""
    changed = published()._replace(**changes)
    for module in ("catalogue", "verification"):
        monkeypatch.setattr(f"urlbench.baselines.{module}.published", lambda: changed)
    published_baselines.cache_clear()
    try:
        return {check.name: check.detail for check in verify_published() if check.result == "failed"}
    finally:
        published_baselines.cache_clear()


def test_everything_that_comes_with_urlbench_verifies():
    assert {check.result for check in verify_published()} == {"passed"}
    assert COUNTS["scores"] == len(
        list(csv.DictReader((FILES / "scores.csv").read_text(encoding="utf-8").splitlines()))
    )


@pytest.mark.parametrize("name", HASHES)
def test_a_changed_file_is_noticed_and_nothing_of_it_is_used(name, tmp_path, monkeypatch):
    (tmp_path / "published").mkdir()
    for file in FILES.glob("*.csv"):
        content = file.read_bytes()
        if file.name == name:
            content = content.replace(b"9", b"8", 1)
        (tmp_path / "published" / file.name).write_bytes(content)
    monkeypatch.setattr(published_data.resources, "files", lambda package: tmp_path)
    (check,) = verify_published()
    assert (check.name, check.result) == ("hashes", "failed")
    assert name in check.detail
    published.cache_clear()
    try:
        with pytest.raises(UserError, match=f"{name} are missing or were changed"):
            published()
    finally:
        monkeypatch.undo()
        published.cache_clear()


def test_verification_finds_rows_that_are_missing_double_or_wrong(monkeypatch):
    scores = published().scores
    assert "739 scores instead of 740" in faults(monkeypatch, scores=scores[1:])["counts"]
    assert "stands 2 times" in faults(monkeypatch, scores=(*scores[1:], scores[-1]))["scores"]
    wrong = scores[0].model_copy(update={"task": "fly"})
    assert "walker_fly is no task of urlb-states" in faults(monkeypatch, scores=(wrong, *scores[1:]))["scores"]
    louder = scores[0].model_copy(update={"value": scores[0].value + 1})
    assert "choreographer-2023/DDPG" in faults(monkeypatch, scores=(louder, *scores[1:]))["derived means"]
    bare = scores[0].model_copy(update={"spread_type": "none"})
    assert "spread 27.0 of type none" in faults(monkeypatch, scores=(bare, *scores[1:]))["scores"]


def test_verification_compares_normalisers_with_the_suites(monkeypatch):
    rows = published().normalisation
    other = rows[0].model_copy(update={"value": 800.0})
    found = faults(monkeypatch, normalisation=(other, *rows[1:]))["normalisers"]
    assert "urlb-states divides walker_flip by 799.0" in found
    assert "by 800.0" in found


def test_every_table_has_its_provenance():
    for name in source_names():
        assert source_of(name).where_read
    assert "high" in source_of("choreographer-2023").reliability
    assert len(published_baselines()) == 11 + 13 + 1 + 13 + 1 + 1 + 11 + 12 + 2
    assert {kind.value_kind for kind in aggregates_of("moss-2022")} == {"digitised from figure"}


def test_table_2_gives_the_scores_of_choreographer():
    summary = one("baseline:choreographer-2023/Choreographer")
    suite = load_suite("urlb-states")
    assert summary.tasks == tuple(task.name for task in suite.tasks)
    assert summary.means[summary.tasks.index("walker_flip")] == 960
    assert summary.standard_errors[summary.tasks.index("jaco_reach_top_right")] == 10
    assert set(summary.n_seeds) == {10}
    assert float(np.mean(summary.scores)) == pytest.approx(0.9121, abs=5e-5)
    assert summary.label == "choreographer-2023/Choreographer"
    assert summary.select(["walker_flip"]).scores == pytest.approx([960 / 799])


def test_a_standard_deviation_becomes_a_standard_error_where_the_seeds_are_known():
    # 133 over 10 seeds, and 47 over 3 for the ablation of the same study.
    assert one("amped-2025/ampedwoskillselector").standard_errors[3] == pytest.approx(133 / np.sqrt(10))
    assert one("amped-2025/AMPED-w-o-RND").standard_errors[3] == pytest.approx(47 / np.sqrt(3))
    row = published().scores[0].model_copy(update={"spread_type": "std", "n_seeds": None})
    assert row.standard_error is None, "nobody knows over how many seeds"


def test_what_a_source_does_not_say_stays_unknown():
    moss = one("moss-2022/MOSS")
    assert "jaco_reach_top_right" not in moss.tasks, "another, less reliable source has that one"
    assert len(moss.tasks) == 11
    assert set(moss.n_seeds) == {0}
    assert one("moss-2022-listing/MOSS").tasks == ("jaco_reach_top_right",)
    becl = one("becl-2023/BeCL")
    assert np.isnan(becl.standard_errors).all()
    assert set(one("becl-reproduction/BeCL-reproduction").n_seeds) == {12}


def test_sources_are_never_pooled():
    cic = [
        summary
        for source in ("choreographer-2023", "moss-2022", "amped-2025")
        for summary in load_baseline(f"{source}/CIC", "urlb-states")
    ]
    flips = [int(summary.select(["walker_flip"]).means[0]) for summary in cic]
    assert flips == [631, 715, 637]
    assert len({summary.label for summary in cic}) == 3


def test_a_source_alone_means_all_its_agents():
    assert len(load_baseline("choreographer-2023", "urlb-states")) == 11
    assert [summary.agent for summary in load_baseline("choreographer-2023", "jaco-sparse")] == [
        "Choreographer",
        "Random",
    ]
    assert set(one("choreographer-2023/random", "jaco-sparse").scores) == {1.0}


def test_scores_stand_only_beside_tasks_observations_and_references_that_are_the_same():
    assert one("choreographer-2023/Choreographer", "urlb-offline").suite == "urlb-offline@1"
    for name, suite in [
        ("choreographer-2023/CIC", "urlb-pixels"),
        ("choreographer-2023/CIC", "jaco-sparse"),
        ("peac-2024-pixels/LBS", "urlb-pixels"),
        ("choreographer-2023/Choreographer", "metaworld-reach"),
    ]:
        with pytest.raises(UserError, match=f"cannot stand beside results of '{suite}'"):
            load_baseline(name, suite)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("choreographer-2032/CIC", "did you mean 'choreographer-2023'"),
        ("choreographer-2023/CICC", "did you mean 'choreographer-2023/CIC'|available|unknown agent 'CICC'"),
        ("euclid-2023", "only aggregates"),
    ],
)
def test_unknown_names_are_answered(name, words):
    with pytest.raises(UserError, match=words):
        load_baseline(name, "urlb-states")


def test_conflicts_between_sources_stand_side_by_side():
    (baseline,) = find_published("moss-2022/APT-ICM")
    assert {other.name for other in other_sources(baseline)} == {"choreographer-2023/APT", "amped-2025/APT"}
    (moss,) = find_published("moss-2022/CIC")
    means, shared = mean_scores([moss, *other_sources(moss)])
    assert "jaco_reach_top_right" not in shared
    assert means["moss-2022/CIC"] == pytest.approx(0.7359, abs=5e-5)
    text = format_published(describe_published("moss-2022/CIC"))
    assert "sources differ, mean score over the 11 tasks that all give" in text
    flip = next(line for line in text.splitlines() if line.split()[:1] == ["walker_flip"])
    assert flip.split() == ["walker_flip", "715", "±", "40", "standard", "error", "40.0", "not", "stated", "631", "637"]
    assert "inferred from the CI widths" in text
    assert "digitised from figure" in text


def test_the_published_aggregates_are_kept_as_they_are():
    text = format_published(describe_published("amped-2025/CeSD"))
    # The study's own table and figure differ: both stand there.
    assert "mean score over 12 tasks: 0.695" in text
    assert "0.654  [0.612, 0.697]  digitised from figure" in text
    assert "0.40-0.70" in format_published(describe_published("urlb-2021"))
    assert {row["kind"] for row in published_rows()} == {"published", "aggregates"}


def test_the_domain_sums_of_a_table_are_those_of_its_rows():
    for aggregate in aggregates_of("amped-2025"):
        if aggregate.metric.startswith("return_sum_") and aggregate.metric != "return_sum_total":
            domain = aggregate.metric.removeprefix("return_sum_")
            rows = [row for row in published().scores if (row.agent, row.domain) == (aggregate.agent, domain)]
            table = [row.value for row in rows if row.source == aggregate.source]
            assert sum(table) == float(aggregate.value), (aggregate.agent, domain)


def test_a_summary_that_no_suite_has_is_shown_but_not_compared():
    assert "a protocol that no suite of urlbench has" in format_published(describe_published("peac-2024-states/PEAC"))
    (peac,) = find_published("peac-2024-states/PEAC")
    with pytest.raises(UserError, match="no suite of urlbench"):
        summary_scores(peac, load_suite("urlb-states"))
