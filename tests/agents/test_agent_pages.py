"""The pages of the agents say what the code says: defaults, options, names, links."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import golden_topics
import pytest

from urlbench.core import registry
from urlbench.core.config import agent_changes, flatten, resolve_config
from urlbench.core.errors import UserError

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "agents"
OVERVIEW = ROOT / "docs" / "agents.md"
FAMILIES = ("ddpg-family", "dreamer-family")
# Other tests may have registered agents of their own.
AGENTS = sorted(name for name, entry in registry._AGENTS.items() if entry.origin == "urlbench" and name != "random")
PAGES = sorted([*AGENTS, *FAMILIES, "dyna-mpc"])
HEADINGS = [
    "The idea in three sentences",
    "Equations",
    "Settings",
    "Fine-tuning",
    "Skills",
    "Paper and published code",
    "Checked",
]


@functools.cache
def text(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", text(page), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} has no section {heading!r}"
    return found[1]


def own_settings(page: str) -> dict[str, str]:
    """The text of each default in the page's tables of options."""
    rows = re.findall(r"^\| `([\w.]+)` \| `([^`]+)` \|", section(page, "Settings"), re.MULTILINE)
    assert len(rows) == len(dict(rows)), f"{page} names an option twice"
    return dict(rows)


@functools.cache
def documented(page: str) -> dict[str, str]:
    """The page's defaults, and for what it does not name those of the pages that its settings refer to."""
    settings: dict[str, str] = {}
    for other in re.findall(r"\]\(([\w-]+)\.md(?:#settings)?\)", section(page, "Settings")):
        settings = documented(other) | settings
    return settings | own_settings(page)


@functools.cache
def defaults(agent: str) -> dict[str, Any]:
    return flatten(resolve_config(registry.load_agent(agent), "paper").model_dump(mode="json"))


def configured(agent: str, option: str, value: str) -> Any:
    """What a run makes of `-o agent.option=value`; UserError if it cannot."""
    changes = agent_changes([agent], [f"{agent}.{option}={value}"])[agent]
    return flatten(resolve_config(registry.load_agent(agent), "paper", changes).model_dump(mode="json"))[option]


def named_options(where: str) -> list[tuple[str, str]]:
    """Options that a text gives a value, but for the word `option` itself."""
    named = re.findall(r"(?:`|-o [\w-]+\.)([a-z_.]+)=([\w.-]+)", where)
    return [(option, value) for option, value in named if option != "option"]


def can_be_set(agent: str, option: str, value: str) -> bool:
    try:
        configured(agent, option, value)
    except UserError:
        return False
    return True


def test_every_agent_has_a_page_and_every_page_is_linked() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.md")) == PAGES
    overview = OVERVIEW.read_text(encoding="utf-8")
    assert [page for page in PAGES if f"](agents/{page}.md)" not in overview] == []


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_one_form(page: str) -> None:
    assert text(page).startswith("# ")
    found = re.findall(r"^## (.*)$", text(page), re.MULTILINE)
    assert found[: len(HEADINGS)] == HEADINGS
    sentences = re.sub(r"\s+", " ", section(page, HEADINGS[0])).strip()
    assert len(re.findall(r"\.(?= [A-Z]|$)", sentences)) == 3, "the idea has three sentences"
    assert page not in AGENTS or text(page).startswith(f"# `{page}`: ")


@pytest.mark.parametrize("agent", AGENTS)
def test_the_settings_are_the_defaults_and_complete(agent: str) -> None:
    said = documented(agent)
    assert defaults(agent).keys() - said.keys() == set(), "options that neither the page nor its family's names"
    assert own_settings(agent).keys() <= defaults(agent).keys(), "options that do not exist"
    wrong = {
        option: (said[option], default)
        for option, default in defaults(agent).items()
        if configured(agent, option, said[option]) != default
    }
    assert wrong == {}


@pytest.mark.parametrize("page", [*FAMILIES, "dyna-mpc"])
def test_shared_settings_are_settings_of_some_agent(page: str) -> None:
    known = set().union(*(defaults(agent) for agent in AGENTS))
    assert own_settings(page).keys() <= known
    # An agent's page repeats a shared setting only where its own is another.
    for agent in AGENTS:
        if agent != page and f"({page}.md#settings)" in section(agent, "Settings"):
            same = own_settings(agent).items() & own_settings(page).items()
            assert same == set(), f"{agent} repeats {page}"


@pytest.mark.parametrize("page", PAGES)
def test_options_that_are_named_can_be_set(page: str) -> None:
    for option, value in named_options(text(page)):
        agents = [page] if page in AGENTS else AGENTS
        assert any(can_be_set(agent, option, value) for agent in agents), f"{option}={value}"


def test_options_of_the_overview_can_be_set() -> None:
    named = named_options(OVERVIEW.read_text(encoding="utf-8"))
    assert len(named) > 20
    for option, value in named:
        assert any(can_be_set(agent, option.removeprefix("agent."), value) for agent in AGENTS), f"{option}={value}"


@pytest.mark.parametrize("page", PAGES)
def test_what_is_cited_exists(page: str) -> None:
    cited = re.findall(r"`([\w/]+)\.py`: ((?:`[\w.]+`(?:, )?)+)", text(page))
    assert cited, "equations say where they are in the code"
    for path, symbols in cited:
        module = importlib.import_module("urlbench.agents." + path.replace("/", "."))
        for symbol in re.findall(r"`([\w.]+)`", symbols):
            assert functools.reduce(getattr, symbol.split("."), module), f"{path}: {symbol}"
    for path in re.findall(r"`((?:urlbench|tests)/[\w/]+\.py)`", text(page)):
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", [*PAGES, "../agents"])
def test_links_lead_somewhere(page: str) -> None:
    here = (FOLDER / f"{page}.md").resolve()
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", here.read_text(encoding="utf-8")):
        file = (here.parent / target).resolve() if target else here
        assert file.is_file(), f"{page}: {target}"
        assert not anchor or anchor in _anchors(file), f"{page}: {target}#{anchor}"


@functools.cache
def _anchors(file: Path) -> set[str]:
    content = file.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", content, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([\w-]+)">', content))


def test_every_difference_is_on_a_page() -> None:
    listed = re.findall(r'<a id="([\w-]+)">', OVERVIEW.read_text(encoding="utf-8"))
    assert len(listed) == len(set(listed)) > 40
    rows = [line for line in OVERVIEW.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    tables = [line for line in rows if line.count(" | ") == 4 and not line.startswith("| what |")]
    assert [line for line in tables if not line.startswith('| <a id="')] == []
    linked = set(re.findall(r"\]\(\.\./agents\.md#([\w-]+)\)", "".join(text(page) for page in PAGES)))
    assert set(listed) - linked == set()


def test_recordings_are_named_where_they_are_used() -> None:
    named: set[str] = set()
    for page in PAGES:
        assert "make parity" in section(page, "Checked"), page
        topics = re.findall(r"`([a-z_0-9]+)`", section(page, "Checked"))
        assert set(topics) <= golden_topics.CHECKERS.keys(), page
        named |= set(topics)
    assert named == golden_topics.CHECKERS.keys()
