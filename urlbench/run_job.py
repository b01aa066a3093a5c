"""Everything about running one job in its directory: building it, continuing it, recording how it ended."""

import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import torch

from urlbench.checkpoint import SnapshotHeader, load_latest, load_snapshot, snapshot_digest, snapshot_path
from urlbench.durable import remove_temporaries, write_atomic
from urlbench.errors import UserError
from urlbench.heartbeat import Heartbeat
from urlbench.manifest import collect_manifest, manifest_json
from urlbench.registry import load_agent, load_attribute, load_suite
from urlbench.replay import Replay
from urlbench.runner import Interrupted, Surroundings, TrainingLoop
from urlbench.store import RunDirectory, RunState, Status, queued_status
from urlbench.types import Agent, AgentContext, Environment, Job, JobSpec

CHECKPOINT_SECONDS = 120.0


def run_job(
    job: Job,
    directory: RunDirectory,
    *,
    runs_root: Path,
    threads: int = 1,
    device: str = "cpu",
    stop: Callable[[], str] = lambda: "",
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
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

    Returns:
        `interrupted` if `stop` ended the run; it can be continued.

    Raises:
        UserError: a failure with a reason that a user can do something about; recorded in the directory.
        Exception: any other failure; recorded, too.
    """
    if directory.is_done():
        directory.remove_working_files()
        return "done"
    record = _Record(
        directory,
        queued_status(job.spec).model_copy(update={"pid": os.getpid(), "host": socket.gethostname()}),
    )
    try:
        record.write("running")
        remove_temporaries(directory.path)
        device = _set_up_torch(device, threads)
        _check_versions(job.spec)
        environment, evaluation_environment = _build_environments(job.spec)
        agent, parent = _build_agent(job, environment, runs_root, device)
        state, replay, notes = _load_progress(job, directory, environment, agent)
        record.begin(state["step"] * job.spec.action_repeat if state else 0, notes)
        if not directory.manifest_file.exists():
            manifest = collect_manifest(device=device, threads=threads, parent=parent)
            write_atomic(directory.manifest_file, manifest_json(manifest))
        surroundings = Surroundings(directory, Heartbeat(directory, record.status), stop, checkpoint_seconds)
        loop = TrainingLoop(job.id, job.spec, agent, environment, evaluation_environment, replay, surroundings)
        if state is not None:
            loop.restore(state)
            state = None  # large, and in the loop by now
        try:
            loop.run()
        finally:
            record.frame = loop.frame
        directory.finish(loop.frame)
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
        self._directory, self.status, self.frame = directory, status, 0

    def write(self, state: RunState, message: str = "") -> None:
        """The status, with the frame and message as they are now."""
        changes = {"state": state, "progress": self.frame, "message": message}
        self._directory.write_status(self.status.model_copy(update=changes))

    def begin(self, frame: int, notes: Sequence[str]) -> None:
        """A start from `frame`, with what was noticed on the way."""
        self.frame = frame
        attempt = self._directory.begin_attempt(frame, notes)
        self.status = self.status.model_copy(update={"attempt": attempt, "progress": frame})
        for note in notes:
            print(note, flush=True)
        print(f"attempt {attempt} starts at frame {frame} of {self.status.budget}", flush=True)

    def end(self, state: RunState, reason: str) -> None:
        """The end of the attempt."""
        print(f"attempt {self.status.attempt} ends at frame {self.frame}: {reason}", flush=True)
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


def _set_up_torch(device: str, threads: int) -> str:
    """The device to use; deterministic algorithms where that is free, which is the CPU."""
    torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device cuda was asked for and torch finds no GPU; use --device cpu.")
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return device


def _check_versions(spec: JobSpec) -> None:
    """UserError if the suite or its packages are not those that the job's identity names."""
    suite = load_suite(spec.suite.partition("@")[0])
    if suite.full_name != spec.suite:
        raise UserError(f"the run is of suite {spec.suite} and {suite.full_name} is installed; plan it again.")
    for package, version in spec.versions.items():
        installed = metadata.version(package)
        if installed != version:
            raise UserError(
                f"the run was planned with {package} {version} and {installed} is installed; "
                f"install {package}=={version}, or plan it again in another runs folder."
            )


def _build_environments(spec: JobSpec) -> tuple[Environment, Environment | None]:
    """For training and, when fine-tuning, for evaluation; both from the run's seed, as published."""
    protocol, repeat, suite = spec.protocol, spec.action_repeat, load_suite(spec.suite.partition("@")[0])
    for name in ("pretrain_frames", "finetune_frames", "eval_every_frames"):
        if getattr(protocol, name) % repeat:
            raise UserError(f"{name} {getattr(protocol, name)} is not a multiple of the action repeat {repeat}.")
    options: dict[str, Any] = {"image": spec.image} if suite.observation == "pixels" else {}
    if suite.goal_sets is not None:
        options["goal_set"] = spec.goal_set
    make = partial(load_attribute(suite.environment), spec.task, spec.seed, repeat, **options)
    return make(), make() if spec.phase == "finetune" else None


def _build_agent(
    job: Job, environment: Environment, runs_root: Path, device: str
) -> tuple[Agent, dict[str, str] | None]:
    """The agent of the job's phase, and for the manifest what it starts from."""
    spec = job.spec
    description = load_agent(spec.agent)
    context = AgentContext(
        observation_kind=spec.observation,
        observation_shape=environment.observation_shape,
        action_dim=environment.action_dim,
        action_repeat=spec.action_repeat,
        seed=spec.seed,
        device=device,
    )
    agent = description.build(context, description.config.model_validate(spec.agent_config))
    if spec.phase == "pretrain":
        return agent, None
    parent = None
    if job.parent_path is not None:
        directory = RunDirectory(runs_root / job.parent_path)
        if not directory.is_done():
            raise UserError(f"its pretraining {job.parent_path} is not finished; run it first, with --phase all.")
        pretraining = directory.read_job(runs_root)
        if pretraining.id != spec.parent:
            raise UserError(f"{job.parent_path} holds run {pretraining.id} and this run starts from {spec.parent}.")
        path = snapshot_path(directory.path, spec.snapshot)
        agent.load_state_dict(load_snapshot(path, SnapshotHeader.of(pretraining.spec, spec.snapshot)))
        parent = {"id": pretraining.id, "path": job.parent_path, "snapshot_sha256": snapshot_digest(path)}
    return agent.for_finetuning(context), parent


def _load_progress(
    job: Job, directory: RunDirectory, environment: Environment, agent: Agent
) -> tuple[dict[str, Any] | None, Replay, list[str]]:
    """The newest checkpoint that goes with the run's other files, these cut back to it, and what was noticed."""

    def empty_replay() -> Replay:
        return Replay(
            directory.replay,
            environment.observation_shape,
            environment.observation_dtype,
            environment.action_dim,
            agent.schedule.replay_capacity_steps,
            agent.recorded,
        )

    replay = empty_replay()

    def accept(state: dict[str, Any]) -> None:
        nonlocal replay
        if state["job"] != job.id:
            raise UserError(f"a checkpoint in {directory.checkpoints} is of run {state['job']}, not of {job.id}")
        directory.check_lengths(state["lengths"])
        replay = empty_replay()
        replay.load(state["replay_episodes"])

    state, notes = load_latest(directory.checkpoints, accept)
    if state is None:
        directory.remove_progress()
        return None, replay, notes
    directory.cut_back(state["lengths"])
    replay.discard_newer()
    return state, replay, notes
