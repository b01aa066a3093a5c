"""Which cells a report or a validation is about: agents, tasks, seeds and goal sets, asked for or found."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from urlbench.core.errors import UserError, unknown_name
from urlbench.core.registry import load_suite
from urlbench.core.types import Protocol, Spec, Suite
from urlbench.results.problems import Problem
from urlbench.results.run_records import RunRecord


class Selection(Spec):
    """A choice of cells; None takes the union of what was found.

    Without a choice, every agent is expected on every task with every seed that any run (a pretraining
    included) has.

    Attributes:
        agents: names, or labels `name-config8` for one configuration of an agent.
        snapshot: of the pretraining, in its own unit, that fine-tunings or searches started from; default the last.
        goal_sets: each is expected of every seed; None for the one with the number of the seed, as published.
    """

    agents: tuple[str, ...] | None = None
    domains: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    snapshot: int | None = None
    goal_sets: tuple[int, ...] | None = None

    def snapshot_of(self, protocol: Protocol) -> int:
        """The snapshot chosen; UserError if the protocol keeps none there."""
        if self.snapshot is None:
            return protocol.last_snapshot
        if not protocol.snapshots:
            raise UserError(f"preset {protocol.preset!r} has no pretraining; leave --snapshot {self.snapshot} away.")
        if self.snapshot not in protocol.snapshots:
            kept = ", ".join(map(str, protocol.snapshots))
            raise UserError(
                f"preset {protocol.preset!r} keeps no snapshot at {self.snapshot} {protocol.pretrain_unit}; "
                f"choose one of: {kept}."
            )
        return self.snapshot

    def goal_sets_of(self, suite: Suite) -> tuple[int, ...] | None:
        """The goal sets chosen; UserError if the suite has none."""
        if self.goal_sets is not None and suite.goal_sets is None:
            raise UserError(f"suite {suite.name!r} has no goal sets; leave --goal-sets away, or name another --suite.")
        return self.goal_sets


class Cell(NamedTuple):
    """What one run is expected for.

    Attributes:
        agent: its label.
        goal_set: None in suites without.
    """

    agent: str
    task: str
    seed: int
    goal_set: int | None = None

    def __str__(self) -> str:
        return f"{self.agent} on {self.task}{goal_set_words(self.goal_set)}, seed {self.seed}"


def goal_set_words(goal_set: int | None) -> str:
    """`, goal set 3`; nothing in suites without."""
    return "" if goal_set is None else f", goal set {goal_set}"


EVERYTHING = Selection()


def make_selection(
    agents: Sequence[str] | None,
    domains: Sequence[str] | None,
    tasks: Sequence[str] | None,
    seeds: Sequence[int] | None,
    snapshot: int | None,
    goal_sets: Sequence[int] | None,
) -> Selection:
    """The selection of these; None or empty takes what was found."""
    return Selection(
        agents=tuple(agents) if agents else None,
        domains=tuple(domains) if domains else None,
        tasks=tuple(tasks) if tasks else None,
        seeds=tuple(seeds) if seeds else None,
        snapshot=snapshot,
        goal_sets=tuple(goal_sets) if goal_sets else None,
    )


@dataclass(frozen=True)
class AgentKey:
    """One agent of a report.

    Attributes:
        label: its name, or `name-config8` where runs of several configurations were found.
        config_hash: None for an agent that was asked for and has no runs at all.
        pretrains: False if what is measured starts from nothing.
        pretrained: agent and configuration hash of the pretrainings that its runs start from.
        example: one of its runs, or of these pretrainings if it has none.
    """

    label: str
    name: str
    config_hash: str | None
    pretrains: bool
    pretrained: frozenset[tuple[str, str]] = frozenset()
    example: RunRecord | None = field(default=None, compare=False, repr=False)

    def made(self, run: RunRecord) -> bool:
        """Whether the run is one of this agent's, or a pretraining that these start from."""
        who = run.spec.agent, run.config_hash
        return who in self.pretrained if run.spec.phase == "pretrain" else who == (self.name, self.config_hash)


def registered_suite(name: str) -> Suite:
    """The suite `name` or `name@version`; UserError if that version is not the registered one."""
    suite = load_suite(name.partition("@")[0])
    if "@" in name and name != suite.full_name:
        raise UserError(
            f"this urlbench has {suite.full_name}, not {name}; report those runs with the version that made them."
        )
    return suite


def protocol_of(suite: Suite, preset: str) -> Protocol:
    """The protocol of a preset; UserError if the suite has none of that name."""
    if preset not in suite.protocols:
        raise unknown_name("preset", preset, suite.protocols, where=f"of suite {suite.name!r}")
    return suite.protocols[preset]


def belongs(run: RunRecord, suite: Suite, preset: str) -> bool:
    """True if the run's spec is of this suite and preset, wherever it lies."""
    return run.spec.suite == suite.full_name and run.spec.protocol.preset == preset


def own_runs(runs: Sequence[RunRecord], suite: Suite, preset: str) -> list[RunRecord]:
    """The runs of the suite and preset, without pretrainings that any run starts from.

    What starts from these counts by itself; of the others, nothing has started yet, which is a gap.
    """
    parents = {run.spec.parent for run in runs}
    own = [run for run in runs if belongs(run, suite, preset)]
    return [run for run in own if run.spec.phase != "pretrain" or run.id not in parents]


def lies_below(path: str | None, suite: Suite, preset: str) -> bool:
    """True for paths below the folders of the suite's version and the preset."""
    parts = (path or "").split("/")
    return parts[0] == suite.full_name and len(parts) > 2 and parts[2] == preset


def other_versions(runs: Sequence[RunRecord], suite: Suite, preset: str) -> list[Problem]:
    """A problem for every other version of the suite that has runs of the preset."""
    others = {
        run.spec.suite
        for run in runs
        if run.spec.suite.partition("@")[0] == suite.name and run.spec.protocol.preset == preset
    } - {suite.full_name}
    return [
        Problem(
            kind="versions",
            path=other,
            message=f"there are runs of {other} beside those of {suite.full_name}, and the two never mix; "
            f"choose with --suite {suite.full_name}.",
        )
        for other in sorted(others)
    ]


def agent_keys(
    runs: Sequence[RunRecord], pretrainings: Mapping[str, RunRecord], agents: Sequence[str] | None
) -> list[AgentKey]:
    """The agents in the order asked for, else by label; two configurations of one agent are two agents.

    A pretraining is no agent of its own if any run starts from one like it.

    Args:
        runs: of the suite.
        pretrainings: all that they may have started from, by job id.
        agents: names or labels; None for all.
    """
    examples: dict[tuple[str, str], RunRecord] = {}
    pretrained: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    measured = [run for run in runs if run.spec.phase != "pretrain"]
    for run in measured:
        who = run.spec.agent, run.config_hash
        examples.setdefault(who, run)
        if (parent := pretrainings.get(run.spec.parent or "")) is not None:
            pretrained[who].add((parent.spec.agent, parent.config_hash))
    used = {source for sources in pretrained.values() for source in sources}
    for run in runs:
        who = run.spec.agent, run.config_hash
        if run.spec.phase == "pretrain" and who not in used:
            examples.setdefault(who, run)
            pretrained[who].add(who)
    pretrains = pretrained.keys() | {(run.spec.agent, run.config_hash) for run in measured if run.spec.snapshot}
    hashes: dict[str, set[str]] = defaultdict(set)
    for name, config in examples:
        hashes[name].add(config)
    keys = [
        AgentKey(
            label=name if len(configs) == 1 else f"{name}-{config}",
            name=name,
            config_hash=config,
            pretrains=(name, config) in pretrains,
            pretrained=frozenset(pretrained.get((name, config), ())),
            example=examples[name, config],
        )
        for name, configs in sorted(hashes.items())
        for config in sorted(configs)
    ]
    if agents is None:
        return keys
    chosen: list[AgentKey] = []
    for wanted in agents:
        matching = [key for key in keys if wanted in (key.label, key.name, f"{key.name}-{key.config_hash}")]
        chosen += matching or [AgentKey(wanted, wanted, None, pretrains=True)]
    return list(dict.fromkeys(chosen))


def wanted_tasks(suite: Suite, runs: Sequence[RunRecord], selection: Selection) -> list[str]:
    """In the suite's order: the tasks asked for, else those of any run.

    A domain that is only pretrained counts whole, and so do the tasks that would start from a training on another one.
    """
    domains, tasks = selection.domains, selection.tasks
    known = {task.name: task.domain for task in suite.tasks}
    for domain in domains or ():
        if domain not in known.values():
            raise unknown_name("domain", domain, set(known.values()), where=f"in suite {suite.name!r}")
    for task in tasks or ():
        if task not in known:
            raise unknown_name("task", task, known, where=f"in suite {suite.name!r}", see="urlbench list tasks")
    measured = [run.spec for run in runs if run.spec.phase != "pretrain"]
    sources = {task.name: task.transfer.source for task in suite.tasks if task.transfer is not None}
    only_pretrained = {run.spec.domain for run in runs if not run.spec.rewarded} - {spec.domain for spec in measured}
    only_source = {run.spec.task for run in runs if run.spec.rewarded} - {sources.get(spec.task) for spec in measured}
    if tasks is None and domains is not None:
        return [task for task in known if known[task] in domains]
    found = {spec.task for spec in measured}
    found |= {task for task in known if task not in sources and known[task] in only_pretrained}
    found |= {task for task, source in sources.items() if source in only_source}
    wanted = found if tasks is None else set(tasks)
    return [task for task in known if task in wanted and (domains is None or known[task] in domains)]


def nothing_found(runs: Sequence[RunRecord], root: Path, suite: Suite, preset: str, selection: Selection) -> str:
    """The sentence for a suite and preset without a single run."""
    others = sorted({run.spec.protocol.preset for run in runs if run.spec.suite == suite.full_name} - {preset})
    who = f" by {', '.join(selection.agents)}" if selection.agents else ""
    hint = (
        f"there are runs of preset {', '.join(others)}: choose with --preset" if others else "make some: urlbench run"
    )
    return f"there are no runs of {suite.full_name}, preset {preset!r},{who} below {str(root)!r}; {hint}."
