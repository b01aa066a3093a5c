"""`runs_per_gpu` is so many runs a GPU: which runs share an element and its GPUs, and what is said of empty ones."""

import re
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import SlurmCluster
from slurm_fakes import FakeSlurm, fake_slurm, profile, toy_plan
from toy_runs import PLUGIN

from urlbench.slurm.profile import Resources
from urlbench.slurm.records import Records
from urlbench.slurm.run import run_on_slurm

__all__ = ["fake_slurm"]

NOTES = """\
import os, sys
from pathlib import Path
if sys.argv[0].endswith("worker.py"):
    Path(__file__).with_name(f"of {os.getpid()}.gpu").write_text(os.environ["CUDA_VISIBLE_DEVICES"])
"""


def asked(gpus: int = 0, gres: str = "") -> Resources:
    return Resources(slot_minutes=60, gpus=gpus, extra={"gres": gres} if gres else {})


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        (asked(), 0),
        (asked(gpus=3), 3),
        (asked(gres="gpu"), 1),
        (asked(gres="gpu:4"), 4),
        (asked(gres="gpu:a100"), 1),
        (asked(gres="gpu:a100:2"), 2),
        (asked(gres="nvme:1,gpu:a100:2,gpu:v100:1"), 3),
        (asked(gpus=1, gres="gpu:a100:2"), 2),
        (asked(gpus=1, gres="nvme:2"), 1),
        (asked(gres="nvme:2"), 0),
        (asked(gres="gpumem:16"), 0),
    ],
    ids=lambda value: str(value.extra or value.gpus) if isinstance(value, Resources) else "",
)
def test_the_gpus_of_an_element(resources: Resources, gpus: int) -> None:
    assert resources.all_gpus == gpus


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({"pretrain": asked(gpus=1)}, 1),
        ({"pretrain": asked(gpus=1), "runs_per_gpu": 3}, 3),
        ({"pretrain": asked(gpus=4)}, 4),
        ({"pretrain": asked(gpus=2), "runs_per_gpu": 3, "device": "cuda"}, 6),
        ({"pretrain": asked(gres="gpu:a100:2"), "runs_per_gpu": 2}, 4),
        # An element without a GPU counts as one.
        ({"pretrain": asked(), "runs_per_gpu": 2}, 2),
        ({"pretrain": asked(gpus=4), "runs_per_gpu": 2, "device": "cpu"}, 2),
        ({"finetune": asked(gpus=4)}, 1),
    ],
    ids=str,
)
def test_runs_that_share_an_element(fake_slurm: FakeSlurm, changes: dict[str, Any], runs: int) -> None:
    plan = toy_plan(phase="pretrain", seeds=tuple(range(6)))
    assert fake_slurm.run(plan, **{"device": "auto", **changes}) == 0
    (record,) = Records(fake_slurm.root).all()
    assert {len(paths) for paths in record.elements} == {runs, 6 % runs or runs}


def test_elements_are_filled_across_tasks_and_agents(fake_slurm: FakeSlurm) -> None:
    plan = toy_plan(agents=("toy", "toy-fail"), domains=("ball", "cube"), seeds=(0,), phase="pretrain")
    assert fake_slurm.run(plan, pretrain=asked(gpus=4), device="auto") == 0
    (record,) = Records(fake_slurm.root).all()
    assert record.elements == (tuple(job.path for job in plan.jobs),)


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"pretrain": asked(gpus=5)}, ""),
        ({"pretrain": asked(gpus=3)}, "1 of 6 GPUs stay empty, as some elements have fewer runs: ask for fewer"),
        ({"pretrain": asked(gpus=2), "runs_per_gpu": 2}, "1 of 4 GPUs stay empty, as some elements have fewer runs"),
        ({"pretrain": asked(gpus=8)}, "3 of 8 GPUs stay empty, as some elements have fewer runs: ask for fewer"),
        (
            {"pretrain": asked(gpus=2), "device": "cpu"},
            "10 of 10 GPUs stay empty, as the profile's device is cpu: ask for fewer",
        ),
        ({"pretrain": asked()}, ""),
    ],
    ids=str,
)
def test_gpus_that_stay_empty_are_told(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], warning: str
) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=tuple(range(5))), **{"device": "auto", **changes}) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "slots of" in line)
    assert line.partition("; warning: ")[2].startswith(warning)
    assert ("warning" in line) == bool(warning)


def test_gpus_are_asked_for_once(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0,)), pretrain=asked(gpus=1, gres="nvme:2")) == 0
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(1,)), pretrain=asked(gpus=1, gres="gpu:2")) == 0
    options = [re.findall("^#SBATCH --(gpu.*|gres.*)$", script, re.MULTILINE) for script in fake_slurm.scripts()]
    assert options == [["gpus-per-node=1", "gres=nvme:2"], ["gres=gpu:2"]]


@pytest.mark.slow
def test_on_a_real_cluster_runs_of_two_domains_have_a_gpu_each(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.enter(monkeypatch)
    (tmp_path / "notes.py").write_text(NOTES)
    plugins = (str(PLUGIN), str(tmp_path / "notes.py"))
    plan = toy_plan(domains=("ball", "cube"), seeds=(0,), phase="pretrain", plugins=plugins)
    assert run_on_slurm(plan, tmp_path, profile(pretrain=asked(gpus=2), device="auto"), retry_failed=False) == 0
    slurm.wait_until(lambda: len(list(tmp_path.rglob("DONE"))) == 2, "both runs are done")
    assert sorted(file.read_text() for file in tmp_path.glob("*.gpu")) == ["0", "1"]
    assert len(slurm.squeue()) == 1
