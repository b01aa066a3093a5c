"""Names of suites and agents: lazy, unique, extendable."""

from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from registration import forgotten
from toy_runs import PLUGIN

from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentSpec
from urlbench.core.types import Suite


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    with forgotten():
        yield


def write_plugin(folder: Path, name: str, agent: str) -> str:
    file = folder / f"{name}.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from urlbench.core.registry import load_agent, register_agent\n"
        f"register_agent(replace(load_agent('random'), name={agent!r}, description='a copy'))\n"
    )
    return str(file)


@pytest.mark.parametrize("name", sorted(registry.names("suite")))
def test_every_suite_resolves(name: str) -> None:
    suite = registry.load_suite(name)
    assert isinstance(suite, Suite)
    assert suite.name == name


@pytest.mark.parametrize("name", sorted(registry.names("agent")))
def test_every_agent_resolves(name: str) -> None:
    spec = registry.load_agent(name)
    assert isinstance(spec, AgentSpec)
    assert spec.name == name


def test_nothing_that_other_tests_register_is_known_here() -> None:
    for table in (registry._SUITES, registry._AGENTS):
        assert {entry.origin for entry in table.values()} == {"urlbench"}


def test_every_name_has_a_description() -> None:
    assert all(registry.names("suite").values())
    assert all(registry.names("agent").values())


def test_a_plugin_file_adds_its_agent_once(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "one", "copy-one")
    registry.load_plugin(plugin)
    registry.load_plugin(plugin)
    assert registry.names("agent")["copy-one"] == "a copy"


def test_a_plugin_module_adds_its_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, "urlbench_plugin_module", "copy-two")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.load_plugin("urlbench_plugin_module")
    assert "copy-two" in registry.names("agent")


def test_two_plugins_of_one_file_name_are_two_plugins(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        registry.load_plugin(write_plugin(tmp_path / folder, "agent", f"copy-{folder}"))
    assert {"copy-a", "copy-b"} <= registry.names("agent").keys()


def test_a_name_that_is_taken_names_both(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path, "thief", "random")
    with pytest.raises(UserError, match="agent 'random' is registered twice, by urlbench and by plugin"):
        registry.load_plugin(plugin)


def test_a_plugin_that_fails_can_be_mended_and_loaded_again(tmp_path: Path) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("1 / 0\n")
    with pytest.raises(UserError, match="fails to import: ZeroDivisionError: division by zero"):
        registry.load_plugin(str(plugin))
    write_plugin(tmp_path, "broken", "copy-mended")
    registry.load_plugin(str(plugin))
    assert "copy-mended" in registry.names("agent")


def test_a_plugin_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match="plugin 'no_such_module' fails to import: ModuleNotFoundError"):
        registry.load_plugin("no_such_module")


def test_entry_points_are_names_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(*, group: str) -> list[Any]:
        return [EntryPoint("far-agent", "urlbench.agents.random:SPEC", group)] if group == "urlbench.agents" else []

    monkeypatch.setattr(registry, "entry_points", fake)
    monkeypatch.setattr(registry, "_loaded_entry_points", set())
    assert "far-agent" in registry.names("agent")
    assert registry.load_agent("far-agent") is registry.load_agent("random")


def test_what_is_registered_as_an_agent_must_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.load_plugin(str(PLUGIN))
    monkeypatch.setitem(registry._AGENTS, "odd", registry._SUITES["urlb-states"])
    with pytest.raises(AssertionError, match="'odd' is registered as an agent but is a Suite"):
        registry.load_agent("odd")
