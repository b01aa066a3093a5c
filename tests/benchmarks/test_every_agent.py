"""The campaign of every agent on every suite: what it calls a failure, and that it continues."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from toy_runs import StopAt, run, toy_jobs

from urlbench.core import registry

pytestmark = pytest.mark.usefixtures("toy_suites")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def every_agent(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import every_agent

    return every_agent


def test_jobs_are_right_when_they_are_done_and_started_from_their_parents_snapshot(
    every_agent: ModuleType, tmp_path: Path
) -> None:
    jobs = toy_jobs(tmp_path)
    for job, directory in jobs:
        (fault,) = every_agent.job_faults(job, tmp_path)
        assert fault.startswith(f"{job.label} is queued: no reason given (log: {directory.log_file}")
        assert run(tmp_path, job, directory, stop=StopAt(10)) == "interrupted"
        assert run(tmp_path, job, directory) == "done"
        assert every_agent.job_faults(job, tmp_path) == []
    both = [job for job, _ in jobs]
    attempts = [json.loads(line) for _, one in jobs for line in one.attempts_file.read_text().splitlines()]
    times = [row["ended"] if "ended" in row else -row["started"] for row in attempts]
    assert len(times) == 8
    assert every_agent.seconds(both, tmp_path) == pytest.approx(sum(times))

    job, directory = jobs[1]
    manifest = json.loads(directory.manifest_file.read_text())
    manifest["parent"]["snapshot_sha256"] = "0"
    directory.manifest_file.write_text(json.dumps(manifest))
    (fault,) = every_agent.job_faults(job, tmp_path)
    assert "'snapshot_sha256': '0'} and not from" in fault
    directory.eval_file.write_text("")
    (fault,) = every_agent.job_faults(job, tmp_path)
    assert "eval.jsonl was changed after the run ended" in fault


def test_a_failure_is_told_with_its_reason(every_agent: ModuleType, tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path, agent="toy-fail", seed=1)
    with pytest.raises(ValueError, match="on purpose"):
        run(tmp_path, job, directory)
    (fault,) = every_agent.job_faults(job, tmp_path)
    assert "is failed: ValueError: the toy agent fails on purpose" in fault


def test_agents_run_on_the_suites_whose_observations_they_take(every_agent: ModuleType) -> None:
    assert every_agent.takers(registry.load_suite("toy-pixels"), ["toy", "icm"]) == ["icm"]


def test_agents_whose_skills_must_act_take_no_data(every_agent: ModuleType) -> None:
    agents = ["choreographer", "ddpg", "diayn", "dreamer-aps", "icm"]
    assert every_agent.takers(registry.load_suite("urlb-offline"), agents) == ["choreographer", "ddpg", "icm"]
    assert every_agent.takers(registry.load_suite("urlb-states"), agents) == agents
    assert every_agent.takers(registry.load_suite("toy-states"), ["toy", "icm"]) == ["toy", "icm"]


def test_the_table_shows_agents_by_suites(every_agent: ModuleType) -> None:
    right, wrong = every_agent.Outcome("icm", "a", 2.6, ()), every_agent.Outcome("toy", "b", 1.0, ("it is bad",))
    found = {("icm", "a"): right, ("toy", "b"): wrong}
    assert every_agent.table(found, ["icm", "toy"], ["a", "b"]).splitlines() == [
        "1: a",
        "2: b",
        "",
        "| agent | 1      | 2      |",
        "| ----- | ------ | ------ |",
        "| icm   | ok 3 s | -      |",
        "| toy   | -      | FAILED |",
    ]


@pytest.mark.slow
def test_a_campaign_is_continued_and_ends_with_1_if_anything_is_wrong(
    every_agent: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [str(tmp_path), "--agents", "random", "--suites", "urlb-states", "--workers", "1"]
    assert every_agent.main(command) == 0
    printed = capfd.readouterr().out
    assert "| random | ok " in printed
    assert "1 of 1 are ok" in printed
    assert every_agent.main(command) == 0
    assert "nothing to do: all 1 jobs are done" in capfd.readouterr().out
    (file,) = tmp_path.rglob("eval.jsonl")
    file.write_text("")
    monkeypatch.setattr(every_agent, "run", lambda *arguments: None)
    assert every_agent.main(command) == 1
    assert "random on urlb-states:" in capfd.readouterr().out


def test_unknown_names_are_refused(every_agent: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        every_agent.main([str(tmp_path), "--suites", "urlb-state"])
    assert "unknown suite 'urlb-state'; did you mean 'urlb-states'?" in capsys.readouterr().err
