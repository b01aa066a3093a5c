"""What the benchmarks report; never how fast anything is."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from processes import run_program

from urlbench.core import registry

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
AGENTS = sorted(registry.names("agent"))
RESULTS = sorted((BENCHMARKS / "results").glob("updates-*.json"))


@pytest.fixture
def one_update(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import one_update

    return one_update


def settings(module: ModuleType, observation: str = "states") -> Any:
    return module.Settings(preset="smoke", observation=observation, updates=2, seconds=60, threads=1)


@pytest.mark.parametrize(
    ("name", "phase", "observation", "batch"),
    [
        ("icm", "pretrain", "states", (16, 4)),
        ("icm", "finetune", "pixels", (8, 4)),
        ("choreographer", "pretrain", "states", (8, 16)),
        ("choreographer", "finetune", "states", (8, 16)),
    ],
)
def test_an_update_is_measured(
    one_update: ModuleType, name: str, phase: str, observation: str, batch: tuple[int, int]
) -> None:
    found = one_update.measure(name, phase, settings(one_update, observation))
    assert (found.agent, found.phase, found.batch) == (name, phase, batch)
    assert len(found.update_seconds) == len(found.cpu_seconds) == 2
    assert all(seconds > 0 for seconds in (*found.update_seconds, *found.cpu_seconds, found.act_seconds))
    assert 2**20 < found.baseline_bytes <= found.peak_bytes


@pytest.mark.parametrize(("name", "phase"), [("ddpg", "pretrain"), ("random", "pretrain"), ("random", "finetune")])
def test_where_nothing_is_learned_nothing_is_measured(one_update: ModuleType, name: str, phase: str) -> None:
    assert one_update.measure(name, phase, settings(one_update)) is None


@pytest.mark.parametrize("name", ["choreographer", "choreographer-single-skill", "dreamer-aps", "dreamer-diayn", "aps"])
def test_a_finetuning_is_measured_when_it_learns_a_policy(one_update: ModuleType, name: str) -> None:
    spec, asked = registry.load_agent(name), settings(one_update)
    agent = one_update.build(spec, "finetune", asked)
    batch = one_update.play(agent, agent.actor(evaluation=False, seed=0), one_update.context(spec, asked))
    one_update.settle(agent, batch)
    assert any(key.endswith("critic_loss") for key in agent.update(batch))


@pytest.mark.parametrize("name", ["icm", "dreamer-rnd"])
def test_trained_parameters_are_counted_once_and_copies_are_not(one_update: ModuleType, name: str) -> None:
    agent = one_update.build(registry.load_agent(name), "pretrain", settings(one_update))
    modules = torch.nn.ModuleList(one for one in agent.components.values() if isinstance(one, torch.nn.Module))
    numbers = [parameter.numel() for parameter in modules.parameters() if parameter.requires_grad]
    assert one_update.trained_parameters(agent) == sum(numbers) < sum(p.numel() for p in modules.parameters())


@pytest.mark.slow
def test_the_command_measures_each_phase_and_shows_it_again(tmp_path: Path) -> None:
    def command(*arguments: str) -> str:
        script = str(BENCHMARKS / "updates.py")
        return run_program([sys.executable, script, *arguments], cwd=ROOT, check=True).stdout

    small = ("--preset", "smoke", "--updates", "2", "--threads", "1")
    printed = command("--agents", "ddpg,random", *small, "--output", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["settings"] == {
        "preset": "smoke",
        "observation": "states",
        "updates": 2,
        "seconds": 10.0,
        "threads": 1,
    }
    assert found["machine"]["packages"]["torch"] == torch.__version__
    assert found["machine"]["hardware"]["cores"] >= 1
    assert found["machine"]["threads"] == 1
    assert len(found["machine"]["load_average"]) == 3
    (one,) = found["measurements"]
    assert (one["agent"], one["phase"], one["batch"]) == ("ddpg", "finetune", [16, 4])
    assert one["peak_bytes"] > one["baseline_bytes"] + 2**20
    assert printed == command("--show", str(tmp_path / "found.json"))
    assert [line.split()[1] for line in printed.splitlines()] == ["agent", "-" * 5, "ddpg"]


def test_the_machine_is_described_and_not_named(one_update: ModuleType) -> None:
    import reporting

    machine = reporting.describe_machine(3)
    assert (machine["device"], machine["threads"], len(machine["load_average"])) == ("cpu", 3, 3)
    assert {"git", "packages", "python", "hardware", "command"} <= machine.keys()
    assert "host" not in machine


def test_a_table_is_markdown_with_median_and_spread(one_update: ModuleType) -> None:
    import reporting

    rows = [("a", reporting.spread([3.0, 1.0, 10.0], ".1f")), ("b", reporting.spread([2.0], ".1f"))]
    assert reporting.markdown_table(("name", "time"), rows).splitlines() == [
        "| name | time              |",
        "| ---- | ----------------- |",
        "| a    | 3.0 (1.0 to 10.0) |",
        "| b    | 2.0               |",
    ]


def test_an_unknown_agent_is_refused(
    one_update: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import updates

    monkeypatch.setattr(sys, "argv", ["updates.py", "--agents", "dgpp"])
    with pytest.raises(SystemExit):
        updates.main()
    assert "unknown agent 'dgpp'; did you mean 'ddpg'?" in capsys.readouterr().err


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_documents_show_what_was_measured(one_update: ModuleType, path: Path) -> None:
    import updates

    report = updates.Report.model_validate_json(path.read_text(encoding="utf-8"))
    assert updates.table(report) in (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_every_agent_that_learns_was_measured_from_states(one_update: ModuleType) -> None:
    import updates

    reports = [updates.Report.model_validate_json(path.read_text(encoding="utf-8")) for path in RESULTS]
    measured = {
        (one.agent, one.phase)
        for report in reports
        if (report.settings.preset, report.settings.observation) == ("paper", "states")
        for one in report.measurements
    }
    expected = {
        (name, phase)
        for name in AGENTS
        for phase in updates.PHASES
        if name != "random" and (phase == "finetune" or registry.load_agent(name).pretrains)
    }
    assert measured == expected
