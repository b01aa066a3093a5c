"""How a run starts, ends and fails, and what it refuses to start from."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from toy_runs import (
    PLUGIN,
    assert_same_run,
    equal,
    final_agent,
    run,
    run_both,
    toy_jobs,
    toy_plugin,
    with_protocol,
    with_spec,
)

from urlbench.core.errors import UserError
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunStore, read_jsonl
from urlbench.training.checkpoint import snapshot_path


def test_the_end_of_the_budget_ends_the_run_and_keeps_the_agent(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path)
    job, directory = with_protocol(job, tmp_path, pretrain_frames=90, snapshots=(50, 90))
    assert run(tmp_path, job, directory) == "done"
    assert json.loads(directory.done_file.read_text())["frames"] == 90
    assert final_agent(directory)["updates"] == 15


def test_a_finetuning_starts_from_its_snapshot(tmp_path: Path) -> None:
    pretraining, finetuning = run_both(tmp_path, overrides=("agent.schedule.update_every_frames=null",))
    assert equal(final_agent(pretraining)["model"], final_agent(finetuning)["model"])
    other = run_both(tmp_path, seed=3, overrides=("agent.schedule.update_every_frames=null",))
    assert not equal(final_agent(pretraining)["model"], final_agent(other[1])["model"])
    manifest = json.loads(finetuning.manifest_file.read_text())
    assert manifest["parent"]["path"].endswith("pretrain/ball/seed_0")
    sidecar = json.loads(snapshot_path(pretraining.path, 100).with_suffix(".json").read_text())
    assert manifest["parent"]["snapshot_sha256"] == sidecar["sha256"]
    assert {"git", "packages", "python", "hardware", "command"} <= manifest.keys()
    assert manifest["plugins"] == {str(PLUGIN): hashlib.sha256(PLUGIN.read_bytes()).hexdigest()}


@pytest.mark.parametrize(
    ("suite", "agent", "renderer"),
    [("toy-pixels", "icm", "NumPy"), ("toy-pixels", "random", None), ("toy-states", "toy", None)],
)
def test_the_manifest_names_what_draws_the_pictures_that_are_seen(
    tmp_path: Path, suite: str, agent: str, renderer: str | None
) -> None:
    request = PlanRequest(
        suite=suite, agents=(agent,), tasks=("ball_left",), seeds=(0,), preset="smoke", plugins=(str(PLUGIN),)
    )
    job = make_plan(request).jobs[0]
    directory = RunStore(tmp_path).run_dir(job)
    directory.prepare(job)
    # It is written before the first step.
    assert run(tmp_path, job, directory, stop=lambda: "enough") == "interrupted"
    assert json.loads(directory.manifest_file.read_text())["hardware"]["renderer"] == renderer


def test_a_run_that_is_done_is_left_alone(tmp_path: Path) -> None:
    _, directory = run_both(tmp_path)
    _, (job, _) = toy_jobs(tmp_path)
    names = sorted(path.name for path in directory.path.iterdir())
    before = {path: path.stat().st_mtime_ns for path in directory.path.iterdir() if path.name != "lock"}
    assert run(tmp_path, job, directory) == "done"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert names == [
        *("DONE", "attempts.jsonl", "eval.jsonl", "lock", "manifest.json", "snapshots", "spec.json"),
        *("status.json", "train.jsonl"),
    ]
    directory.eval_file.write_bytes(directory.eval_file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"eval.jsonl was changed after the run ended"):
        run(tmp_path, job, directory)


def test_the_seed_and_only_the_seed_changes_a_run(tmp_path: Path) -> None:
    for one, other in zip(run_both(tmp_path / "a", seed=5), run_both(tmp_path / "b", seed=5), strict=True):
        assert_same_run(one, other)


def test_a_failure_is_recorded_and_repeats(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path, agent="toy-fail", seed=1)
    for attempt in (1, 2):
        with pytest.raises(ValueError, match="fails on purpose"):
            run(tmp_path, job, directory)
        status = directory.read_status()
        assert status is not None
        assert (status.state, status.attempt) == ("failed", attempt)
        assert status.message == "ValueError: the toy agent fails on purpose"
    reasons = [row["reason"] for row in read_jsonl(directory.attempts_file) if "reason" in row]
    assert reasons == ["ValueError: the toy agent fails on purpose"] * 2
    (job, directory), _ = toy_jobs(tmp_path, agent="toy-fail", seed=0)
    assert run(tmp_path, job, directory) == "done"


def test_nan_in_a_metric_fails_the_run(tmp_path: Path) -> None:
    (job, directory), _ = toy_jobs(tmp_path, overrides=("agent.nan_update=3",))
    message = "the update's loss became infinite or NaN in the episode that ended at frame 60"
    with pytest.raises(UserError, match=message):
        run(tmp_path, job, directory)
    status = directory.read_status()
    assert status is not None
    assert message in status.message
    assert len(read_jsonl(directory.train_file)) == 2


def test_nan_in_a_return_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = toy_plugin().ToyEnvironment
    original = environment.step
    monkeypatch.setattr(environment, "step", lambda self, action: original(self, action)._replace(reward=np.nan))
    (job, directory), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="the return of the episode that ended at frame 20 is nan"):
        run(tmp_path, job, directory)


def test_a_parent_that_is_not_there_is_not_replaced(tmp_path: Path) -> None:
    pretraining, finetuning = toy_jobs(tmp_path)
    with pytest.raises(UserError, match=r"its pretraining .*pretrain/ball/seed_0 is not finished"):
        run(tmp_path, *finetuning)
    run(tmp_path, *pretraining)
    other = with_spec(finetuning[0], tmp_path, parent="0123456789abcdef")
    with pytest.raises(UserError, match=r"holds another pretraining than .*, not 0123456789abcdef"):
        run(tmp_path, *other)
    snapshot_path(pretraining[1].path, 100).unlink()
    with pytest.raises(UserError, match=r"snapshot_100.pt does not exist"):
        run(tmp_path, *finetuning)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match=r"planned with numpy 0.1 and .* is installed; install numpy==0.1"):
        run(tmp_path, *with_spec(job, tmp_path, versions={"numpy": "0.1"}))


def test_another_version_of_the_suite_is_refused(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="is of suite toy-states@7 and toy-states@1 is installed"):
        run(tmp_path, *with_spec(job, tmp_path, suite="toy-states@7"))


def test_budgets_must_fit_the_action_repeat(tmp_path: Path) -> None:
    (job, _), _ = toy_jobs(tmp_path)
    with pytest.raises(UserError, match="pretrain_frames 100 is not a multiple of the action repeat 3"):
        run(tmp_path, *with_spec(job, tmp_path, action_repeat=3))
