"""`urlbench list` and `urlbench show`: what there is, and what it is made of.

Lists come at once, so what only `show` needs is imported there.
"""

from typing import Annotated, Any

import typer

from urlbench.cli.options import JsonOption, PluginOption, load_plugins, print_json
from urlbench.core import registry
from urlbench.core.errors import unknown_name

KINDS = ("suites", "agents", "tasks")


def list_command(
    kind: Annotated[str, typer.Argument(help="suites, agents or tasks; nothing for suites and agents")] = "",
    as_json: JsonOption = False,
    plugin: PluginOption = None,
) -> None:
    """List suites, agents and tasks."""
    if kind and kind not in KINDS:
        raise unknown_name("kind", kind, KINDS, see="urlbench list --help")
    load_plugins(plugin)
    if kind:
        rows = list_rows(kind)
        print_json(rows) if as_json else print(format_tasks(rows) if kind == "tasks" else format_rows(rows))
        return
    lists = {one: list_rows(one) for one in ("suites", "agents")}
    if as_json:
        print_json(lists)
    else:
        print("\n".join(f"{one}:\n{format_rows(rows)}" for one, rows in lists.items()))
        print("tasks: urlbench list tasks")


def show(
    kind: Annotated[str, typer.Argument(help="suite or agent")],
    name: Annotated[str, typer.Argument(help="its name")],
    as_json: JsonOption = False,
    plugin: PluginOption = None,
) -> None:
    """Show all about a suite (tasks, budgets, normaliser) or an agent (paper, configuration)."""
    load_plugins(plugin)
    description = describe(kind, name)
    if as_json:
        print_json(description)
    else:
        print(format_suite(description) if kind == "suite" else format_agent(description))


def list_rows(kind: str) -> list[dict[str, str]]:
    """What `urlbench list` shows of one of `KINDS`, as rows with the same keys.

    Suites and agents are not imported for this; tasks import the definitions of the suites.
    """
    if kind != "tasks":
        return [{"name": name, "description": text} for name, text in registry.names(kind.removesuffix("s")).items()]
    rows = []
    for name in registry.names("suite"):
        suite = registry.load_suite(name)
        for task in suite.tasks:
            row = {"name": task.name, "suite": suite.full_name, "domain": task.domain, "description": task.description}
            rows.append(row)
    return rows


def format_tasks(rows: list[dict[str, str]]) -> str:
    """One line a task, with the suites that have it; `name*` stands for all suites that begin like that."""
    suites: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        suites.setdefault((row["name"], row["domain"], row["description"]), []).append(row["suite"].partition("@")[0])
    return format_rows(
        [
            {"name": name, "domain": domain, "description": text, "suites": ", ".join(_starred(sorted(names)))}
            for (name, domain, text), names in suites.items()
        ]
    )


def _starred(names: list[str]) -> list[str]:
    """Sorted names without those that continue another one; that one gets a star."""
    short = [name for name in names if not any(name.startswith(f"{other}-") for other in names)]
    return [f"{name}*" if any(other.startswith(f"{name}-") for other in names) else name for name in short]


def format_rows(rows: list[dict[str, str]]) -> str:
    """Aligned columns, one line a row."""
    if not rows:
        return "none"
    widths = {key: max(len(row[key]) for row in rows) for key in rows[0]}
    return "\n".join("  ".join(f"{row[key]:<{widths[key]}}" for key in row).rstrip() for row in rows)


def describe(kind: str, name: str) -> dict[str, Any]:
    """Everything about a suite or an agent, as plain values.

    Raises:
        UserError: for an unknown kind or name.
    """
    from urlbench.core.config import resolve_config

    if kind == "suite":
        return registry.load_suite(name).model_dump(mode="json")
    if kind != "agent":
        raise unknown_name("kind", kind, ["suite", "agent"], see="urlbench show --help")
    spec = registry.load_agent(name)
    return {
        "name": spec.name,
        "description": spec.description,
        "paper": spec.paper,
        "observations": list(spec.observations),
        "pretrains": spec.pretrains,
        "pretrained_as": spec.pretrained_as,
        "finetuning_settings": list(spec.finetuning_settings),
        "looks": spec.looks,
        "image": spec.image.model_dump(mode="json"),
        "config": resolve_config(spec, "paper").model_dump(mode="json"),
        "presets": {preset: dict(changes) for preset, changes in spec.presets.items()},
    }


def format_suite(suite: dict[str, Any]) -> str:
    """The text of `urlbench show suite`."""
    from urlbench.core.types import Suite
    from urlbench.results.score_kinds import scale_of

    scale = scale_of(Suite.model_validate(suite), [task["name"] for task in suite["tasks"]])
    lines = [
        f"{suite['name']}@{suite['version']}: {suite['description']}",
        f"observation {suite['observation']}, action repeat {suite['action_repeat']}, "
        f"identity includes the versions of {', '.join(suite['packages'])}",
        *_normaliser(suite),
        scale.formula,
        *_origin(suite),
    ]
    for protocol in suite["protocols"].values():
        lines += [
            f"preset {protocol['preset']}: {protocol['description']}",
            f"  {_pretraining(protocol)}",
            f"  {_measurement(protocol)}",
        ]
    header = {"task": "task", "domain": "domain", **{end: f"{end} return" for end in scale.ends}}
    rows = [{**header, "description": "description"}]
    for place, task in enumerate(suite["tasks"]):
        row = {"task": task["name"], "domain": task["domain"]}
        row |= {end: f"{values[place]:g}" for end, values in scale.ends.items()}
        rows.append(row | {"description": task["description"]})
    return "\n".join(lines) + "\n" + format_rows(rows)


def _normaliser(suite: dict[str, Any]) -> list[str]:
    one = suite["normaliser"]
    return [f"normaliser {one['name']} version {one['version']}, from: {one['source']}"] if one else []


def _origin(suite: dict[str, Any]) -> list[str]:
    """Where the pretrainings come from, and the goal sets."""
    from urlbench.core.types import Transfer

    transfers = {task["name"]: task["transfer"] for task in suite["tasks"] if task["transfer"]}
    lines = [f"{name} {Transfer.model_validate(transfer).words}" for name, transfer in transfers.items()]
    if suite["pretrained_in"]:
        lines.append(f"starts from the pretrainings of suite {suite['pretrained_in']}, with the same preset's budget")
    if suite["collection"]:
        lines.append(f"pretrains on data collected by {suite['collection']}; see: urlbench data --help")
    if sets := suite["goal_sets"]:
        reachable = ", ".join(f"{number}: {count}" for number, count in sets["reachable"].items())
        lines += [
            f"goal sets of {sets['goals']}, by default the one with the number of the seed; --goal-sets chooses others",
            f"goals within reach, by set: {reachable}; from: {sets['source']}",
        ]
    return lines


def _pretraining(protocol: dict[str, Any]) -> str:
    """What comes before the measurement, in words."""
    from urlbench.runs.plan import format_frames

    if not protocol["snapshots"]:
        return "no pretraining: all agents start from nothing"
    if protocol["pretrain_frames"]:
        length = f"{format_frames(protocol['pretrain_frames'])} frames"
    else:
        transitions = format_frames(protocol["data_transitions"])
        updates = format_frames(protocol["pretrain_updates"])
        length = f"{updates} updates on the first {transitions} transitions of a data set"
    return f"pretraining {length}, snapshots at {', '.join(map(format_frames, protocol['snapshots']))}"


def _measurement(protocol: dict[str, Any]) -> str:
    """What comes after the pretraining, in words."""
    from urlbench.core.types import Search
    from urlbench.runs.plan import format_frames

    search, episodes = protocol["search"], protocol["eval_episodes"]
    if search is None:
        return (
            f"fine-tuning {format_frames(protocol['finetune_frames'])} frames, {episodes} episodes of evaluation every "
            f"{format_frames(protocol['eval_every_frames'])} frames"
        )
    return f"search without learning: {Search.model_validate(search).words(episodes)}"


def _image_words(agent: dict[str, Any]) -> str:
    image = agent["image"]
    if not agent["looks"]:
        return "nothing, and nothing is rendered for it"
    stack = f", the latest {image['frame_stack']} steps" if image["frame_stack"] > 1 else ""
    return f"RGB images of {image['size']} x {image['size']}{stack}"


def format_agent(agent: dict[str, Any]) -> str:
    """The text of `urlbench show agent`."""
    from urlbench.core.config import flatten

    lines = [
        f"{agent['name']}: {agent['description']}",
        f"paper: {agent['paper']}",
        f"observations: {', '.join(agent['observations'])}; pretrains: {'yes' if agent['pretrains'] else 'no'}",
        *([f"starts from the pretrainings of: {agent['pretrained_as']}"] if agent["pretrained_as"] else []),
        *([f"read in fine-tuning only: {', '.join(tuned)}"] if (tuned := agent["finetuning_settings"]) else []),
        *([f"sees pixel suites as: {_image_words(agent)}"] if "pixels" in agent["observations"] else []),
        f"configuration (defaults are the published settings; change with -o {agent['name']}.key=value):",
    ]
    lines += [f"  {key} = {value!r}" for key, value in flatten(agent["config"]).items()]
    for preset, changes in agent["presets"].items():
        lines.append(f"preset {preset} changes:")
        lines += [f"  {key} = {value!r}" for key, value in flatten(changes).items()]
    return "\n".join(lines)
