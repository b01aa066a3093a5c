"""How the runs of a folder stand, from their files and a cluster's queue."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

from urlbench.core.errors import UserError
from urlbench.core.identity import config_hash
from urlbench.core.jobs import Job
from urlbench.core.types import Phase, Spec
from urlbench.runs.budgets import Unit
from urlbench.runs.plan import format_frames
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl

State = Literal["done", "running", "queued", "failed", "stale", "interrupted", "damaged"]
# What files alone say of a run that the queue may know more about.
_NO_END = ("queued", "interrupted", "stale")
# Slurm's controllers answer everybody of the cluster, so they are asked seldom.
WATCH_SECONDS = {"local": 2.0, "cluster": 30.0}


class RunStatus(Spec):
    """How one run stands.

    Attributes:
        agent: `name-config8`.
        reduced: of a reduced budget.
        parent: id of the pretraining that it starts from; None if there is none.
        place: what it is about: a domain if it is a reward-free pretraining, else a task.
        goal_set: None in suites without.
        state: `stale` is a run whose process is gone without a word, `damaged` one with unreadable files.
        path: the run directory, relative to the runs folder.
        message: why it failed or stopped.
        log: the worker's output, relative to the runs folder; without one, what its job on the cluster wrote.
        starts: how often it was started.
        cluster_job: the id of its job in a cluster's queue; "" if it has none there.
        waits: what that job waits for; "" once it runs.
    """

    id: str
    suite: str
    agent: str
    preset: str
    reduced: bool
    phase: Phase
    domain: str
    task: str
    place: str
    snapshot: int
    parent: str | None
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
    starts: int
    cluster_job: str = ""
    waits: str = ""


class Overview(Spec):
    """All runs of a folder.

    Attributes:
        unreadable: one sentence for each folder that nobody can say the run of.
        queue_problem: why the queue of the cluster could not be seen; "" if it was, or there is none.
    """

    runs: tuple[RunStatus, ...]
    unreadable: tuple[str, ...]
    queue_problem: str = ""

    @property
    def active(self) -> bool:
        """True while something runs or is in a queue."""
        return any(run.state == "running" or run.cluster_job for run in self.runs)


def read_overview(
    root: Path, suite: str | None = None, agents: tuple[str, ...] = (), preset: str | None = None
) -> Overview:
    """The state of every run below `root`, of a suite, some agents or a preset only if they are named.

    With the runs of an agent come the pretrainings that they start from.

    Raises:
        UserError: if there is no such folder.
    """
    overview = _read_files(root, suite, agents, preset)
    return _with_queue(root, overview) if uses_cluster(root) else overview


def _read_files(
    root: Path, suite: str | None = None, agents: tuple[str, ...] = (), preset: str | None = None
) -> Overview:
    """What the run directories alone say."""
    if not root.is_dir():
        raise UserError(f"there is no runs folder {str(root)!r}; give another one with --runs, or start: urlbench run")
    runs, unreadable = [], []
    pretrainings: dict[str, RunStatus] = {}
    for directory in RunStore(root).directories():
        try:
            job = directory.read_job(root)
        except UserError as error:
            unreadable.append(str(error))
            continue
        spec = job.spec
        if suite not in (None, spec.suite, spec.suite.partition("@")[0]) or preset not in (None, spec.protocol.preset):
            continue
        if not agents or spec.agent in agents:
            runs.append(_run_status(job, directory))
        elif spec.phase == "pretrain":
            pretrainings[job.id] = _run_status(job, directory)
    used = {run.parent for run in runs}
    runs += [run for run in pretrainings.values() if run.id in used]
    return Overview(runs=tuple(sorted(runs, key=lambda run: run.path)), unreadable=tuple(unreadable))


def uses_cluster(root: Path) -> bool:
    """True if runs of this folder were ever submitted to a cluster."""
    return (root / ".slurm").is_dir()


def _with_queue(root: Path, overview: Overview) -> Overview:
    """The same, with what the cluster's queue says of runs that are not done: one call of squeue, at most one of sacct.

    A run that was submitted and has left the queue without an end of its own is `interrupted`.
    """
    from urlbench.slurm.queue import Queue, ended
    from urlbench.slurm.records import Records

    records = Records(root)
    try:
        known = records.all()
        left = {path for record in known for pack in record.elements for path in pack}
        left &= {run.path for run in overview.runs if run.state not in ("done", "damaged")}
        if not left:
            return overview
        queue = Queue.look().of_runs(known)
    except UserError as error:
        return overview.model_copy(update={"queue_problem": str(error)})
    left_queue = left - queue.keys()
    gone = [run.path for run in overview.runs if run.path in left_queue and run.state in _NO_END]
    endings = ended(records, gone) if gone else {}
    logs = records.logs(known)
    runs = []
    for run in overview.runs:
        changes: dict[str, str] = {}
        if run.path in left and run.path in queue:
            _, entry = queue[run.path]
            changes = {"cluster_job": entry.job_id}
            if entry.waits and run.state != "failed":  # others of its element wait
                changes |= {"state": "queued", "waits": entry.meaning}
            elif run.state in _NO_END:
                changes |= {"state": "running", "message": ""}
        elif run.path in endings:
            ending = f"{run.message}; {endings[run.path]}" if run.message else endings[run.path]
            changes = {"state": "interrupted", "message": f"{ending}; the same run command submits it again"}
        if run.path in left and run.path in logs and not (root / run.log).exists():
            changes["log"] = logs[run.path].relative_to(root).as_posix()
        runs.append(run.model_copy(update=changes))
    return overview.model_copy(update={"runs": tuple(runs)})


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
            "place": spec.place,
            "snapshot": spec.snapshot,
            "parent": spec.parent,
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
            "starts": sum("started" in row for row in read_jsonl(directory.attempts_file)),
        }
    )


def format_overview(overview: Overview) -> str:
    """A task × seed grid for every suite, preset and agent, then what went wrong and where its log is."""
    groups: dict[tuple[str, str, str], list[RunStatus]] = defaultdict(list)
    for run in overview.runs:
        groups[run.suite, run.preset, run.agent].append(run)
    users: dict[str | None, set[str]] = defaultdict(set)
    for run in overview.runs:
        users[run.parent].add(run.agent)
    blocks = ["\n".join(_grid(*key, runs, users)) for key, runs in groups.items()]
    trouble = [
        f"{run.state}: {run.path}\n    reason: {run.message or 'none given'}\n    log: {run.log}"
        for run in overview.runs
        if run.state in ("failed", "stale", "interrupted", "damaged")
    ]
    waiting = Counter(run.waits for run in overview.runs if run.waits)
    notes = [
        f"in the queue: {number} {'run' if number == 1 else 'runs'}, {why}" for why, number in waiting.most_common()
    ]
    notes += [
        f"started {run.starts} times: {run.path}" for run in overview.runs if run.starts > 1 and run.state != "done"
    ]
    if overview.queue_problem:
        notes.append(f"the cluster's queue is not known: {overview.queue_problem}")
    if notes:
        blocks.append("\n".join(notes))
    trouble += [f"unreadable: {sentence}" for sentence in overview.unreadable]
    if trouble:
        blocks.append("\n".join(trouble))
    counts: Counter[str] = Counter(run.state for run in overview.runs)
    numbers = ", ".join(f"{counts[state]} {state}" for state in get_args(State) if counts[state])
    blocks.append(f"{len(overview.runs)} runs" + (f": {numbers}" if numbers else ""))
    return "\n\n".join(blocks)


def _grid(
    suite: str, preset: str, agent: str, runs: list[RunStatus], users: dict[str | None, set[str]]
) -> Iterator[str]:
    reduced = " (REDUCED BUDGET)" if runs[0].reduced else ""
    starting = sorted(set().union(*(users.get(run.id, set()) for run in runs)) - {agent})
    starts = f", which {', '.join(starting)} start{'' if len(starting) > 1 else 's'} from" if starting else ""
    yield f"{suite}  preset {preset}{reduced}  {agent}{starts}"
    seeds = sorted({run.seed for run in runs})
    cells: dict[str, dict[int, str]] = defaultdict(dict)
    coupled = all(run.goal_set in (None, run.seed) for run in runs)
    for run in sorted(runs, key=_place):
        without = run.state in ("done", "damaged") or (run.state == "queued" and not run.progress)
        percent = "" if without else f" {100 * run.progress // max(run.budget, 1)}%"
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
        return f"pretrain {run.place}"
    goal_set = "" if run.goal_set is None else f" goal set {'= seed' if coupled else run.goal_set}"
    return f"{run.phase} {run.task}{goal_set}" + (f" from {format_frames(run.snapshot)}" if run.snapshot else "")


def not_shared(overview: Overview, root: Path) -> Overview:
    """Without the pretrainings that runs which are not of `overview` start from."""
    chosen = {run.id for run in overview.runs}
    needed = {run.parent for run in _read_files(root).runs if run.id not in chosen}
    return overview.model_copy(update={"runs": tuple(run for run in overview.runs if run.id not in needed)})


def find_run(root: Path, name: str) -> RunDirectory:
    """The run that `name` means: a job id, the beginning of one, or a path.

    Raises:
        UserError: if it means no run, or several.
    """
    for path in (Path(name), root / name):
        if (path / "spec.json").is_file():
            return RunDirectory(path)
    overview = _read_files(root)
    matching = [run for run in overview.runs if name and run.id.startswith(name)]
    if not matching:
        raise UserError(
            f"{name!r} is neither a run directory nor the beginning of a job id; see: urlbench status --json"
        )
    if len(matching) > 1:
        paths = ", ".join(run.path for run in matching[:3])
        raise UserError(f"{name!r} begins the ids of {len(matching)} runs ({paths}); write more of the id.")
    return RunDirectory(root / matching[0].path)


def find_log(root: Path, name: str) -> Path:
    """The log of the run that `name` means; of a run that has none yet, what its job on a cluster wrote."""
    directory = find_run(root, name)
    if directory.log_file.exists() or not uses_cluster(root):
        return directory.log_file
    from urlbench.slurm.records import Records

    records = Records(root)
    return records.logs(records.all()).get(directory.read_job(root).path, directory.log_file)


def tail(file: Path, lines: int) -> str:
    """The last lines of a file; UserError if there is none."""
    try:
        content = file.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError as error:
        raise UserError(f"there is no log {file} yet: the run has not started; see: urlbench status") from error
    return "\n".join(content.splitlines()[-lines:])
