"""From what a user asks for to the jobs that make it, each with its identity and its place on disk."""

import re
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any, Literal

from urlbench.config import agent_changes, resolve_config
from urlbench.errors import UserError, unknown_name
from urlbench.identity import config_hash, job_id
from urlbench.registry import load_agent, load_plugin, load_suite
from urlbench.types import AgentSpec, Domain, Job, JobSpec, Phase, Plan, Protocol, Spec, Suite, Task

PhaseChoice = Literal["pretrain", "finetune", "all"]
MAX_SEED = 2**32 - 1  # what dm_control's random streams take
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


class PlanRequest(Spec):
    """What a user asks for, as given on the command line.

    Attributes:
        domains: names of domains; empty for all.
        tasks: names of tasks; empty for all tasks of the domains.
        snapshots: `last`, `all` or frame counts such as `100k,2M`: what a fine-tuning starts from.
        overrides: `agent.key=value` or `<agent name>.key=value`.
        config_file: YAML file with one mapping per agent.
        plugins: files or modules that register suites or agents; absolute for files.
    """

    suite: str
    agents: tuple[str, ...]
    domains: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    preset: str = "paper"
    phase: PhaseChoice = "all"
    snapshots: str = "last"
    overrides: tuple[str, ...] = ()
    config_file: str | None = None
    plugins: tuple[str, ...] = ()


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds that `--seeds` names: `10` is 0 to 9, `0-4` and `3,7` are explicit and may be mixed.

    Raises:
        UserError: for no seeds, a seed named twice or anything else.
    """
    too_large = [number for number in re.findall(r"\d+", text) if int(number) > MAX_SEED]
    if too_large:
        raise UserError(f"--seeds {text!r} names {too_large[0]}; environments take seeds from 0 to {MAX_SEED}.")
    if re.fullmatch(r"\d+", text):
        if int(text) == 0:
            raise UserError("--seeds 0 asks for no seeds; --seeds 1 is seed 0 alone, and 3-3 is seed 3 alone.")
        return tuple(range(int(text)))
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(
                f"cannot read --seeds {text!r}; write a number of seeds (10), a range (0-4) or a list (3,7)."
            )
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    if len(set(seeds)) != len(seeds):
        raise UserError(f"--seeds {text!r} names a seed twice; a run counts once, so name each seed once.")
    return tuple(seeds)


def parse_frames(text: str) -> int:
    """A number of frames such as `5000`, `100k` or `2M`; UserError for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text.strip())
    frames = float(match[1]) * _UNITS[match[2].lower()] if match else 0.5
    if frames != int(frames):
        raise UserError(f"cannot read {text!r} as a number of frames; write for example 5000, 100k or 2M.")
    return int(frames)


def format_frames(frames: int) -> str:
    """A short form that `parse_frames` reads back: 2000000 is `2M`, 100000 is `100k`, 250 is `250`."""
    for letter, unit in (("M", 1_000_000), ("k", 1_000)):
        if frames >= unit and frames % unit == 0:
            return f"{frames // unit}{letter}"
    return str(frames)


def make_plan(request: PlanRequest) -> Plan:
    """All jobs of the request, pretrainings before the fine-tunings that start from them.

    An agent that does not pretrain gets fine-tunings with `snapshot_frames` 0 and no parent. With
    `phase="finetune"` the parents are left out of the plan and are expected on disk.

    Raises:
        UserError: for every name, key or number that cannot be planned.
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    suite = load_suite(request.suite)
    if request.preset not in suite.protocols:
        raise unknown_name("preset", request.preset, suite.protocols, where=f"of suite {suite.name!r}")
    protocol = suite.protocols[request.preset]
    domains, tasks = _selected(suite, request.domains, request.tasks)
    if not request.agents:
        raise UserError("no agent is named; name at least one with --agent, see: urlbench list agents")
    if not request.seeds:
        raise UserError("no seed is named; ask for at least one with --seeds.")
    snapshots = _snapshots(protocol, request.snapshots)
    agents = tuple(dict.fromkeys(request.agents))
    changes = agent_changes(agents, request.overrides, request.config_file)
    versions = _versions(suite.packages)
    jobs: list[Job] = []
    for name in agents:
        spec = load_agent(name)
        if suite.observation not in spec.observations:
            raise UserError(
                f"agent {name!r} runs on {' and '.join(spec.observations)}, and suite {suite.name!r} gives "
                f"{suite.observation}; choose another of: urlbench list suites"
            )
        config = resolve_config(spec, request.preset, changes[name]).model_dump(mode="json")
        maker = _JobMaker(suite, protocol, spec, config, versions, request.plugins)
        for seed in request.seeds:
            for domain in domains:
                jobs.extend(maker.jobs(domain, tasks, seed, request.phase, snapshots))
    if not jobs:
        raise UserError(
            f"--phase {request.phase} gives no jobs: {', '.join(agents)} has no pretraining; use --phase finetune."
        )
    return Plan(jobs=tuple(sorted(jobs, key=lambda job: job.spec.phase != "pretrain")))


class _JobMaker:
    """Makes the jobs of one agent and its configuration."""

    def __init__(
        self,
        suite: Suite,
        protocol: Protocol,
        agent: AgentSpec,
        config: dict[str, Any],
        versions: dict[str, str],
        plugins: tuple[str, ...],
    ) -> None:
        self.suite, self.protocol, self.agent, self.config = suite, protocol, agent, config
        self.versions, self.plugins = versions, plugins

    def jobs(
        self, domain: Domain, tasks: Sequence[Task], seed: int, phase: PhaseChoice, snapshots: Sequence[int]
    ) -> list[Job]:
        """The pretraining of `domain` and the fine-tunings of its tasks, for one seed."""
        jobs: list[Job] = []
        parent: Job | None = None
        if self.agent.pretrains:
            parent = self._job("pretrain", domain.name, domain.primal_task, seed, 0, None)
            if phase != "finetune":
                jobs.append(parent)
        if phase != "pretrain":
            for frames in snapshots if parent else (0,):
                for task in tasks:
                    if task.domain == domain.name:
                        jobs.append(self._job("finetune", domain.name, task.name, seed, frames, parent))
        return jobs

    def _job(self, phase: Phase, domain: str, task: str, seed: int, snapshot: int, parent: Job | None) -> Job:
        spec = JobSpec(
            suite=self.suite.full_name,
            observation=self.suite.observation,
            action_repeat=self.suite.action_repeat,
            agent=self.agent.name,
            agent_config=self.config,
            protocol=self.protocol,
            phase=phase,
            domain=domain,
            task=task,
            seed=seed,
            snapshot_frames=snapshot,
            parent=parent.id if parent else None,
            versions=self.versions,
        )
        parts = [
            spec.suite,
            f"{spec.agent}-{config_hash(self.config)}",
            self.protocol.preset,
            phase,
            domain if phase == "pretrain" else task,
            *([f"snapshot_{snapshot}"] if snapshot else []),
            f"seed_{seed}",
        ]
        return Job(
            id=job_id(spec),
            path="/".join(parts),
            spec=spec,
            parent_path=parent.path if parent else None,
            plugins=self.plugins,
        )


def _selected(suite: Suite, domains: Iterable[str], tasks: Iterable[str]) -> tuple[list[Domain], list[Task]]:
    """The domains and tasks asked for, in the suite's order."""
    where, known_domains, known_tasks = (
        f"in suite {suite.name!r}",
        {domain.name for domain in suite.domains},
        {task.name: task for task in suite.tasks},
    )
    asked_domains, asked_tasks = set(domains), set(tasks)
    for name in sorted(asked_domains - known_domains):
        raise unknown_name("domain", name, known_domains, where=where)
    for name in sorted(asked_tasks - known_tasks.keys()):
        raise unknown_name("task", name, known_tasks, where=where, see="urlbench list tasks")
    for name in sorted(asked_tasks):
        if asked_domains and known_tasks[name].domain not in asked_domains:
            raise UserError(
                f"task {name!r} is of domain {known_tasks[name].domain!r}, which --domains leaves out; "
                "name that domain too, or leave --domains away."
            )
    chosen = [
        task
        for task in suite.tasks
        if (not asked_tasks or task.name in asked_tasks) and (not asked_domains or task.domain in asked_domains)
    ]
    used = {task.domain for task in chosen}
    return [domain for domain in suite.domains if domain.name in used], chosen


def _snapshots(protocol: Protocol, text: str) -> tuple[int, ...]:
    if text == "last":
        return protocol.snapshots[-1:]
    if text == "all":
        return protocol.snapshots
    asked = {parse_frames(part) for part in text.split(",")}
    for frames in sorted(asked - set(protocol.snapshots)):
        kept = ", ".join(format_frames(one) for one in protocol.snapshots)
        raise UserError(
            f"no snapshot is kept at {format_frames(frames)} frames with preset {protocol.preset!r}; "
            f"--snapshots takes all, last or some of: {kept}."
        )
    return tuple(sorted(asked))


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise UserError(
                f"the suite needs the package {package!r}, which is not installed; run: make venv"
            ) from error
    return versions
