"""Everything about running one job in its directory: building it, continuing it, recording how it ended."""

import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy.typing as npt

from urlbench.core.durable import remove_temporaries, write_atomic
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, DrawnEnvironment, Environment
from urlbench.core.jobs import Job, JobSpec
from urlbench.episodes.replay import PhysicsReplay, Replay, frames_in_stack
from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.manifest import collect_manifest, manifest_json
from urlbench.runs.store import RunDirectory, RunState, Status, queued_status
from urlbench.training.assembly import (
    build_agent,
    build_environment,
    check_budgets,
    check_outcome,
    check_versions,
    check_windows,
    precision_of,
    set_up_torch,
    suite_of,
)
from urlbench.training.checkpoint import load_latest
from urlbench.training.evaluation import FinetuningEvaluation, Player
from urlbench.training.evaluation_pool import open_player
from urlbench.training.learning import Interrupted, Surroundings
from urlbench.training.loop import TrainingLoop
from urlbench.training.offline import OfflineLoop, fill_replay
from urlbench.training.search import SearchLoop, blocks_of, keep_whole_rows
from urlbench.training.transfer import fill_relabelled, index_episodes, with_physics

CHECKPOINT_SECONDS = 120.0


class Loop(Protocol):
    """What every phase runs."""

    @property
    def progress(self) -> int:
        """How far it is, in the unit of the status."""

    def run(self) -> None:
        """Go on to the end; Interrupted if it was asked to stop."""


class _Start(NamedTuple):
    """Where a job goes on, its files cut back to there.

    Attributes:
        progress: in the unit of the status; 0 if it starts from nothing.
        notes: what was noticed on the way.
        loop: goes on from there.
    """

    progress: int
    notes: list[str]
    loop: Callable[[Surroundings], Loop]


def run_job(
    job: Job,
    directory: RunDirectory,
    *,
    runs_root: Path,
    threads: int = 1,
    device: str = "cpu",
    stop: Callable[[], str] = lambda: "",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    recordings: Path | None = None,
    env_workers: int = 1,
) -> Literal["done", "interrupted"]:
    """Run a job to its end, from its newest checkpoint if there is one. The caller holds the directory's lock.

    A job that is done is left as it is.

    Args:
        job: what to run.
        directory: where.
        runs_root: where the parent's directory is found.
        threads: of torch.
        device: a torch device string, or `auto` for the GPU if there is one.
        stop: returns why the run must stop, or an empty string; asked at every step.
        checkpoint_seconds: wall-clock time between checkpoints; does not change results.
        recordings: folder where the episodes of a pretraining stay, with their physics; None for the run's own
            replay, which goes when the run is done.
        env_workers: processes that play evaluation episodes; 1 plays them in this one. Does not change results.

    Returns:
        `interrupted` if `stop` ended the run; it can be continued.

    Raises:
        UserError: a failure with a reason that a user can do something about; recorded in the directory.
        Exception: any other failure; recorded, too.
    """
    if directory.is_done():
        directory.remove_working_files()
        return "done"
    here = {"state": "running", "pid": os.getpid(), "host": socket.gethostname()}
    record = _Record(directory, queued_status(job.spec).model_copy(update=here))
    try:
        record.write("running")
        for folder in (directory.path, directory.snapshots):
            remove_temporaries(folder)
        device = set_up_torch(device, threads, precision_of(job.spec))
        check_versions(job.spec)
        check_budgets(job.spec)
        environment = build_environment(job.spec)
        check_outcome(job.spec, environment)
        # Both from the run's seed, as published.
        played = build_environment(job.spec) if job.spec.phase == "finetune" else environment
        agent, parent = build_agent(job, environment, runs_root, device)
        with open_player(job, played, device, env_workers) as player:
            start: _Start
            if job.spec.phase == "search":
                start = _search(job, directory, agent, player)
            elif is_offline(job.spec):
                start = _offline(job, directory, environment, agent, stop)
            else:
                check_windows(job.spec, agent.schedule)
                tuning = job.spec.phase == "finetune"
                evaluation = FinetuningEvaluation(job.spec, played, player) if tuning else None
                kept = directory.episodes if job.spec.keeps_episodes else recordings
                start = _training(job, directory, environment, agent, evaluation, kept, runs_root)
            record.begin(start.progress, start.notes)
            if not directory.manifest_file.exists():
                manifest = collect_manifest(
                    device=device,
                    threads=threads,
                    parent=parent,
                    plugins=job.plugins,
                    renderer=_drawn_by(job.spec, environment),
                )
                write_atomic(directory.manifest_file, manifest_json(manifest))
            heartbeat = Heartbeat(directory, record.status)
            loop = start.loop(Surroundings(directory, heartbeat, stop, checkpoint_seconds))
            try:
                loop.run()
            finally:
                record.progress = loop.progress
        if job.spec.keeps_episodes:
            index_episodes(directory)
        directory.finish(loop.progress, record.status.unit)
    except Interrupted as interruption:
        record.end("interrupted", str(interruption))
        return "interrupted"
    except Exception as error:
        record.fail(error)
        raise
    record.end("done", "done")
    directory.remove_working_files()
    return "done"


class _Record:
    """Writes down how an attempt goes, in status.json, attempts.jsonl and, by printing, log.txt."""

    def __init__(self, directory: RunDirectory, status: Status) -> None:
        self._directory, self.status, self.progress = directory, status, 0

    def write(self, state: RunState, message: str = "") -> None:
        """The status, with the progress and message as they are now."""
        changes = {"state": state, "progress": self.progress, "message": message}
        self._directory.write_status(self.status.model_copy(update=changes))

    def begin(self, progress: int, notes: Sequence[str]) -> None:
        """A start from `progress`, with what was noticed on the way."""
        self.progress = progress
        attempt = self._directory.begin_attempt(progress, notes)
        self.status = self.status.model_copy(update={"attempt": attempt, "progress": progress})
        for note in notes:
            print(note, flush=True)
        print(f"attempt {attempt} starts at {self._where} of {self.status.budget}", flush=True)

    @property
    def _where(self) -> str:
        return f"{self.status.unit.removesuffix('s')} {self.progress}"

    def end(self, state: RunState, reason: str) -> None:
        """The end of the attempt."""
        print(f"attempt {self.status.attempt} ends at {self._where}: {reason}", flush=True)
        self._directory.end_attempt(self.status.attempt, reason)
        self.write(state, "" if state == "done" else reason)

    def fail(self, error: Exception) -> None:
        """A failure; if not even that can be written, the log has it."""
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        try:
            if not self.status.attempt:
                self.begin(0, ())
            self.end("failed", reason)
        except UserError as second:
            print(f"the failure cannot be recorded: {second}", flush=True)


def _drawn_by(spec: JobSpec, environment: Environment) -> str | None:
    """What draws the pictures of this run, in words; None without pictures."""
    if is_offline(spec) or not isinstance(environment, DrawnEnvironment):
        return None
    return environment.drawn_by()


def is_offline(spec: JobSpec) -> bool:
    """True for a pretraining on a data set."""
    return spec.phase == "pretrain" and spec.protocol.pretrain_updates > 0


def _training(
    job: Job,
    directory: RunDirectory,
    environment: Environment,
    agent: Agent,
    evaluation: FinetuningEvaluation | None,
    recordings: Path | None,
    runs_root: Path,
) -> _Start:
    state, replay, notes = _load_progress(job, directory, environment, agent, recordings)
    transfer = job.spec.transfer

    def loop(surroundings: Surroundings) -> Loop:
        if state is None and transfer is not None and transfer.initial_replay == "relabelled":
            fill_relabelled(replay, job, runs_root, build_environment(job.spec), surroundings)
        made = TrainingLoop(job.id, job.spec, agent, environment, evaluation, replay, surroundings)
        if state is not None:
            made.restore(state)
            state.clear()  # large, and in the loop by now
        return made

    return _Start(state["step"] * job.spec.action_repeat if state else 0, notes, loop)


def _offline(
    job: Job, directory: RunDirectory, environment: Environment, agent: Agent, stop: Callable[[], str]
) -> _Start:
    state, notes = _load_checkpoint(job, directory)

    def loop(surroundings: Surroundings) -> Loop:
        capacity, ends_early = agent.schedule.replay_capacity_steps, _ends_early(job.spec)
        data = Replay(None, *_entry_format(environment), capacity, ends_early=ends_early)
        fill_replay(data, job.data_path, job.spec, stop)
        made = OfflineLoop(job.id, job.spec, agent, data, surroundings)
        if state is not None:
            made.restore(state)
            state.clear()
        return made

    return _Start(state["updates"] if state else 0, notes, loop)


def _search(job: Job, directory: RunDirectory, agent: Agent, player: Player) -> _Start:
    rows, notes = keep_whole_rows(directory, job.spec)
    episodes = sum(block.episodes for block in blocks_of(job.spec)[:rows])
    return _Start(episodes, notes, partial(SearchLoop, job.spec, agent, player, rows))


def _entry_format(environment: Environment) -> tuple[tuple[int, ...], npt.DTypeLike, int]:
    """What a replay is told about its entries."""
    return environment.observation_shape, environment.observation_dtype, environment.action_dim


def _ends_early(spec: JobSpec) -> bool:
    return suite_of(spec).domain(spec.domain).ends_early


def _load_progress(
    job: Job, directory: RunDirectory, environment: Environment, agent: Agent, recordings: Path | None
) -> tuple[dict[str, Any] | None, Replay, list[str]]:
    """The newest checkpoint that goes with the run's other files, these cut back to it, and what was noticed."""

    def empty_replay() -> Replay:
        capacity, recorded, ends_early = agent.schedule.replay_capacity_steps, agent.recorded, _ends_early(job.spec)
        if recordings is not None:
            physical = with_physics(environment)
            return PhysicsReplay(recordings, physical, capacity, recorded, ends_early=ends_early)
        entry, stack = _entry_format(environment), frames_in_stack(environment)
        return Replay(directory.replay, *entry, capacity, recorded, stack, ends_early=ends_early)

    replay = empty_replay()

    def accept(state: dict[str, Any]) -> None:
        nonlocal replay
        replay = empty_replay()
        replay.load(state["replay_episodes"])

    state, notes = _load_checkpoint(job, directory, accept)
    if state is None:
        replay = empty_replay()
    replay.discard_newer()
    return state, replay, notes


def _load_checkpoint(
    job: Job, directory: RunDirectory, accept: Callable[[dict[str, Any]], None] = lambda state: None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that goes with the run's logs, these cut back to it, and what was noticed.

    Without any checkpoint, what an attempt left is removed.
    """

    def accept_run(state: dict[str, Any]) -> None:
        if state["job"] != job.id:
            raise UserError(f"a checkpoint in {directory.checkpoints} is of run {state['job']}, not of {job.id}")
        directory.check_lengths(state["lengths"])
        accept(state)

    state, notes = load_latest(directory.checkpoints, accept_run)
    if state is None:
        directory.remove_progress()
    else:
        directory.cut_back(state["lengths"])
    return state, notes
