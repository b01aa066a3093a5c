"""The configuration of an agent: defaults, then the preset, then a file, then `-o` overrides.

Only agents are configured. Tasks and budgets belong to a suite and its version; an override of them would
make results that look comparable and are not.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from urlbench.core.errors import UserError, unknown_name
from urlbench.core.interfaces import AgentSpec
from urlbench.core.registry import load_agent
from urlbench.core.types import AddedLater, Spec

_PROTOCOL_WORDS = ("suite", "protocol", "task", "domain", "preset")


def agent_changes(
    agents: Sequence[str], overrides: Sequence[str] = (), config_file: str | None = None
) -> dict[str, dict[str, Any]]:
    """The changes that a run asks for, as one nested dictionary per agent.

    Args:
        agents: names of the agents of the run.
        overrides: `agent.key.key=value` (one agent) or `<agent name>.key.key=value`; values are YAML.
        config_file: YAML file with one mapping per agent name (or `agent`, with a single agent).

    Raises:
        UserError: for an unreadable file, a malformed override or a name that is no agent of the run.
    """
    changes: dict[str, dict[str, Any]] = {agent: {} for agent in agents}
    if config_file is not None:
        content = read_yaml(
            Path(config_file),
            what="configuration file",
            option="--config",
            holds="a mapping from agent names to their keys",
        )
        for prefix, values in content.items():
            where = f"in the configuration file {config_file!r}"
            if not isinstance(values, Mapping):
                raise UserError(f"{prefix!r} {where} holds {values!r}; write a mapping of configuration keys below it.")
            agent = _agent_of_prefix(str(prefix), agents, where)
            changes[agent] = _merged(changes[agent], values)
    for override in overrides:
        key, equals, text = override.partition("=")
        prefix, dot, rest = key.strip().partition(".")
        if not equals or not dot or not all(rest.split(".")):
            raise UserError(
                f"cannot read the override {override!r}; write -o agent.key=value, for example agent.x.y=3."
            )
        agent = _agent_of_prefix(prefix, agents, f"in the override {override!r}")
        try:
            value: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UserError(
                f"the value of the override {override!r} is not YAML; quote it: {_one_line(error)}"
            ) from error
        for part in reversed(rest.split(".")):
            value = {part: value}
        changes[agent] = _merged(changes[agent], value)
    return changes


def resolve_config(spec: AgentSpec, preset: str, changes: Mapping[str, Any] | None = None) -> Spec:
    """The configuration that a job of `spec` runs with.

    Args:
        spec: the agent; its configuration model's defaults are the published settings.
        preset: its entry in `spec.presets`, if there is one, is applied to the defaults.
        changes: nested changes from `agent_changes`, applied last.

    Raises:
        UserError: for an unknown key, with the nearest known one, or a value of the wrong type.
    """
    asked = dict(changes or {})
    _refuse_unknown_keys(spec, spec.config, asked, ())
    values = _merged(_merged({}, spec.presets.get(preset, {})), asked)
    try:
        return spec.config.model_validate(values)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join([spec.name, *map(str, one['loc'])])}: {one['msg']} (got {one['input']!r})"
            if one["loc"]
            else one["msg"].removeprefix("Value error, ")
            for one in error.errors()
        )
        raise UserError(
            f"the configuration of agent {spec.name!r} is not valid: {reasons}; see: urlbench show agent {spec.name}"
        ) from error


def plain_values(config: Spec) -> dict[str, Any]:
    """`config` as a job holds and hashes it, without the fields that were `AddedLater` and have their defaults."""
    values: dict[str, Any] = _plain(config, config.model_dump(mode="json"))
    return values


def _plain(value: Any, plain: Any) -> Any:
    """What is hashed of `value`, whose plain JSON values are `plain`."""
    if isinstance(value, BaseModel):
        inner = {
            name: getattr(value, name)
            for name, field in type(value).model_fields.items()
            if AddedLater not in field.metadata or getattr(value, name) != field.get_default()
        }
        return {name: _plain(one, plain[name]) for name, one in inner.items()}
    if isinstance(value, Mapping):
        return {key: _plain(one, plain[key]) for key, one in zip(plain, value.values(), strict=True)}
    if isinstance(value, list | tuple):
        return [_plain(*both) for both in zip(value, plain, strict=True)]
    return plain


def pretraining_of(spec: AgentSpec, values: Mapping[str, Any]) -> tuple[AgentSpec, dict[str, Any]]:
    """The agent whose pretraining a job of `spec` starts from, and the settings which that pretraining reads.

    Whoever gives the same of both starts from the same pretraining.

    Args:
        spec: the agent that starts from it.
        values: its configuration, as `plain_values` gives it.

    Raises:
        UserError: if `spec` names an agent without a pretraining of its own, or one that refuses these settings.
    """
    read = _without(values, spec.finetuning_settings, spec.config)
    if spec.pretrained_as is None:
        return spec, read
    maker = load_agent(spec.pretrained_as)
    if not maker.pretrains or maker.pretrained_as is not None:
        raise UserError(
            f"agent {spec.name!r} says that it is pretrained as {maker.name!r}, which has no pretraining of its own; "
            "name one that has."
        )
    try:
        config = maker.config.model_validate(read)
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, one["loc"])) for one in error.errors())
        raise UserError(
            f"agent {spec.name!r} says that it is pretrained as {maker.name!r}, which does not take its {keys}; "
            "name what only fine-tuning reads in finetuning_settings, or give it a pretraining of its own."
        ) from error
    return maker, _without(plain_values(config), maker.finetuning_settings, maker.config)


def _without(values: Mapping[str, Any], keys: Sequence[str], config: Any) -> dict[str, Any]:
    """Plain values of a `config` model without those of dotted keys, some of which `plain_values` has left out."""
    left = dict(values)
    for key in keys:
        first, _, rest = key.partition(".")
        assert first in config.model_fields, f"{key} is no setting"
        if rest:
            left[first] = _without(left[first], [rest], config.model_fields[first].annotation)
        else:
            left.pop(first, None)
    return left


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested configuration as dotted keys, in its own order."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def read_yaml(
    path: Path, *, what: str, option: str, holds: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader
) -> Mapping[Any, Any]:
    """The mapping in a user's YAML file.

    Args:
        path: of the file.
        what: it is, for the message.
        option: that named it.
        holds: what it must hold.
        loader: what plain words are taken for.

    Raises:
        UserError: if it cannot be read, is not YAML or holds no mapping.
    """
    name = f"the {what} {str(path)!r}"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
    except OSError as error:
        raise UserError(f"cannot read {name}: {error.strerror}; check {option}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{name} is not YAML: {_one_line(error)}; correct it.") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{name} must hold {holds}.")
    return content


def _agent_of_prefix(prefix: str, agents: Sequence[str], where: str) -> str:
    if prefix in agents:
        return prefix
    if prefix == "agent":
        if len(agents) == 1:
            return agents[0]
        raise UserError(
            f"'agent' {where} could mean any of {', '.join(agents)}; begin with the agent's name, "
            f"for example {agents[0]}.key=value."
        )
    if prefix in _PROTOCOL_WORDS:
        raise UserError(
            f"{prefix!r} {where} cannot be changed: tasks and budgets belong to the suite's version; "
            "choose a --preset, or register a suite of your own with --plugin."
        )
    raise unknown_name("agent", prefix, ["agent", *agents] if len(agents) == 1 else agents, where=where)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if isinstance(old, BaseModel):
            old = old.model_dump()
        merged[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _refuse_unknown_keys(
    spec: AgentSpec, model: type[BaseModel], values: Mapping[str, Any], path: tuple[str, ...]
) -> None:
    for key, value in values.items():
        if key not in model.model_fields:
            known = [".".join([*path, name]) for name in model.model_fields]
            raise unknown_name(
                "key",
                ".".join([*path, str(key)]),
                known,
                where=f"in the configuration of agent {spec.name!r}",
                see=f"urlbench show agent {spec.name}",
            )
        inner = _inner_model(model.model_fields[key].annotation)
        if inner is not None and isinstance(value, Mapping):
            _refuse_unknown_keys(spec, inner, value, (*path, str(key)))


def _inner_model(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, seen through Optional; None for every other field."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        models = [_inner_model(one) for one in typing.get_args(annotation) if one is not type(None)]
        return models[0] if len(models) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
