"""The options that several commands share, and how their values are read."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

MANY = "Several: repeat the option, or separate by commas."
SuiteOption = Annotated[str, typer.Option("--suite", help="The suite to run; see: urlbench list suites")]
AgentOption = Annotated[list[str], typer.Option("--agent", help=f"The agent to run. {MANY}")]
DomainOption = Annotated[list[str] | None, typer.Option("--domains", help=f"Only these domains. {MANY}")]
TaskOption = Annotated[list[str] | None, typer.Option("--tasks", help=f"Only these tasks. {MANY}")]
SeedOption = Annotated[str, typer.Option("--seeds", help="10 is 0 to 9; 0-4 and 3,7 are explicit.")]
PresetOption = Annotated[str, typer.Option("--preset", help="Budgets: paper, or a reduced one such as small, smoke.")]
PhaseOption = Annotated[
    Literal["pretrain", "finetune", "search", "all"],
    typer.Option("--phase", help="What to run: pretrain, what follows in the suite (finetune or search), or all."),
]
GoalSetsOption = Annotated[
    str | None,
    typer.Option("--goal-sets", help="Goal sets for every seed, as for --seeds [default: set k for seed k]"),
]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of the data sets of offline suites.")]
SnapshotsOption = Annotated[str, typer.Option("--snapshots", help="Start from: last, all, or such as 100k,2M.")]
OverrideOption = Annotated[
    list[str] | None,
    typer.Option("-o", "--override", help="agent.key=value, or AGENT_NAME.key=value with several agents. Repeatable."),
]
ConfigOption = Annotated[str | None, typer.Option("--config", help="YAML file: agent names with keys below them.")]
PluginOption = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="Python file or module that registers agents or suites. Repeatable."),
]
RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of all runs.")]
RunSuiteOption = Annotated[str | None, typer.Option("--suite", help="Only runs of this suite.")]
RunAgentOption = Annotated[list[str] | None, typer.Option("--agent", help=f"Only runs of this agent. {MANY}")]
RunPresetOption = Annotated[str | None, typer.Option("--preset", help="Only runs of this preset.")]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", help="Jobs at the same time [default: one per GPU, else one per core]")
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", help="Threads of a worker [default: 1]")]
EnvWorkersOption = Annotated[
    int,
    typer.Option("--env-workers", help="Processes that each worker plays evaluation episodes in; changes no result."),
]
DeviceOption = Annotated[Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto: a GPU if there is one.")]
RunsPerGpuOption = Annotated[
    int | None, typer.Option("--runs-per-gpu", help="Runs that share a GPU [default: 1, or the cluster profile's]")
]
ExecutorOption = Annotated[
    Literal["local", "slurm"], typer.Option("--executor", help="Run on this machine, or submit to a Slurm cluster.")
]
ClusterOption = Annotated[
    Path | None, typer.Option("--cluster", help="YAML profile of the cluster, for --executor slurm.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
BaselinesOption = Annotated[Path, typer.Option("--baselines", help="Folder of frozen and imported baselines.")]


def words(values: Iterable[str] | None) -> tuple[str, ...]:
    """The values of a repeatable option, each split at its commas."""
    return tuple(word.strip() for value in values or () for word in value.split(",") if word.strip())


def plugin_paths(values: Iterable[str] | None) -> tuple[str, ...]:
    """Plugins as a worker in another folder finds them: files by their absolute path."""
    return tuple(str(Path(value).resolve()) if value.endswith(".py") else value for value in values or ())


def load_plugins(values: Iterable[str] | None) -> None:
    """Register what the plugins bring."""
    if values:
        from urlbench.core.registry import load_plugin

        for plugin in plugin_paths(values):
            load_plugin(plugin)


def print_json(value: Any) -> None:
    """What --json prints."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
