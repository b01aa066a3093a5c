"""What keeps results from being complete and comparable, and the commands that fill the gaps."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urlbench.config import flatten, resolve_config
from urlbench.errors import UserError
from urlbench.plan import format_frames
from urlbench.registry import load_agent
from urlbench.run_records import Problem, ProblemKind, RunRecord
from urlbench.selection import AgentKey

if TYPE_CHECKING:
    from urlbench.results import Results


def find_problems(results: "Results") -> list[Problem]:
    """Each gap, damaged file and contradiction, cell by cell in the order of the results."""
    commands = Commands(results)
    found = list(results.loose_problems)
    for agent in results.agents:
        for task in results.tasks:
            for seed in results.seeds:
                found.extend(_cell_problems(results, commands, agent, task, seed))
    return [*found, *_conflicts(results)]


class Commands:
    """Writes `urlbench run` command lines for cells of `results`.

    Args:
        results: whose cells.
        overrides: whether to name the changes to the agent's defaults; looking them up imports the agent.
    """

    def __init__(self, results: "Results", *, overrides: bool = True) -> None:
        self._results, self._overrides = results, overrides
        self._agent_flags: dict[str, list[str]] = {}

    def run(self, agent: AgentKey, tasks: Sequence[str], seeds: Sequence[int], *, rerun: bool = False) -> str:
        """The command that makes the runs of `agent` on `tasks` with `seeds`."""
        results = self._results
        words = ["urlbench", "run", "--suite", results.suite.name, "--agent", agent.name, "--tasks", ",".join(tasks)]
        words += ["--seeds", seeds_flag(seeds), "--preset", results.preset]
        if agent.pretrains and results.snapshot != results.suite.protocols[results.preset].snapshots[-1]:
            words += ["--snapshots", format_frames(results.snapshot)]
        if agent.label not in self._agent_flags:
            self._agent_flags[agent.label] = self._flags_of(agent)
        words += self._agent_flags[agent.label]
        if results.root != Path("runs"):
            words += ["--runs", str(results.root)]
        return shlex.join([*words, *(["--rerun", "failed"] if rerun else [])])

    def _flags_of(self, agent: AgentKey) -> list[str]:
        """The plugins and overrides that the runs of `agent` were made with."""
        runs = self._results.selected
        of_agent = [run for run in runs if (run.spec.agent, run.config_hash) == (agent.name, agent.config_hash)]
        if not of_agent:
            return []
        flags = [word for plugin in of_agent[0].plugins for word in ("--plugin", plugin)]
        if not self._overrides:
            return flags
        try:
            default = resolve_config(load_agent(agent.name), self._results.preset).model_dump(mode="json")
        except (UserError, ImportError):
            return flags
        usual = flatten(default)
        for key, value in flatten(of_agent[0].spec.agent_config).items():
            if key not in usual or usual[key] != value:
                flags += ["-o", f"agent.{key}={json.dumps(value)}"]
        return flags


def seeds_flag(seeds: Iterable[int]) -> str:
    """What `--seeds` takes for exactly these: `0-4,7` for 0 to 4 and 7, but `7-7` for 7 alone (7 means 0 to 6)."""
    spans: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    if len(spans) == 1:
        return f"{spans[0][0]}-{spans[0][1]}"
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _cell_problems(results: "Results", commands: Commands, agent: AgentKey, task: str, seed: int) -> Iterator[Problem]:
    cell = f"{agent.label} on {task}, seed {seed}"

    def problem(kind: ProblemKind, message: str, path: str | None = None, *, rerun: bool = False) -> Problem:
        command = commands.run(agent, [task], [seed], rerun=rerun)
        return Problem(kind=kind, message=message, agent=agent.label, task=task, seed=seed, path=path, command=command)

    runs = results.cells.get((agent.label, task, seed), [])
    if not runs:
        yield problem("missing", f"{cell}: there is no run; make it with")
        return
    if len(runs) > 1:
        paths = " and ".join(run.path for run in runs)
        yield problem(
            "duplicate", f"{cell}: {len(runs)} runs claim this cell, {paths}; remove all but one, then", paths
        )
        return
    run = runs[0]
    for kind, fault in run.faults:
        yield problem(kind, f"{cell}: {fault}; remove the folder {run.path} and make the run again with", run.path)
    if run.status.state == "failed":
        reason = run.status.message or "no reason was recorded"
        yield problem("failed", f"{cell}: {run.path} failed ({reason}); try again with", run.path, rerun=True)
    elif run.status.state != "done":
        reached = f"at {run.status.progress} of {run.status.budget} {run.status.unit}"
        yield problem("unfinished", f"{cell}: {run.path} is {run.status.state} {reached}; go on with", run.path)


def _conflicts(results: "Results") -> Iterator[Problem]:
    """Runs that do not belong together, or do not belong where they are."""
    suite, preset = results.suite, results.preset
    protocol = suite.protocols[preset].model_copy(update={"description": ""})
    duplicated = {run.path for runs in results.cells.values() if len(runs) > 1 for run in runs}
    common = Counter(_versions(run) for run in results.selected)
    usual = min(common, key=lambda text: (-common[text], text), default="")
    for run in results.strays:
        found = f"{run.spec.suite}, preset {run.spec.protocol.preset!r},"
        yield _conflict("preset", run, f"holds a run of {found} among those of {suite.full_name}, {preset!r}")
    for run in results.selected:
        spec = run.spec
        if run.path != run.expected_path and run.path not in duplicated:
            yield _conflict("misplaced", run, f"holds the run that belongs in {run.expected_path}")
        if spec.protocol.model_copy(update={"description": ""}) != protocol or (
            (spec.observation, spec.action_repeat) != (suite.observation, suite.action_repeat)
        ):
            yield _conflict("protocol", run, f"was made with another protocol than {spec.suite}, {preset!r}, has")
        if _versions(run) != usual:
            yield _conflict("versions", run, f"was made with {_versions(run)}, most others with {usual}")


def _conflict(kind: ProblemKind, run: RunRecord, what: str) -> Problem:
    return Problem(
        kind=kind,
        path=run.path,
        message=f"{run.path} {what}; they never mix: move that folder out of the runs.",
    )


def _versions(run: RunRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(run.spec.versions.items())) or "no versions"


def incomplete_message(results: "Results", problems: Sequence[Problem], shown: int = 20) -> str:
    """What is wrong, the first problems one by one, and the commands that fill all gaps, grouped."""
    lines = [
        f"{results.suite.full_name}, preset {results.preset}: {results.n_usable} of {results.n_expected} runs can be "
        f"used; {len(problems)} {'problem' if len(problems) == 1 else 'problems'}:",
        *(f"  {problem}" for problem in problems[:shown]),
    ]
    if len(problems) > shown:
        lines.append(f"  and {len(problems) - shown} more; `urlbench validate` lists them all")
    commands = fill_commands(results, problems)
    if len(problems) > 1 and commands:
        lines += ["All gaps together:", *(f"    {command}" for command in commands)]
    return "\n".join(lines)


def fill_commands(results: "Results", problems: Iterable[Problem]) -> list[str]:
    """As few commands as make all missing cells, agent by agent: tasks that lack the same seeds go together."""
    agents = {agent.label: agent for agent in results.agents}
    lacking: dict[tuple[str, str], set[int]] = defaultdict(set)
    rerun = set()
    for problem in problems:
        if problem.agent is not None and problem.task is not None and problem.seed is not None:
            lacking[problem.agent, problem.task].add(problem.seed)
            if problem.kind == "failed":
                rerun.add(problem.agent)
    grouped: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (label, task), seeds in lacking.items():
        grouped[label, tuple(sorted(seeds))].append(task)
    commands = Commands(results)
    return [
        commands.run(agents[label], tasks, seeds, rerun=label in rerun) for (label, seeds), tasks in grouped.items()
    ]
