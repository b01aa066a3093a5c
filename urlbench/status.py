"""`urlbench status` and `urlbench logs`: how the runs of a folder stand, from their files alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from urlbench.errors import UserError
from urlbench.identity import config_hash
from urlbench.plan import format_frames
from urlbench.store import RunDirectory, RunStore, Unit
from urlbench.types import Job, Phase, Spec

State = Literal["done", "running", "queued", "failed", "stale", "interrupted", "damaged"]


class RunStatus(Spec):
    """How one run stands.

    Attributes:
        agent: `name-config8`.
        reduced: of a reduced budget.
        goal_set: None in suites without.
        state: `stale` is a run whose process is gone without a word, `damaged` one with unreadable files.
        path: the run directory, relative to the runs folder.
        message: why it failed or stopped.
        log: the worker's output, relative to the runs folder.
    """

    id: str
    suite: str
    agent: str
    preset: str
    reduced: bool
    phase: Phase
    domain: str
    task: str
    snapshot: int
    goal_set: int | None
    seed: int
    state: State
    progress: int
    budget: int
    unit: Unit
    per_second: float | None
    message: str
    path: str
    log: str


class Overview(Spec):
    """All runs of a folder.

    Attributes:
        unreadable: one sentence for each folder that nobody can say the run of.
    """

    runs: tuple[RunStatus, ...]
    unreadable: tuple[str, ...]

    @property
    def active(self) -> bool:
        """True while something runs."""
        return any(run.state == "running" for run in self.runs)


def read_overview(
    root: Path, suite: str | None = None, agents: tuple[str, ...] = (), preset: str | None = None
) -> Overview:
    """The state of every run below `root`, of a suite, some agents or a preset only if they are named.

    Raises:
        UserError: if there is no such folder.
    """
    if not root.is_dir():
        raise UserError(f"there is no runs folder {str(root)!r}; give another one with --runs, or start: urlbench run")
    runs, unreadable = [], []
    for directory in RunStore(root).directories():
        try:
            job = directory.read_job(root)
        except UserError as error:
            unreadable.append(str(error))
            continue
        spec = job.spec
        if suite not in (None, spec.suite, spec.suite.partition("@")[0]) or preset not in (None, spec.protocol.preset):
            continue
        if agents and spec.agent not in agents:
            continue
        runs.append(_run_status(job, directory))
    return Overview(runs=tuple(runs), unreadable=tuple(unreadable))


def _run_status(job: Job, directory: RunDirectory) -> RunStatus:
    spec, status, message = job.spec, directory.read_status(), ""
    assert status is not None, f"{directory.path} has lost its spec.json"
    state: str = status.state
    try:
        directory.is_done()
    except UserError as error:
        state, message = "damaged", str(error)
    return RunStatus.model_validate(
        {
            "id": job.id,
            "suite": spec.suite,
            "agent": f"{spec.agent}-{config_hash(spec.agent_config)}",
            "preset": spec.protocol.preset,
            "reduced": spec.protocol.reduced,
            "phase": spec.phase,
            "domain": spec.domain,
            "task": spec.task,
            "snapshot": spec.snapshot,
            "goal_set": spec.goal_set,
            "seed": spec.seed,
            "state": state,
            "progress": status.progress,
            "unit": status.unit,
            "budget": status.budget,
            "per_second": status.per_second if state == "running" else None,
            "message": message or status.message,
            "path": job.path,
            "log": f"{job.path}/{directory.log_file.name}",
        }
    )


def format_overview(overview: Overview) -> str:
    """A task × seed grid for every suite, preset and agent, then what went wrong and where its log is."""
    groups: dict[tuple[str, str, str], list[RunStatus]] = defaultdict(list)
    for run in overview.runs:
        groups[run.suite, run.preset, run.agent].append(run)
    blocks = ["\n".join(_grid(*key, runs)) for key, runs in groups.items()]
    trouble = [
        f"{run.state}: {run.path}\n    reason: {run.message or 'none given'}\n    log: {run.log}"
        for run in overview.runs
        if run.state in ("failed", "stale", "interrupted", "damaged")
    ]
    trouble += [f"unreadable: {sentence}" for sentence in overview.unreadable]
    if trouble:
        blocks.append("\n".join(trouble))
    counts: Counter[str] = Counter(run.state for run in overview.runs)
    numbers = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    blocks.append(f"{len(overview.runs)} runs" + (f": {numbers}" if numbers else ""))
    return "\n\n".join(blocks)


def _grid(suite: str, preset: str, agent: str, runs: list[RunStatus]) -> Iterator[str]:
    reduced = " (REDUCED BUDGET)" if runs[0].reduced else ""
    yield f"{suite}  preset {preset}{reduced}  {agent}"
    seeds = sorted({run.seed for run in runs})
    cells: dict[str, dict[int, str]] = defaultdict(dict)
    coupled = all(run.goal_set in (None, run.seed) for run in runs)
    for run in sorted(runs, key=_place):
        at_an_end = run.state in ("done", "queued", "damaged")
        percent = "" if at_an_end else f" {100 * run.progress // max(run.budget, 1)}%"
        cells[_row(run, coupled=coupled)][run.seed] = run.state + percent
    head = max(len(row) for row in cells)
    width = max(8, *(len(text) for row in cells.values() for text in row.values()))
    yield " ".join([" " * head, *(f"{f'seed {seed}':<{width}}" for seed in seeds)]).rstrip()
    for row, by_seed in cells.items():
        yield " ".join([f"{row:<{head}}", *(f"{by_seed.get(seed, '-'):<{width}}" for seed in seeds)]).rstrip()


def _place(run: RunStatus) -> tuple[str, bool, str, int, int]:
    """Where a run stands in its grid."""
    return run.domain, run.phase != "pretrain", run.task, run.snapshot, run.goal_set or 0


def _row(run: RunStatus, *, coupled: bool) -> str:
    """The name of a run's row; `coupled` if every seed has one goal set, which has its number."""
    if run.phase == "pretrain":
        return f"pretrain {run.domain}"
    goal_set = "" if run.goal_set is None else f" goal set {'= seed' if coupled else run.goal_set}"
    return f"{run.phase} {run.task}{goal_set}" + (f" from {format_frames(run.snapshot)}" if run.snapshot else "")


def find_run(root: Path, name: str) -> RunDirectory:
    """The run that `name` means: a job id, the beginning of one, or a path.

    Raises:
        UserError: if it means no run, or several.
    """
    for path in (Path(name), root / name):
        if (path / "spec.json").is_file():
            return RunDirectory(path)
    overview = read_overview(root)
    matching = [run for run in overview.runs if name and run.id.startswith(name)]
    if not matching:
        raise UserError(
            f"{name!r} is neither a run directory nor the beginning of a job id; see: urlbench status --json"
        )
    if len(matching) > 1:
        paths = ", ".join(run.path for run in matching[:3])
        raise UserError(f"{name!r} begins the ids of {len(matching)} runs ({paths}); write more of the id.")
    return RunDirectory(root / matching[0].path)


def tail(file: Path, lines: int) -> str:
    """The last lines of a file; UserError if there is none."""
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"there is no log {file} yet: the run has not started; see: urlbench status") from error
    return "\n".join(content.splitlines()[-lines:])
