"""What keeps results from being complete and comparable, and the commands that fill the gaps."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from urlbench.core.config import flatten, resolve_config
from urlbench.core.errors import UserError
from urlbench.core.registry import load_agent
from urlbench.core.types import JobSpec
from urlbench.results.problems import Problem, ProblemKind
from urlbench.results.run_records import RunRecord
from urlbench.results.selection import AgentKey, Cell
from urlbench.runs.plan import format_frames

if TYPE_CHECKING:
    from urlbench.results.cells import Results


def find_problems(results: "Results") -> list[Problem]:
    """Each gap, damaged file and contradiction, cell by cell in the order of the results."""
    commands = Commands(results)
    found = list(results.loose_problems)
    agents = {agent.label: agent for agent in results.agents}
    for cell in results.expected():
        found.extend(_cell_problems(results, commands, agents[cell.agent], cell))
    return [*found, *_conflicts(results), *_pretraining_conflicts(results)]


class Commands:
    """Writes `urlbench run` command lines for cells of `results`.

    Args:
        results: whose cells.
        overrides: whether to name the changes to the agent's defaults; looking them up imports the agent.
    """

    def __init__(self, results: "Results", *, overrides: bool = True) -> None:
        self._results, self._overrides = results, overrides
        self._agent_flags: dict[str, list[str]] = {}

    def run(
        self,
        agent: AgentKey,
        tasks: Sequence[str],
        seeds: Sequence[int],
        goal_sets: Sequence[int] | None = None,
        *,
        rerun: bool = False,
    ) -> str:
        """The command that makes the runs of `agent` on `tasks` with `seeds`, on `goal_sets` if they were chosen."""
        results = self._results
        words = ["urlbench", "run", "--suite", results.suite.name, "--agent", agent.name, "--tasks", ",".join(tasks)]
        words += ["--seeds", seeds_flag(seeds), "--preset", results.preset]
        if results.goal_sets is not None:
            words += ["--goal-sets", seeds_flag(results.goal_sets if goal_sets is None else goal_sets)]
        if agent.pretrains and results.snapshot != results.suite.protocols[results.preset].last_snapshot:
            words += ["--snapshots", format_frames(results.snapshot)]
        if agent.label not in self._agent_flags:
            self._agent_flags[agent.label] = self._flags_of(agent)
        words += self._agent_flags[agent.label]
        if results.root != Path("runs"):
            words += ["--runs", str(results.root)]
        return shlex.join([*words, *(["--rerun", "failed"] if rerun else [])])

    def _flags_of(self, agent: AgentKey) -> list[str]:
        """The data, the plugins and the overrides that the runs of `agent` were made with."""
        if agent.example is None:
            return []
        pretrainings = [run for run in self._results.pretrainings.values() if agent.made(run)]
        folders = [Path(run.data_path) for run in pretrainings if run.data_path is not None]
        flags = ["--data", str(folders[0].parent.parent)] if folders else []
        flags += [word for plugin in agent.example.plugins for word in ("--plugin", plugin)]
        if not self._overrides:
            return flags
        try:
            default = resolve_config(load_agent(agent.name), self._results.preset).model_dump(mode="json")
        except (UserError, ImportError):
            return flags
        usual = flatten(default)
        for key, value in flatten(agent.example.spec.agent_config).items():
            if key not in usual or usual[key] != value:
                flags += ["-o", f"agent.{key}={json.dumps(value)}"]
        return flags


def seeds_flag(seeds: Iterable[int]) -> str:
    """What `--seeds` takes for exactly these: `0-4,7` for 0 to 4 and 7, but `7-7` for 7 alone (7 means 0 to 6)."""
    spans = _spans(seeds)
    if len(spans) == 1:
        return f"{spans[0][0]}-{spans[0][1]}"
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def number_words(numbers: Iterable[int]) -> str:
    """The numbers in few words: `0-4, 7`."""
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in _spans(numbers))


def _spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """The first and last of each row of successive numbers."""
    spans: list[tuple[int, int]] = []
    for number in sorted(set(numbers)):
        first = spans.pop()[0] if spans and number == spans[-1][1] + 1 else number
        spans.append((first, number))
    return spans


def _cell_problems(results: "Results", commands: Commands, agent: AgentKey, cell: Cell) -> Iterator[Problem]:
    def problem(kind: ProblemKind, message: str, path: str | None = None, *, rerun: bool = False) -> Problem:
        goal_sets = None if cell.goal_set is None else [cell.goal_set]
        command = commands.run(agent, [cell.task], [cell.seed], goal_sets, rerun=rerun)
        return Problem(kind=kind, message=message, path=path, command=command, **cell._asdict())

    runs = results.cells.get(cell, [])
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


def _pretraining_conflicts(results: "Results") -> Iterator[Problem]:
    """Runs that start from pretrainings which do not belong together: of other data, budgets or versions."""
    by_agent: dict[tuple[str, str, str], list[tuple[RunRecord, dict[str, str]]]] = defaultdict(list)
    for run in results.selected:
        pretraining = results.pretrainings.get(run.spec.parent or "")
        if pretraining is not None:
            origin = _origin(pretraining.spec)
            by_agent[run.spec.agent, run.config_hash, run.spec.domain].append((run, origin))
    for runs in by_agent.values():
        for kind, what in _ORIGINS.items():
            common = Counter(origin[what] for _, origin in runs)
            usual = min(common, key=lambda text: (-common[text], text))
            for run, origin in runs:
                if origin[what] != usual:
                    yield _conflict(
                        kind, run, f"starts from a pretraining of {what} {origin[what]}, most others of {usual}"
                    )


_ORIGINS: dict[ProblemKind, str] = {"data": "data", "protocol": "budget", "versions": "suite"}


def _origin(pretraining: JobSpec) -> dict[str, str]:
    """What the pretrainings of one agent and domain have in common, by a word for each."""
    protocol = pretraining.protocol
    return {
        "data": f"[{(pretraining.data or 'none')[:8]}]",
        "budget": f"{protocol.pretrain_budget} {protocol.pretrain_unit}",
        "suite": pretraining.suite,
    }


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
    if results.elsewhere:
        lines.append(f"  {elsewhere_words(results)}")
    commands = fill_commands(results, problems)
    if len(problems) > 1 and commands:
        lines += ["All gaps together:", *(f"    {command}" for command in commands)]
    return "\n".join(lines)


def elsewhere_words(results: "Results") -> str:
    """How many runs are left out for their goal sets."""
    number = "1 run is" if results.elsewhere == 1 else f"{results.elsewhere} runs are"
    expected = "each seed's own" if results.goal_sets is None else seeds_flag(results.goal_sets)
    return f"{number} left out, on other goal sets than {expected}; --goal-sets chooses sets for every seed"


def fill_commands(results: "Results", problems: Iterable[Problem]) -> list[str]:
    """As few commands as make all missing cells, agent by agent: what lacks the same seeds goes together."""
    agents = {agent.label: agent for agent in results.agents}
    seeds: dict[tuple[str, str, int | None], set[int]] = defaultdict(set)
    rerun = set()
    for problem in problems:
        if problem.agent is not None and problem.task is not None and problem.seed is not None:
            # Without a choice of sets the seed says which one it is.
            goal_set = None if results.goal_sets is None else problem.goal_set
            seeds[problem.agent, problem.task, goal_set].add(problem.seed)
            if problem.kind == "failed":
                rerun.add(problem.agent)
    tasks: dict[tuple[str, int | None, tuple[int, ...]], list[str]] = defaultdict(list)
    for (label, task, goal_set), lacking in seeds.items():
        tasks[label, goal_set, tuple(sorted(lacking))].append(task)
    goal_sets: dict[tuple[str, tuple[str, ...], tuple[int, ...]], list[int]] = defaultdict(list)
    for (label, goal_set, lacked), names in tasks.items():
        goal_sets[label, tuple(names), lacked] += [] if goal_set is None else [goal_set]
    commands = Commands(results)
    return [
        commands.run(agents[label], names, lacked, sets, rerun=label in rerun)
        for (label, names, lacked), sets in goal_sets.items()
    ]
