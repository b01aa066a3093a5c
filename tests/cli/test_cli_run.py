"""`urlbench run` with real worker processes: failures, stopping, continuing, third parties, other versions."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from processes import finish, run_program, started
from toy_runs import PLUGIN, Hold

from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# So that the tests run from a checkout that is not installed, too.
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
COMMON = ["--suite", "toy-states", "--domains", "ball", "--plugin", str(PLUGIN), "--device", "cpu", "--workers", "2"]
SMOKE = [*COMMON, "--preset", "smoke"]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "urlbench", *arguments]


def urlbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program(command(*arguments), cwd=folder, env=ENVIRONMENT)


# `urlbench` that waits for as long as it takes until workers whose command was killed have noticed it.
PATIENT = """\
from urlbench.cli import app
from urlbench.local import run
run._ORPHAN_SECONDS = float("inf")
app.main()"""


def evaluations(folder: Path) -> dict[str, bytes]:
    root = folder / "runs"
    return {
        str(file.relative_to(root)): file.read_bytes() for file in sorted(root.glob("*/*/*/finetune/**/eval.jsonl"))
    }


def test_run_fails_in_one_place_goes_on_elsewhere_and_is_idempotent(tmp_path: Path) -> None:
    arguments = ["run", *SMOKE, "--agent", "toy-fail", "--tasks", "ball_left", "--seeds", "2"]
    first = urlbench(tmp_path, *arguments)
    assert first.returncode == 1, first.stdout + first.stderr
    assert "seeds: 0, 1" in first.stdout.splitlines()
    assert "failed: toy-fail pretrain ball seed 1" in first.stdout
    assert "reason: ValueError: the toy agent fails on purpose" in first.stdout
    assert "2 of 4 jobs are done" in first.stdout
    (log,) = re.findall(r"log: (.*)", first.stdout)
    assert "Traceback" in Path(log).read_text()
    (identifier,) = [
        run["id"]
        for run in json.loads(urlbench(tmp_path, "status", "--json").stdout)["runs"]
        if run["state"] == "failed"
    ]
    assert "the toy agent fails on purpose" in urlbench(tmp_path, "logs", identifier[:10]).stdout

    again = urlbench(tmp_path, *arguments)
    assert again.returncode == 1
    assert "failed, in an earlier run: toy-fail pretrain ball seed 1" in again.stdout

    whole = urlbench(tmp_path, *[*arguments[:-1], "1"])
    assert whole.returncode == 0
    assert whole.stdout.splitlines()[-1] == "nothing to do: all 2 jobs are done"


def test_ctrl_c_saves_and_the_same_command_continues_bit_for_bit(tmp_path: Path) -> None:
    arguments = ["run", *COMMON, "--preset", "paper", "--agent", "toy", "--tasks", "ball_left", "--seeds", "1"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert urlbench(whole, *arguments).returncode == 0

    hold = Hold(tmp_path / "hold", 30)
    with started(command(*arguments), cwd=cut, env={**ENVIRONMENT, **hold.environment}) as process:
        hold.wait(process)
        process.send_signal(signal.SIGINT)
        output = finish(process)
    assert process.returncode == 3, output
    assert "the same command continues where it stopped" in output

    continued = urlbench(cut, *arguments)
    assert continued.returncode == 0, continued.stdout
    assert evaluations(cut) == evaluations(whole)


def test_killing_everything_loses_nothing(tmp_path: Path) -> None:
    arguments = ["run", *SMOKE, "--agent", "toy", "--tasks", "ball_left", "--seeds", "1"]
    hold = Hold(tmp_path / "hold", 30)
    with started(command(*arguments), cwd=tmp_path, env={**ENVIRONMENT, **hold.environment}) as process:
        hold.wait(process)
        process.kill()
    hold.let_go()
    continued = run_program([sys.executable, "-c", PATIENT, *arguments], cwd=tmp_path, env=ENVIRONMENT)
    assert continued.returncode == 0, continued.stdout
    assert "2 of 2 jobs are done" in continued.stdout or "nothing to do" in continued.stdout


def test_runs_of_other_versions_are_refused_and_moved_aside_on_request(tmp_path: Path) -> None:
    arguments = ["run", *SMOKE, "--agent", "toy", "--phase", "pretrain", "--seeds", "1"]
    request = {"agents": ("toy",), "domains": ("ball",), "seeds": (0,), "preset": "smoke", "phase": "pretrain"}
    (job,) = make_plan(PlanRequest(suite="toy-states", plugins=(str(PLUGIN),), **request)).jobs
    directory = RunDirectory(tmp_path / "runs" / job.path)
    directory.prepare(job)
    directory.finish(100)
    spec_file = directory.spec_file
    stored = json.loads(spec_file.read_text())
    stored["spec"]["versions"]["numpy"] = "1.0"
    stored["id"] = "0" * 16
    spec_file.write_text(json.dumps(stored))

    refused = urlbench(tmp_path, *arguments)
    assert refused.returncode == 2
    assert "which differs in versions.numpy; add --rerun stale" in refused.stderr
    assert urlbench(tmp_path, "plan", *arguments[1:]).returncode == 2

    moved = urlbench(tmp_path, *arguments, "--rerun", "stale")
    assert moved.returncode == 0, moved.stdout + moved.stderr
    assert "moved aside: " in moved.stdout
    (old,) = tmp_path.rglob("spec.aside.json")
    assert json.loads(old.read_text())["spec"]["versions"]["numpy"] == "1.0"
    assert (old.parent / "DONE").exists()


def test_the_example_of_the_interface_runs(tmp_path: Path) -> None:
    """One file, not part of this repository, is an agent."""
    (example,) = re.findall(r"```python\n# my_agent\.py\n(.*?)```", (ROOT / "docs/new-agent.md").read_text(), re.DOTALL)
    (tmp_path / "my_agent.py").write_text(example)
    plugins = ["--plugin", "my_agent.py", "--agent", "my-agent"]
    done = urlbench(tmp_path, "run", *SMOKE, *plugins, "--tasks", "ball_left", "--seeds", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    (results,) = evaluations(tmp_path).values()
    assert results.count(b"\n") == 4
