"""Defaults, presets, files and overrides, in this order."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from urlbench.core.config import agent_changes, flatten, plain_values, resolve_config
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, AgentContext, AgentSpec
from urlbench.core.types import AddedLater, Spec


class Inner(Spec):
    width: int = 8
    activation: Literal["elu", "relu"] = "elu"


class Outer(Spec):
    rate: float = 3e-4
    every_frames: int | None = 10
    first: Inner = Inner(width=4)
    second: Inner | None = None
    sizes: tuple[int, ...] = (400, 400)

    @model_validator(mode="after")
    def _sizes_fit(self) -> "Outer":
        if len(self.sizes) > 3:
            raise ValueError(f"sizes {self.sizes} are more than three layers")
        return self


def never_built(context: AgentContext, config: Any) -> Agent:
    raise AssertionError("resolving builds no agent")


SPEC = AgentSpec(
    name="painter",
    description="",
    paper="",
    observations=("states",),
    pretrains=True,
    config=Outer,
    build=never_built,
    presets={"smoke": {"rate": 0.1, "first": {"width": 2}}},
)


def resolved(*overrides: str, preset: str = "paper", config_file: str | None = None) -> Outer:
    config = resolve_config(SPEC, preset, agent_changes(["painter"], overrides, config_file)["painter"])
    assert isinstance(config, Outer)
    return config


def test_defaults_are_the_published_settings() -> None:
    assert resolved() == Outer()


def test_a_preset_changes_only_what_it_names() -> None:
    assert resolved(preset="smoke") == Outer(rate=0.1, first=Inner(width=2))


def test_overrides_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("painter:\n  rate: 0.2\n  first: {width: 16}\n  sizes: [1]\n")
    config = resolved("agent.rate=0.3", preset="smoke", config_file=str(file))
    assert config == Outer(rate=0.3, first=Inner(width=16), sizes=(1,))


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("agent.rate=3e-4", "rate", 3e-4),
        ("agent.every_frames=null", "every_frames", None),
        ("painter.first.width=32", "first.width", 32),
        ("agent.sizes=[1, 2]", "sizes", [1, 2]),
        ("agent.second={width: 3}", "second.width", 3),
        ("agent.second.width=5", "second.width", 5),
        ("agent.first.activation=relu", "first.activation", "relu"),
    ],
)
def test_values_are_yaml(override: str, key: str, value: object) -> None:
    assert flatten(resolved(override).model_dump(mode="json"))[key] == value


def test_with_several_agents_each_override_names_its_agent() -> None:
    changes = agent_changes(["painter", "random"], ["painter.rate=1", "random.x.y=2", "painter.first.width=3"])
    assert changes == {"painter": {"rate": 1, "first": {"width": 3}}, "random": {"x": {"y": 2}}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "agent.first.widht=3",
            "unknown key 'first.widht' in the configuration of agent 'painter'; did you mean",
        ),
        ("agent.second.depth=3", "unknown key 'second.depth'"),
        ("agent.ratte=3", "unknown key 'ratte' .*did you mean 'rate'"),
        ("agent.rate=fast", r"painter\.rate: Input should be a valid number.*got 'fast'"),
        ("agent.first=3", r"painter\.first: "),
        ("agent.sizes=[1,2,3,4]", "more than three layers"),
        ("agent.rate", "cannot read the override 'agent.rate'"),
        ("rate=3", "cannot read the override 'rate=3'"),
        ("agent..rate=3", "cannot read the override"),
        ("agent.rate=[1", r"the value of the override 'agent.rate=\[1' is not YAML"),
        ("panter.rate=1", "unknown agent 'panter' in the override.*did you mean 'painter'"),
        ("suite.pretrain_frames=10", "'suite' in the override .* cannot be changed: tasks and budgets belong"),
        ("protocol.eval_episodes=1", "'protocol' in the override .* cannot be changed"),
    ],
)
def test_what_cannot_be_configured_says_why(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        resolved(override)


def test_agent_as_a_prefix_is_refused_with_several_agents() -> None:
    with pytest.raises(UserError, match=r"could mean any of painter, random; begin with the agent's name"):
        agent_changes(["painter", "random"], ["agent.rate=1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("painter: [1]", "write a mapping"),
        ("- 1", "must hold a mapping"),
        ("{", "is not YAML"),
        ("brush: {rate: 1}", "unknown agent 'brush' in the configuration file"),
        ("suite: {frames: 1}", "cannot be changed"),
    ],
)
def test_a_file_that_is_no_configuration_says_why(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        resolved(config_file=str(file))


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"cannot read the configuration file 'nowhere\.yaml': No such file"):
        resolved(config_file="nowhere.yaml")


def test_a_resolved_configuration_cannot_be_changed() -> None:
    config = resolved()
    with pytest.raises(ValidationError):
        config.rate = 1.0  # type: ignore[misc]


class Grown(Spec):
    """With a field of later."""

    width: int = 8
    depth: Annotated[int, AddedLater] = Field(default=2, gt=0)


class Grove(Grown):
    """With another one, and others within."""

    shade: Annotated[str | None, AddedLater] = None
    tree: Grown = Grown(depth=3)
    row: tuple[Grown, ...] = (Grown(), Grown(depth=5))
    named: dict[str, Grown] = {"oak": Grown(), "elm": Grown(depth=7)}  # noqa: RUF012


def test_fields_of_later_are_hashed_where_they_are_not_at_their_defaults() -> None:
    assert plain_values(Grown()) == {"width": 8}
    assert plain_values(Grown(depth=3)) == {"width": 8, "depth": 3}
    assert plain_values(Grove(shade="dark")) == {
        "width": 8,
        "shade": "dark",
        "tree": {"width": 8, "depth": 3},
        "row": [{"width": 8}, {"width": 8, "depth": 5}],
        "named": {"oak": {"width": 8}, "elm": {"width": 8, "depth": 7}},
    }
    for config in (Grown(), Grove(), Grove(depth=4, row=())):
        assert type(config).model_validate(plain_values(config)) == config
