"""What keeps results from being complete and comparable, and the commands that fill the gaps."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from urlbench.core.errors import IncompleteError
from urlbench.core.jobs import JobSpec
from urlbench.results.cells import Results, results_of, scan
from urlbench.results.commands import Commands, fill_commands, seeds_flag
from urlbench.results.problems import Problem, ProblemKind
from urlbench.results.run_records import RunRecord
from urlbench.results.selection import AgentKey, Cell, belongs, make_selection, own_runs, registered_suite


def find_problems(results: Results) -> list[Problem]:
    """Each gap, damaged file and contradiction, cell by cell in the order of the results."""
    commands = Commands(results)
    found = list(results.loose_problems)
    agents = {agent.label: agent for agent in results.agents}
    for cell in results.expected():
        found.extend(_cell_problems(results, commands, agents[cell.agent], cell))
    return [*found, *_conflicts(results), *_pretraining_conflicts(results)]


def check(results: Results, *, allow_partial: bool = False) -> None:
    """Refuse results that no table may be made of.

    Raises:
        IncompleteError: if anything is wrong; with `allow_partial`, only if runs contradict each other.
    """
    problems = find_problems(results)
    blocking = [problem for problem in problems if problem.is_conflict] if allow_partial else problems
    if blocking:
        raise IncompleteError(incomplete_message(results, blocking))
    if not results.n_usable:
        raise IncompleteError(incomplete_message(results, problems))


def validate(
    runs_root: Path | str,
    suite: str | None = None,
    preset: str | None = None,
    agents: Sequence[str] | None = None,
    *,
    domains: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    snapshot: int | None = None,
    goal_sets: Sequence[int] | None = None,
) -> list[Problem]:
    """All problems of the runs below `runs_root`, as `collect` sees them.

    Args:
        runs_root: folder that `urlbench run` wrote to.
        suite: `name` or `name@version`; default every suite there is a run of.
        preset: default every preset there is a run of; each is looked at alone, for they never mix.
        agents: names or labels; default all that have runs, and so for domains, tasks and seeds.
        domains: names.
        tasks: names.
        seeds: each is expected of every agent on every task.
        snapshot: of the pretraining that the runs started from; default the last one.
        goal_sets: each is expected of every seed; default the one with the number of the seed.

    Raises:
        UserError: for unknown names, or if there are no runs of what is asked for.
    """
    selection = make_selection(agents, domains, tasks, seeds, snapshot, goal_sets)
    found = scan(Path(runs_root))
    runs = [run for run in found if isinstance(run, RunRecord)]
    below = "" if suite is None else suite.partition("@")[0] + "@"
    problems = [one for one in found if isinstance(one, Problem) and (one.path or "").startswith(below)]
    for name, chosen in _groups(runs, suite, preset):
        results = results_of(found, Path(runs_root), name, chosen, selection)
        problems += [problem for problem in find_problems(results) if problem not in problems]
    return problems


def _groups(runs: Sequence[RunRecord], suite: str | None, preset: str | None) -> list[tuple[str, str]]:
    """The suites and presets to look at: those named, else those there are runs of."""
    if suite and preset:
        return [(suite, preset)]
    found = {(run.spec.suite.partition("@")[0], run.spec.protocol.preset) for run in runs}
    names = {suite} if suite else {name for name, _ in found}
    groups = {
        (name, one)
        for name in names
        for suite_name, one in found
        if suite_name == name.partition("@")[0] and preset in (None, one)
    }
    if not groups:
        return sorted((name, preset or "paper") for name in names)
    # Where there are only pretrainings that others start from, nothing was asked for.
    return sorted({group for group in groups if not _only_lends(runs, *group)} or groups)


def _only_lends(runs: Sequence[RunRecord], name: str, preset: str) -> bool:
    suite = registered_suite(name)
    return any(belongs(run, suite, preset) for run in runs) and not own_runs(runs, suite, preset)


def _cell_problems(results: Results, commands: Commands, agent: AgentKey, cell: Cell) -> Iterator[Problem]:
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


def _conflicts(results: Results) -> Iterator[Problem]:
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


def _pretraining_conflicts(results: Results) -> Iterator[Problem]:
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


def incomplete_message(results: Results, problems: Sequence[Problem], shown: int = 20) -> str:
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


def elsewhere_words(results: Results) -> str:
    """How many runs are left out for their goal sets."""
    number = "1 run is" if results.elsewhere == 1 else f"{results.elsewhere} runs are"
    expected = "each seed's own" if results.goal_sets is None else seeds_flag(results.goal_sets)
    return f"{number} left out, on other goal sets than {expected}; --goal-sets chooses sets for every seed"
