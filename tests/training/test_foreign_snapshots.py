"""Snapshots that are missing, damaged or someone else's: refused with one sentence, and nothing takes their place."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_runs import PLUGIN, run, with_protocol

from urlbench.agents.ddpg.backbone import Backbone
from urlbench.agents.ddpg.icm import Curiosity, ICMConfig
from urlbench.agents.ddpg.pretraining import Method
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentContext
from urlbench.core.jobs import Job
from urlbench.local.executor import Executor, ExecutorOptions
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory
from urlbench.training.checkpoint import save_checkpoint, snapshot_path

torch.set_num_threads(1)

Prepared = tuple[Job, RunDirectory]


def plan(root: Path, **changes: Any) -> list[Prepared]:
    """A pretraining and a fine-tuning from it, prepared."""
    choices = {"suite": "toy-states", "agents": ("icm",), "domains": ("ball",), "tasks": ("ball_left",), "seeds": (0,)}
    request = PlanRequest(**{**choices, "preset": "smoke", "plugins": (str(PLUGIN),), **changes})
    prepared = [(job, RunDirectory(root / job.path)) for job in make_plan(request).jobs]
    for job, directory in prepared:
        directory.prepare(job)
    return prepared


OTHERS: dict[str, dict[str, Any]] = {
    "agent": {"agents": ("rnd",)},
    "config": {"overrides": ("agent.lr=0.5",)},
    "domain": {"domains": ("cube",), "tasks": ("cube_near",)},
    "observation": {"suite": "toy-pixels"},
    "seed": {"seeds": (1,)},
}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with a finished pretraining, and those of others."""
    root = tmp_path_factory.mktemp("pretrained")
    for changes in ({}, *OTHERS.values()):
        assert run(root, *plan(root, **changes)[0]) == "done"
    return root


@pytest.fixture
def runs(pretrained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(pretrained, tmp_path / "runs")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(root: Path, job: Job, directory: RunDirectory) -> str:
    """Why the job fails, on one line; what it starts from is left as it is."""
    pretraining = root / str(job.parent_path)
    before = files(pretraining)
    with pytest.raises(UserError) as refusal:
        run(root, job, directory)
    message = str(refusal.value)
    assert message.endswith(".")
    assert "\n" not in message
    status = directory.read_status()
    assert status is not None
    assert (status.state, status.message, status.progress) == ("failed", message, 0)
    assert files(pretraining) == before
    assert not directory.snapshots.exists()
    assert not directory.eval_file.exists()
    return message


@pytest.mark.parametrize("what", OTHERS)
def test_a_snapshot_of_another_run_is_refused(runs: Path, what: str) -> None:
    (own, pretraining), (job, directory) = plan(runs)
    foreign = plan(runs, **OTHERS[what])[0][1]
    kept = pretraining.path / "kept"
    pretraining.snapshots.rename(kept)
    shutil.copytree(foreign.snapshots, pretraining.snapshots)
    message = refused(runs, job, directory)
    assert "snapshot_100.pt is another one, its " in message
    assert f"{what} is " in message
    assert f"restore the file, or move the folder {runs / own.path} away to pretrain anew." in message

    shutil.rmtree(pretraining.snapshots)
    kept.rename(pretraining.snapshots)
    assert run(runs, job, directory) == "done"


def test_a_snapshot_of_another_job_is_refused_even_if_all_it_says_of_the_agent_is_the_same(runs: Path) -> None:
    (own, pretraining), (job, directory) = plan(runs)
    other, foreign = with_protocol(own, runs, finetune_frames=40)
    assert run(runs, other, foreign) == "done"
    shutil.rmtree(pretraining.snapshots)
    shutil.copytree(foreign.snapshots, pretraining.snapshots)
    message = refused(runs, job, directory)
    assert f"snapshot_100.pt is another one, its job is '{other.id}' and should be '{own.id}'; restore" in message


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def remove_sidecar(path: Path) -> None:
    path.with_suffix(".json").unlink()


def take_anothers_content(path: Path) -> None:
    path.write_bytes(path.with_name("snapshot_50.pt").read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove, "snapshot_100.pt does not exist; restore the file"),
        (truncate, "snapshot_100.pt is damaged (its SHA-256 is not the one recorded when it was written); restore"),
        (remove_sidecar, "snapshot_100.pt is damaged ([Errno 2] No such file or directory"),
        (take_anothers_content, "snapshot_100.pt is damaged (its SHA-256 is not the one recorded"),
    ],
)
def test_a_snapshot_that_is_not_whole_is_refused(runs: Path, damage: Callable[[Path], None], reason: str) -> None:
    (_, pretraining), (job, directory) = plan(runs)
    damage(snapshot_path(pretraining.path, 100))
    assert reason in refused(runs, job, directory)


@pytest.mark.parametrize("what", ["agent", "domain", "seed"])
def test_a_pretraining_folder_of_another_run_is_refused(runs: Path, what: str) -> None:
    (_, pretraining), (job, directory) = plan(runs)
    foreign = plan(runs, **OTHERS[what])[0][1]
    shutil.rmtree(pretraining.path)
    shutil.copytree(foreign.path, pretraining.path)
    message = refused(runs, job, directory)
    assert "holds another pretraining than the one this run starts from" in message
    assert f"it differs in {what}" in message
    # Planned together with the fine-tuning, it is refused before anything starts.
    request = PlanRequest(
        **{"suite": "toy-states", "agents": ("icm",), "tasks": ("ball_left",), "seeds": (0,)},
        preset="smoke",
        plugins=(str(PLUGIN),),
    )
    executor = Executor(make_plan(request), runs, ExecutorOptions(workers=1))
    with pytest.raises(UserError, match=f"belongs to another run, which differs in {what}"):
        executor.prepare()


def test_a_folder_that_has_lost_its_name_is_not_adopted(runs: Path) -> None:
    pretraining = plan(runs)[0][1]
    pretraining.spec_file.unlink()
    before = files(pretraining.path)
    with pytest.raises(UserError, match=r"holds a run whose spec.json is gone; restore it, or move the folder away\."):
        plan(runs)
    assert files(pretraining.path) == before


class WiderCuriosity(Curiosity):
    """As after a change of the code that no setting tells."""

    def __init__(self, context: AgentContext, config: ICMConfig, backbone: Backbone) -> None:
        super().__init__(context, config.model_copy(update={"hidden": 2 * config.hidden}), backbone)


def test_a_snapshot_that_the_code_has_outgrown_is_refused(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (job, directory) = plan(runs)
    original = registry._AGENTS["icm"]
    changed = pretrained_spec(
        name="icm", description="", paper="", config=ICMConfig, method=Method(reward=WiderCuriosity)
    )
    monkeypatch.setitem(registry._AGENTS, "icm", dataclasses.replace(original, target=changed))
    message = refused(runs, job, directory)
    assert "snapshot_100.pt does not fit its agent's code, which has changed since (" in message
    assert "size mismatch" in message
    monkeypatch.setitem(registry._AGENTS, "icm", original)
    assert run(runs, job, directory) == "done"


def test_pixels_are_refused_for_an_agent_of_states_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="agent 'toy' runs on states, and suite 'toy-pixels' gives pixels; choose"):
        plan(tmp_path, suite="toy-pixels", agents=("toy",))
    assert not list(tmp_path.iterdir())


def test_a_state_that_could_not_be_read_again_is_refused_when_it_is_saved(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"state needs numpy.* to be read again; let state_dict return nothing but"):
        save_checkpoint(tmp_path, 10, {"agent": {"counts": np.zeros(3)}})
    assert not list(tmp_path.iterdir())
