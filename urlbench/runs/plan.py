"""From what a user asks for to the jobs that make it, each with its identity and its place on disk."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from urlbench.core.config import agent_changes, plain_values, pretraining_of, resolve_config
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.identity import config_hash, job_id
from urlbench.core.interfaces import AgentSpec
from urlbench.core.jobs import Job, JobSpec, Plan
from urlbench.core.registry import load_agent, load_plugin, load_suite
from urlbench.core.requirements import suite_versions
from urlbench.core.types import Domain, Protocol, Spec, Suite, Task, Transfer
from urlbench.episodes.datasets import find_dataset

PhaseChoice = Literal["pretrain", "finetune", "search", "all"]
MAX_SEED = 2**32 - 1  # what dm_control's random streams take
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000}


class PlanRequest(Spec):
    """What a user asks for, as given on the command line.

    Attributes:
        domains: names of domains; empty for all.
        tasks: names of tasks; empty for all tasks of the domains.
        snapshots: `last`, `all` or counts such as `100k,2M`: what a fine-tuning or an evaluation starts from.
        goal_sets: numbers of goal sets to search with every seed; empty for the one with the number of the seed, as
            published.
        overrides: `agent.key=value` or `<agent name>.key=value`.
        config_file: YAML file with one mapping per agent.
        plugins: files or modules that register suites or agents; absolute for files.
        data: folder of the data sets; absolute, for workers in other folders.
    """

    suite: str
    agents: tuple[str, ...]
    domains: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    preset: str = "paper"
    phase: PhaseChoice = "all"
    snapshots: str = "last"
    goal_sets: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    config_file: str | None = None
    plugins: tuple[str, ...] = ()
    data: str = "data"


def parse_seeds(text: str, option: str = "--seeds") -> tuple[int, ...]:
    """The seeds (or goal sets) that an option names: `10` is 0 to 9, `0-4` and `3,7` are explicit and may be mixed.

    Raises:
        UserError: for no seeds, a seed named twice or anything else.
    """
    what = option.removeprefix("--").removesuffix("s").replace("-", " ")
    too_large = [number for number in re.findall(r"\d+", text) if int(number) > MAX_SEED]
    if too_large:
        raise UserError(f"{option} {text!r} names {too_large[0]}; environments take {what}s from 0 to {MAX_SEED}.")
    if re.fullmatch(r"\d+", text):
        if int(text) == 0:
            raise UserError(f"{option} 0 asks for no {what}s; {option} 1 is {what} 0 alone, and 3-3 is {what} 3 alone.")
        return tuple(range(int(text)))
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise UserError(
                f"cannot read {option} {text!r}; write a number of {what}s (10), a range (0-4) or a list (3,7)."
            )
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    if len(set(seeds)) != len(seeds):
        raise UserError(f"{option} {text!r} names a {what} twice; a run counts once, so name each {what} once.")
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
    """All jobs of the request, pretrainings before the fine-tunings or evaluations that start from them.

    Agents that are pretrained alike start from one pretraining. An agent that does not pretrain gets the latter with
    `snapshot` 0 and no parent. With `phase="finetune"` or `"search"` the parents are left out of the plan and are
    expected on disk.

    Raises:
        UserError: for every name, key or number that cannot be planned, and for packages that the suite was not checked
            with.
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    suite = load_suite(request.suite)
    if request.preset not in suite.protocols:
        raise unknown_name("preset", request.preset, suite.protocols, where=f"of suite {suite.name!r}")
    protocol = suite.protocols[request.preset]
    if request.phase not in ("all", "pretrain", suite.measured_phase):
        raise UserError(
            f"suite {suite.name!r} has no phase {request.phase!r}; "
            f"--phase takes pretrain, {suite.measured_phase} or all."
        )
    if request.goal_sets and suite.goal_sets is None:
        raise UserError(f"suite {suite.name!r} has no goal sets; leave --goal-sets away.")
    domains, tasks = _selected(suite, request.domains, request.tasks)
    if not request.agents:
        raise UserError("no agent is named; name at least one with --agent, see: urlbench list agents")
    if not request.seeds:
        raise UserError("no seed is named; ask for at least one with --seeds.")
    snapshots = parse_snapshots(protocol, request.snapshots)
    versions = suite_versions(suite)
    jobs: dict[str, Job] = {}
    for spec, config in _agents(request):
        if suite.observation not in spec.observations:
            raise UserError(
                f"agent {spec.name!r} runs on {' and '.join(spec.observations)}, and suite {suite.name!r} gives "
                f"{suite.observation}; choose another of: urlbench list suites"
            )
        maker = _JobMaker(suite, protocol, spec, config, versions, request)
        for seed in request.seeds:
            for domain in domains:
                jobs |= {job.id: job for job in maker.jobs(domain, tasks, seed, request.phase, snapshots)}
    if not jobs:
        raise UserError(
            f"--phase {request.phase} gives no jobs: {', '.join(request.agents)} has no pretraining; "
            f"use --phase {suite.measured_phase}."
        )
    return Plan(jobs=tuple(sorted(jobs.values(), key=lambda job: job.spec.phase != "pretrain")))


def _agents(request: PlanRequest) -> Iterator[tuple[AgentSpec, dict[str, Any]]]:
    """Each agent that was asked for, and its configuration as jobs hold it."""
    names = tuple(dict.fromkeys(request.agents))
    changes = agent_changes(names, request.overrides, request.config_file)
    for name in names:
        spec = load_agent(name)
        yield spec, plain_values(resolve_config(spec, request.preset, changes[name]))


def pretraining_lines(request: PlanRequest, plan: Plan) -> Iterator[str]:
    """A line for each pretraining that the agents of a request share, or that is another agent's."""
    starting: dict[tuple[str, str], list[str]] = defaultdict(list)
    for spec, config in _agents(request):
        if spec.pretrains:
            maker, settings = pretraining_of(spec, config)
            starting[maker.name, config_hash(settings)].append(spec.name)
    for source, agents in starting.items():
        if agents == [source[0]]:
            continue
        made = {
            job.id
            for job in plan.jobs
            if job.spec.phase == "pretrain" and (job.spec.agent, config_hash(job.spec.agent_config)) == source
        }
        used = {job.spec.parent for job in plan.jobs if job.spec.agent in agents and job.spec.transfer is None}
        if not (number := len((made | used) - {None})):
            continue
        who = f"{agents[0]} starts from" if len(agents) == 1 else f"{len(agents)} agents share"
        which = f"{number} pretraining{'s' if number > 1 else ''} of {source[0]}"
        yield f"{who} {which}" + (f": {', '.join(agents)}" if len(agents) > 1 else "")


class _JobMaker:
    """Makes the jobs of one agent and its configuration."""

    def __init__(
        self,
        suite: Suite,
        protocol: Protocol,
        agent: AgentSpec,
        config: dict[str, Any],
        versions: dict[str, str],
        request: PlanRequest,
    ) -> None:
        self.suite, self.protocol, self.agent, self.config = suite, protocol, agent, config
        self.versions, self.request = versions, request
        self.pretrained, self.pretraining_config = pretraining_of(agent, config)
        # Suites that only search share the pretrainings of another suite, with the same preset.
        self.school = suite if suite.pretrained_in is None else load_suite(suite.pretrained_in)

    def jobs(
        self, domain: Domain, tasks: Sequence[Task], seed: int, phase: PhaseChoice, snapshots: Sequence[int]
    ) -> list[Job]:
        """The pretrainings that tasks of `domain` start from, and what starts from them, for one seed."""
        tasks = [task for task in tasks if task.domain == domain.name]
        parents = {task.name: self._parent(task, seed) for task in tasks}
        jobs = [parent for parent in parents.values() if parent is not None and phase in ("pretrain", "all")]
        if phase != "pretrain":
            goal_sets: tuple[int | None, ...] = (None,)
            if self.suite.goal_sets is not None:
                goal_sets = self.request.goal_sets or (seed,)
            jobs += [
                self._measurement(task, seed, count, goal_set, parents[task.name])
                for count in snapshots
                for task in tasks
                if parents[task.name] is not None
                for goal_set in goal_sets
            ]
            jobs += [
                self._measurement(task, seed, 0, goal_set, None)
                for task in tasks
                if parents[task.name] is None
                for goal_set in goal_sets
            ]
        return jobs

    def _parent(self, task: Task, seed: int) -> Job | None:
        """What fine-tunings of the task or searches start from; None if that is nothing."""
        if not self.protocol.pretrain_budget:
            return None
        if task.transfer is not None:
            return self._rewarded_pretraining(task, task.transfer.source, seed)
        primal_task = self.school.domain(task.domain).primal_task
        return self._pretraining(task.domain, primal_task, seed) if self.agent.pretrains and primal_task else None

    def _pretraining(self, domain: str, primal_task: str, seed: int) -> Job:
        suite = self.school
        data_path = data = None
        if suite.collection is not None:
            dataset = find_dataset(Path(self.request.data), domain, suite.collection)
            data_path, data = str(dataset.folder), dataset.fingerprint(self.protocol.data_transitions)
        spec = JobSpec(
            **self._common(suite, self.pretrained, self.pretraining_config),
            protocol=self._pretraining_protocol(),
            phase="pretrain",
            domain=domain,
            task=primal_task,
            seed=seed,
            goal_set=seed if suite.goal_sets is not None else None,
            data=data,
        )
        return self._job(spec, None, data_path)

    def _rewarded_pretraining(self, task: Task, source: str, seed: int) -> Job:
        """The training on the source of a task: it fine-tunes an agent from nothing, so it reads all settings."""
        relabelled = Transfer(source=source, initial_replay="relabelled")
        spec = JobSpec(
            **self._common(self.suite, self.agent, self.config),
            protocol=self._pretraining_protocol(),
            phase="pretrain",
            domain=task.domain,
            task=source,
            seed=seed,
            rewarded=True,
            # One training for all that start from it, whatever they take of it.
            keeps_episodes=any(one.transfer == relabelled for one in self.suite.tasks),
            goal_set=seed if self.suite.goal_sets is not None else None,
        )
        return self._job(spec, None, None)

    def _pretraining_protocol(self) -> Protocol:
        """The school's protocol of the same budget; choices about the evaluation do not change a pretraining."""
        preset = self.protocol.preset if self.protocol.reduced else "paper"
        return self.school.protocols[preset]

    def _measurement(self, task: Task, seed: int, snapshot: int, goal_set: int | None, parent: Job | None) -> Job:
        spec = JobSpec(
            **self._common(self.suite, self.agent, self.config),
            protocol=self.protocol,
            phase=self.suite.measured_phase,
            domain=task.domain,
            task=task.name,
            seed=seed,
            transfer=task.transfer,
            snapshot=snapshot,
            parent=parent.id if parent else None,
            goal_set=goal_set,
        )
        return self._job(spec, parent, None)

    def _common(self, suite: Suite, agent: AgentSpec, config: dict[str, Any]) -> dict[str, Any]:
        return {
            "suite": suite.full_name,
            "observation": suite.observation,
            "action_repeat": suite.action_repeat,
            "agent": agent.name,
            "agent_config": config,
            "image": agent.image if suite.observation == "pixels" and agent.looks else None,
            "versions": self.versions,
        }

    def _job(self, spec: JobSpec, parent: Job | None, data_path: str | None) -> Job:
        return Job(
            id=job_id(spec),
            path=run_path(spec),
            spec=spec,
            parent_path=parent.path if parent else None,
            plugins=self.request.plugins,
            data_path=data_path,
        )


def run_path(spec: JobSpec) -> str:
    """Where a run of `spec` belongs, relative to the runs folder."""
    parts = [spec.suite, f"{spec.agent}-{config_hash(spec.agent_config)}", spec.protocol.preset, spec.phase]
    parts.append(spec.place)
    if spec.snapshot:
        parts.append(f"snapshot_{spec.snapshot}")
    if spec.goal_set is not None and spec.phase != "pretrain":
        parts.append(f"goal_set_{spec.goal_set}")
    return "/".join([*parts, f"seed_{spec.seed}"])


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


def parse_snapshots(protocol: Protocol, text: str) -> tuple[int, ...]:
    """The snapshots that `last`, `all` or counts such as `100k,2M` mean; UserError where the protocol keeps none.

    Without pretraining these are none, and nothing but `last` and `all` means that.
    """
    if text == "last":
        return protocol.snapshots[-1:]
    if text == "all":
        return protocol.snapshots
    if not protocol.snapshots:
        raise UserError(f"preset {protocol.preset!r} has no pretraining to start from; leave --snapshots {text} away.")
    asked = {parse_frames(part) for part in text.split(",")}
    for frames in sorted(asked - set(protocol.snapshots)):
        kept = ", ".join(format_frames(one) for one in protocol.snapshots)
        raise UserError(
            f"no snapshot is kept at {format_frames(frames)} {protocol.pretrain_unit} with preset {protocol.preset!r}; "
            f"--snapshots takes all, last or some of: {kept}."
        )
    return tuple(sorted(asked))
