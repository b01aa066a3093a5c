"""`urlbench new agent`: its files work as they are, and so does what the documents make of them."""

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import urlbench
from plane_training import CONTEXT, DDPG_SETTINGS, DREAMER_SETTINGS, Plane, covered, train
from python_files import checked
from toy_runs import PLUGIN

from urlbench.agents.random import RandomAgent, RandomConfig
from urlbench.cli import app as cli
from urlbench.cli.starters import Backbone, Starter, write_agent
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.errors import UserError

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "new-agent.md").read_text(encoding="utf-8")
BACKBONES: tuple[Backbone, ...] = ("ddpg", "dreamer")


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_AGENTS", dict(registry._AGENTS))


def guide_agent() -> str:
    """The agent that the guide makes of the template."""
    (block,) = re.findall(r'```python\n("""DDPG rewarded by counts.*?)```', GUIDE, re.DOTALL)
    return str(block)


def guide_commands(program: str) -> list[list[str]]:
    """The arguments of the guide's commands of that kind."""
    return [shlex.split(line)[1:] for line in re.findall(rf"^    (urlbench {program} .*)$", GUIDE, re.MULTILINE)]


def write_guide_agent(folder: Path) -> Starter:
    """What someone who follows the guide has in the end."""
    ((_, _, name),) = guide_commands("new agent")
    files = write_agent(name, folder)
    files.plugin.write_text(guide_agent(), encoding="utf-8")
    return files


# --- The command ------------------------------------------------------------------------------------


def test_the_command_names_the_files_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["new", "agent", "my-agent"])
    assert end.value.code == 0
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["my_agent.py", "test_my_agent.py"]
    output = capsys.readouterr().out
    assert "python -m pytest test_my_agent.py\n" in output
    assert "--agent my-agent --plugin my_agent.py" in output
    with pytest.raises(SystemExit) as end:
        cli.main(["new", "agent", "my-agent"])
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "error: my_agent.py exists and is not overwritten; remove it, or choose another name.\n"
    )


@pytest.mark.parametrize("present", ["my_agent.py", "test_my_agent.py"])
def test_nothing_is_overwritten(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(UserError, match=f"{present} exists and is not overwritten"):
        write_agent("my-agent", tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rnd", r"agent 'rnd' is registered already \(DDPG rewarded by predicting a random network\)"),
        ("torch", "torch.py would hide the Python module 'torch'"),
        *((name, f"{name!r} cannot name an agent") for name in ("", "My-agent", "3d", "a--b", "a/b", "a.py", "lambda")),
    ],
)
def test_names_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        write_agent(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"my_agent.py cannot be written: No such file or directory; .*again"):
        write_agent("my-agent", tmp_path / "nowhere")


# --- What is written --------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_file_is_a_plugin(tmp_path: Path, backbone: Any) -> None:
    files = write_agent("new-thing", tmp_path, backbone)
    registry.load_plugin(str(files.plugin))
    spec = registry.load_agent("new-thing")
    assert (spec.pretrains, spec.observations) == (True, ("states", "pixels"))
    assert resolve_config(spec, "smoke") != resolve_config(spec, "small")
    assert not re.search(r"\$\w", files.plugin.read_text() + files.test.read_text())


@pytest.mark.slow
def test_templates_and_guide_pass_the_written_tests_and_the_linters(tmp_path: Path) -> None:
    agents = [write_agent(f"new-{backbone}", tmp_path, backbone) for backbone in BACKBONES]
    agents.append(write_guide_agent(tmp_path))
    checked(tmp_path, [path.name for files in agents for path in files])


@pytest.mark.slow
def test_a_new_agent_runs_and_other_processes_play_its_evaluations(tmp_path: Path) -> None:
    urlbench(tmp_path, "new", "agent", "new-thing")
    chosen = ["--agent", "new-thing", "--plugin", "new_thing.py", "--domains", "walker", "--tasks", "walker_stand"]
    protocol = ["--suite", "urlb-states", "--seeds", "1", "--preset", "smoke", "--device", "cpu"]
    output = urlbench(tmp_path, "run", *protocol, *chosen, "--env-workers", "2")
    assert "2 of 2 jobs are done" in output


# --- The guide --------------------------------------------------------------------------------------


def comparison() -> tuple[list[str], list[str]]:
    """The guide's commands that run and report both agents."""
    (run,) = [command for command in guide_commands("run") if "hash-counts,rnd" in command]
    (report,) = guide_commands("report")
    return run, report


def test_the_guide_asks_for_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_guide_agent(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["plan", *comparison()[0][1:]])
    assert end.value.code == 0
    assert "agents: hash-counts, rnd" in capsys.readouterr().out


@pytest.mark.slow
def test_the_guide_compares_its_agent(tmp_path: Path) -> None:
    write_guide_agent(tmp_path)
    # The real walker takes its time, and the test above has it.
    toys = {"urlb-states": "toy-states", "walker": "ball", "walker_stand": "ball_left"}
    run, report = ([toys.get(word, word) for word in [*command, "--plugin", str(PLUGIN)]] for command in comparison())
    assert "4 of 4 jobs are done" in urlbench(tmp_path, *run, "--device", "cpu")
    written = urlbench(tmp_path, *report, "--reps", "200", "--format", "md").split()
    (page,) = [tmp_path / word for word in written if word.endswith(".md")]
    scores = {line.split("|")[1].strip() for line in page.read_text(encoding="utf-8").splitlines() if "|" in line}
    assert scores >= {"hash-counts", "rnd"}


# --- They learn -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "settings", "steps"),
    [
        ("ddpg", DDPG_SETTINGS, 2500),
        ("dreamer", DREAMER_SETTINGS | {"reward_lr": 3e-3}, 1500),
        ("guide", DDPG_SETTINGS, 2500),
    ],
)
def test_the_rewards_lead_to_more_places(tmp_path: Path, source: Any, settings: dict[str, Any], steps: int) -> None:
    if source == "guide":
        write_guide_agent(tmp_path)
    else:
        write_agent("hash-counts", tmp_path, source)
    registry.load_plugin(str(tmp_path / "hash_counts.py"))
    spec = registry.load_agent("hash-counts")
    agent = spec.build(dataclasses.replace(CONTEXT, seed=1), resolve_config(spec, "smoke", settings))
    random = RandomAgent(CONTEXT, RandomConfig())
    floor = max(covered(train(random, Plane(), steps=steps, seed=seed)) for seed in range(5))
    assert covered(train(agent, Plane(), steps=steps, seed=1)) > 1.5 * floor
