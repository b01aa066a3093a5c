"""Stored baselines in reports: beside runs and alone, marked, never mixed with what is not comparable; bad input."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import TASKS, TOY, evaluation, make_job, rewrite_evaluations, write_grid, write_run

from urlbench.baselines.frozen import freeze
from urlbench.baselines.library import store
from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.identity import config_hash, job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.registry import load_suite
from urlbench.reports import figures
from urlbench.reports.report import make_report
from urlbench.results.cells import collect
from urlbench.runs.store import RunStore, append_jsonl, write_atomic

pytestmark = pytest.mark.usefixtures("synthetic_suites")

WALKER = ("walker_stand", "walker_walk", "walker_run", "walker_flip")
CIC = "baseline:choreographer-2023/CIC"


def write_urlb(root: Path, agent: str, finals: dict[str, list[float]], preset: str = "paper") -> None:
    """Fine-tunings of urlb-states from the last snapshot: final returns by task, seed by seed."""
    suite = load_suite("urlb-states")
    protocol = suite.protocols[preset]
    for task, values in finals.items():
        for seed, final in enumerate(values):
            spec = JobSpec(
                suite=suite.full_name,
                observation="states",
                action_repeat=1,
                agent=agent,
                agent_config={},
                protocol=protocol,
                phase="finetune",
                domain=suite.task(task).domain,
                task=task,
                seed=seed,
                snapshot=protocol.snapshots[-1],
                versions={"dm_control": "1.0.28", "mujoco": "3.3.0"},
            )
            place = f"{preset}/finetune/{task}/snapshot_{spec.snapshot}/seed_{seed}"
            job = Job(id=job_id(spec), path=f"{suite.full_name}/{agent}-{config_hash({})}/{place}", spec=spec)
            directory = RunStore(root).run_dir(job)
            directory.prepare(job)
            write_atomic(directory.manifest_file, json.dumps({"git": {"commit": "0123456789abcdef"}}))
            for frame in range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames):
                mean = final * frame / protocol.finetune_frames
                append_jsonl(directory.eval_file, {"frame": frame, "returns": [mean] * protocol.eval_episodes})
            directory.finish(protocol.finetune_frames)


@pytest.fixture(scope="module")
def walker(tmp_path_factory) -> Path:
    """Three seeds of `cic` on the walker, at the published budgets."""
    root = tmp_path_factory.mktemp("walker") / "runs"
    write_urlb(root, "cic", {task: [500.0, 600.0, 700.0] for task in WALKER})
    return root


def report(root: Path, agents, suite="urlb-states", **kwargs) -> dict[str, Path]:
    kwargs.setdefault("formats", ("md", "csv"))
    made = make_report(root, suite, agents, kwargs.pop("preset", "paper"), reps=200, **kwargs)
    return {path.name.partition(f"-{suite}@")[0] + path.suffix: path for path in made}


def rows(path: Path) -> dict[str, dict[str, str]]:
    found = csv.DictReader(path.read_text().splitlines())
    return {row.get("agent") or row["task"]: row for row in found}


# --- published ---------------------------------------------------------------------------------------


def test_published_agents_stand_beside_runs_in_the_order_asked_for(walker):
    files = report(walker, [CIC, "cic"])
    assert list(rows(files["aggregates.csv"])) == ["choreographer-2023/CIC", "cic"]
    row = rows(files["tasks.csv"])["walker_flip"]
    assert (row["choreographer-2023/CIC mean"], row["choreographer-2023/CIC standard error"]) == ("631.0", "34.0")
    assert (row["choreographer-2023/CIC n"], row["cic mean"], row["cic n"]) == ("10", "600.0", "3")
    text = files["report.md"].read_text()
    assert "3 seeds: 12 runs. Beside them 1 stored baseline." in text
    assert "choreographer-2023/CIC: simulated from published means and standard errors." in text
    assert "Published agents are means and standard errors of choreographer-2023; no run of them is known." in text
    assert "differ in more than the agent" in text
    assert f"--agents {CIC},cic" in text
    assert "Mazzaglia et al." in text.split("## Provenance")[1]


def test_published_agents_cover_the_tasks_of_the_runs_only(walker):
    found = rows(report(walker, ["cic", CIC])["aggregates.csv"])["choreographer-2023/CIC"]
    expected = np.mean([959 / 984, 885 / 971, 486 / 796, 631 / 799])
    assert float(found["Mean"]) == pytest.approx(expected)
    assert found["runs"] == "40"


def test_published_agents_take_no_part_where_runs_are_needed(walker, monkeypatch):
    shown = {}
    monkeypatch.setattr(
        figures, "save", lambda figure, path, _: shown.update({path.name.partition("-urlb")[0]: figure})
    )
    files = report(walker, ["cic", CIC], formats=("md", "csv", "png"))
    assert "improvement.csv" not in files
    assert len(shown["profiles"].axes[0].lines) == 1
    markers = [line for line in shown["aggregates"].axes[0].lines if line.get_marker() == "p"]
    assert {line.get_markerfacecolor() for line in markers} == {"#D55E00", "white"}
    assert "Hollow marks" in " ".join(text.get_text() for text in shown["aggregates"].texts)


def test_a_source_that_lacks_a_task_has_no_aggregate(walker, tmp_path):
    write_urlb(tmp_path, "cic", {"jaco_reach_top_right": [50.0, 60.0], "walker_run": [50.0, 60.0]})
    text = report(tmp_path, ["cic", "baseline:moss-2022/CIC"])["report.md"].read_text()
    assert "| moss-2022/CIC | — | — | — | — | — |" in text
    assert "no published score on jaco\\_reach\\_top\\_right" in text


def test_another_way_of_pretraining_is_said(walker):
    text = report(walker, ["cic", "baseline:choreographer-2023/Choreographer"])["report.md"].read_text()
    remark = "choreographer-2023/Choreographer: pretrained as in urlb-offline@1, not as in urlb-states@1."
    assert text.count(remark) == 3


def test_baselines_alone_make_a_report_without_runs(tmp_path):
    files = report(tmp_path / "nowhere", [CIC, "baseline:amped-2025/CIC"], out=tmp_path, domains=["walker"])
    text = files["report.md"].read_text()
    assert "2 stored baselines, 4 of the suite's 12 tasks; no runs." in text
    assert list(rows(files["aggregates.csv"])) == ["choreographer-2023/CIC", "amped-2025/CIC"]
    assert "fine-tuning" not in text.replace("fine-tuning)", "")
    assert str(tmp_path) not in text
    one = report(tmp_path, ["baseline:choreographer-2023"], out=tmp_path)
    assert "choreographer-2023/CIC" not in rows(one["aggregates.csv"])
    assert len(rows(one["aggregates.csv"])) == 11


def test_baselines_are_refused_where_they_do_not_belong(tmp_path, walker):
    write_urlb(tmp_path, "cic", {"walker_run": [50.0, 60.0]}, preset="smoke")
    with pytest.raises(UserError, match="is of preset 'paper' and never stands beside results of preset 'smoke'"):
        report(tmp_path, ["cic", CIC], preset="smoke")
    with pytest.raises(UserError, match="is of preset 'paper' and never stands"):
        report(tmp_path, [CIC], preset="smoke")
    with pytest.raises(UserError, match="did you mean 'choreographer-2023'"):
        report(walker, ["cic", "baseline:choreographer-2032"])
    with pytest.raises(UserError, match="of a protocol that no suite of urlbench has"):
        report(walker, ["cic", "baseline:peac-2024-states/CIC"])
    with pytest.raises(UserError, match="counts goals found, and a report on it takes no baselines"):
        report(walker, ["baseline:choreographer-2023/Choreographer"], "jaco-sparse")
    with pytest.raises(UserError, match="choose runs, and a report of baselines alone has none"):
        report(walker, [CIC], seeds=[0, 1])
    with pytest.raises(UserError, match="none of these baselines has a score on any of these tasks"):
        report(walker, ["baseline:moss-2022"], tasks=["jaco_reach_top_right"])
    with pytest.raises(UserError, match="unknown task 'walker_fly'"):
        report(walker, [CIC], tasks=["walker_fly"])


# --- frozen ------------------------------------------------------------------------------------------


@pytest.fixture
def june(tmp_path: Path, monkeypatch) -> Path:
    """Runs of `apt` and `random`, `apt` frozen as `june`; the folder of runs."""
    monkeypatch.chdir(tmp_path)
    write_grid(tmp_path / "runs", ["apt", "random"], 3)
    results = collect(tmp_path / "runs", "toy", "smoke")
    store(freeze(results, "june"), tmp_path / "baselines")
    return tmp_path / "runs"


def test_frozen_agents_are_agents_with_runs(june):
    files = report(june, ["apt", "baseline:june/apt"], "toy", preset="smoke")
    found = rows(files["aggregates.csv"])
    assert found["june/apt"]["IQM"] == found["apt"]["IQM"]
    # Streams have names of their own, so the same data have other draws.
    assert found["june/apt"]["IQM low"] != found["apt"]["IQM low"]
    assert "| june/apt | apt | 0.500 " in files["report.md"].read_text().replace(
        "| apt | june/apt |", "| june/apt | apt |"
    )


def test_a_frozen_baseline_of_another_snapshot_is_refused(june):
    for task in TASKS:
        for seed in range(3):
            write_run(june, make_job("apt", task, seed, snapshot=500), 10.0)
    with pytest.raises(UserError, match="started from 1k frames of pretraining and cannot stand beside results"):
        report(june, ["apt", "baseline:june/apt"], "toy", preset="smoke", snapshot=500)


def test_a_frozen_baseline_of_another_version_is_refused(june, monkeypatch):
    newer = TOY.model_copy(update={"version": 2})
    monkeypatch.setattr("urlbench.results.selection.load_suite", lambda name: newer)
    with pytest.raises(UserError, match="was made on toy@1 and never stands in one table with results of toy@2"):
        report(june, ["baseline:june"], "toy", preset="smoke")


# --- bad input ---------------------------------------------------------------------------------------


def test_runs_of_two_versions_or_presets_are_no_report(tmp_path):
    write_grid(tmp_path, ["apt"], 2)
    write_run(tmp_path, make_job("apt", "arm_left", 0, suite="toy@2"))
    with pytest.raises(IncompleteError, match="there are runs of toy@2 beside those of toy@1"):
        report(tmp_path, ["apt"], "toy", preset="smoke", allow_partial=True)
    with pytest.raises(UserError, match="there are runs of preset smoke: choose with --preset"):
        report(tmp_path, ["apt"], "toy")


def test_a_nan_is_named_and_reported_by_nobody(tmp_path):
    write_grid(tmp_path, ["apt"], 2)
    directory = RunStore(tmp_path).run_dir(make_job("apt", "arm_left", 1))
    lines = [json.dumps(evaluation(100, 1.0)), json.dumps(evaluation(200, 1.0) | {"returns": [1.0, float("nan")]})]
    rewrite_evaluations(directory, "\n".join(lines) + "\n")
    with pytest.raises(IncompleteError, match="line 2 \\(frame 200\\) holds a return that is not finite"):
        report(tmp_path, ["apt"], "toy", preset="smoke")
    text = report(tmp_path, ["apt"], "toy", preset="smoke", allow_partial=True)["report.md"].read_text()
    assert "PARTIAL 5/6 runs" in text
    assert "(n=1) | 50 |" in text.split("| arm\\_left |")[1].splitlines()[0]


def test_one_task_of_one_seed_has_values_and_says_what_it_lacks(tmp_path):
    write_run(tmp_path, make_job("apt", "arm_left", 0), 40.0)
    write_run(tmp_path, make_job("cic", "arm_left", 0), 20.0)
    files = report(tmp_path, None, "toy", preset="smoke", formats=("md", "csv", "latex", "svg"))
    found = rows(files["aggregates.csv"])
    assert {found["apt"][name] for name in ("IQM", "Median", "Mean")} == {"0.8"}
    assert found["apt"]["IQM low"] == ""
    text = files["report.md"].read_text()
    assert "apt, cic: one run per task: no interval." in text
    assert "## Normalised score, arm_left" in text


def test_runs_that_end_alike_have_intervals_of_width_zero(tmp_path):
    for agent in ("apt", "cic"):
        for seed in range(3):
            for task in TASKS:
                write_run(tmp_path, make_job(agent, task, seed), 40.0)
    files = report(tmp_path, None, "toy", preset="smoke", formats=("csv", "png"))
    row = rows(files["aggregates.csv"])["apt"]
    assert row["IQM low"] == row["IQM"] == row["IQM high"]
    (pair,) = rows_of(files["improvement.csv"])
    assert (pair["P(X > Y)"], pair["P(X > Y) low"]) == ("0.5", "0.5")


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_five_hundred_agents_are_reported(tmp_path):
    for number in range(500):
        write_run(tmp_path, make_job(f"agent {number}", "arm_left", 0), number / 10)
    files = report(tmp_path, None, "toy", preset="smoke", formats=("md", "csv", "latex"))
    assert len(rows(files["aggregates.csv"])) == 500
    assert rows(files["aggregates.csv"])["agent 499"]["Mean"] == str(49.9 / 50)
    assert "agent 499" in files["aggregates.tex"].read_text()
    assert "Pairs of agents are left out: more than 60 agents." in files["report.md"].read_text()
    assert "improvement.csv" not in files
