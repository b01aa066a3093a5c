"""The `urlbench run` commands that make runs, and the words for seeds and numbers in them."""

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from urlbench.core.config import flatten, resolve_config
from urlbench.core.errors import UserError
from urlbench.core.registry import load_agent
from urlbench.results.cells import Results
from urlbench.results.problems import Problem
from urlbench.results.selection import AgentKey
from urlbench.runs.plan import format_frames


class Commands:
    """Writes `urlbench run` command lines for cells of `results`.

    Args:
        results: whose cells.
        overrides: whether to name the changes to the agent's defaults; looking them up imports the agent.
    """

    def __init__(self, results: Results, *, overrides: bool = True) -> None:
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


def fill_commands(results: Results, problems: Iterable[Problem]) -> list[str]:
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
