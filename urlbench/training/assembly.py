"""Puts the parts of a job together: settings of torch, environments, agents."""

import ctypes
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from urlbench.core.config import pretraining_of
from urlbench.core.errors import UserError
from urlbench.core.interfaces import (
    Agent,
    AgentConfig,
    AgentContext,
    Environment,
    JudgedEnvironment,
    Precision,
    Schedule,
)
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.precision import check_effect, set_products
from urlbench.core.registry import load_agent, load_suite, make_environment
from urlbench.core.requirements import check_requirements
from urlbench.core.types import OUTCOMES, Suite
from urlbench.runs.store import RunDirectory
from urlbench.training.checkpoint import SnapshotHeader, load_snapshot, snapshot_digest, snapshot_path

_BUDGETS = ("pretrain_frames", "finetune_frames", "eval_every_frames")


def suite_of(spec: JobSpec) -> Suite:
    """The installed suite of that name, of whatever version."""
    return load_suite(spec.suite.partition("@")[0])


def precision_of(spec: JobSpec) -> Precision:
    """What the job's products are computed in; float32 for agents whose configuration has no such setting."""
    config = load_agent(spec.agent).config.model_validate(spec.agent_config)
    return config.precision if isinstance(config, AgentConfig) else "float32"


def set_up_torch(device: str, threads: int, precision: Precision = "float32") -> str:
    """The device to use; deterministic algorithms where that is free, which is the CPU.

    Raises:
        UserError: if there is no such device, or if `precision` does nothing on it.
    """
    torch.set_num_threads(threads)
    keep_freed_memory()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device cuda was asked for and torch finds no GPU; use --device cpu.")
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    check_effect(precision, device)
    set_products(precision)
    return device


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is allocated next; elsewhere nothing.

    As it comes, it gives large blocks back to the system at once, which clears each page of the next ones anew: for the
    temporary tensors of an update that is about a tenth of its time (docs/performance.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option, size in ((_M_MMAP_THRESHOLD, 2**29), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(option, size)


def check_versions(spec: JobSpec) -> None:
    """UserError if the suite or its packages are not those that the job's identity names."""
    suite = suite_of(spec)
    check_requirements(suite)
    if suite.full_name != spec.suite:
        raise UserError(f"the run is of suite {spec.suite} and {suite.full_name} is installed; plan it again.")
    for package, version in spec.versions.items():
        installed = metadata.version(package)
        if installed != version:
            raise UserError(
                f"the run was planned with {package} {version} and {installed} is installed; "
                f"install {package}=={version}, or plan it again in another runs folder."
            )


def check_budgets(spec: JobSpec) -> None:
    """UserError if the action repeat does not divide the budgets in frames and the length of the episodes."""
    values = {name: getattr(spec.protocol, name) for name in _BUDGETS}
    values["max_episode_frames"] = suite_of(spec).domain(spec.domain).max_episode_frames
    for name, frames in values.items():
        if frames % spec.action_repeat:
            raise UserError(f"{name} {frames} is not a multiple of the action repeat {spec.action_repeat}.")


def check_outcome(spec: JobSpec, environment: Environment) -> None:
    """UserError if the environment does not tell of an episode what the score of the job's suite needs."""
    suite = suite_of(spec)
    if suite.score in OUTCOMES and not isinstance(environment, JudgedEnvironment):
        raise not_told(suite)


def not_told(suite: Suite) -> UserError:
    """The error of a suite whose environment does not tell how an episode went."""
    return UserError(
        f"suite {suite.full_name} has score {suite.score}, and its environment does not tell {OUTCOMES[suite.score]!r} "
        "of an episode; give it an outcome() that does, or declare another score."
    )


def check_windows(spec: JobSpec, schedule: Schedule) -> None:
    """UserError if episodes, all of one length, are shorter than an agent's windows: it would never learn."""
    domain = suite_of(spec).domain(spec.domain)
    steps = domain.max_episode_frames // spec.action_repeat
    if domain.ends_early or schedule.update_every_frames is None:
        return
    for batch in schedule.sampled.values():
        if batch.least_steps > steps:
            raise UserError(
                f"agent {spec.agent!r} learns from episodes of at least {batch.least_steps} steps, and those of domain "
                f"{domain.name!r} in suite {spec.suite} have {steps}, so it would never learn; choose a smaller "
                "batch_length."
            )


def build_environment(spec: JobSpec) -> Environment:
    """The environment of the job's task, its random stream started from the run's seed, as published."""
    return make_environment(suite_of(spec), spec.task, spec.seed, image=spec.image, goal_set=spec.goal_set)


def build_agent(
    job: Job, environment: Environment, runs_root: Path, device: str
) -> tuple[Agent, dict[str, str] | None]:
    """The agent of the job's phase with what its pretraining has learned, and for the manifest what that is.

    Raises:
        UserError: if the pretraining is not finished, is another one, or if its snapshot is not as it should be.
    """
    spec = job.spec
    agent, parent = _pretraining_agent(spec, environment, device), None
    if spec.transfer is not None:
        agent = agent.for_finetuning(_context(spec, environment, device))  # what was trained on the source
    if job.parent_path is not None:
        directory = RunDirectory(runs_root / job.parent_path)
        if not directory.is_done():
            raise UserError(f"its pretraining {job.parent_path} is not finished; run it first, with --phase all.")
        pretraining = directory.read_job(runs_root)
        if pretraining.id != job.spec.parent:
            raise UserError(_another_pretraining(job, pretraining))
        path = snapshot_path(directory.path, job.spec.snapshot)
        _load_into(agent, path, load_snapshot(path, SnapshotHeader.of(pretraining.spec, job.spec.snapshot)))
        parent = {"id": pretraining.id, "path": job.parent_path, "snapshot_sha256": snapshot_digest(path)}
    if spec.transfer is not None:
        return agent.for_transfer(_context(spec, environment, device)), parent
    return _of_phase(agent, spec, environment, device), parent


def _another_pretraining(job: Job, found: Job) -> str:
    wanted = {
        name: getattr(job.spec, name) for name in ("agent", "agent_config", "domain", "observation", "seed", "versions")
    }
    if job.spec.transfer is None:
        maker, settings = pretraining_of(load_agent(job.spec.agent), job.spec.agent_config)
        wanted |= {"agent": maker.name, "agent_config": settings}
    else:
        wanted |= {"task": job.spec.transfer.source}
    differing = [name for name, value in wanted.items() if getattr(found.spec, name) != value]
    return (
        f"{job.parent_path} holds another pretraining than the one this run starts from ({found.id}, not "
        f"{job.spec.parent}; it differs in {', '.join(differing) or 'its protocol or data'}); put the right one there, "
        "or move that folder away to pretrain anew."
    )


def _load_into(agent: Agent, path: Path, state: dict[str, Any]) -> None:
    try:
        agent.load_state_dict(state)
    except (KeyError, RuntimeError, ValueError) as error:
        # Settings are part of the identity and the code is not.
        reason = f"{type(error).__name__}: {error}".splitlines()[-1].strip()
        raise UserError(
            f"the snapshot {path} does not fit its agent's code, which has changed since ({reason}); "
            "go back to that code, or choose another folder with --runs to pretrain anew."
        ) from error


def build_untrained_agent(spec: JobSpec, environment: Environment, device: str) -> Agent:
    """The agent of the job's phase as it is made, for whoever loads its state next."""
    agent = _of_phase(_pretraining_agent(spec, environment, device), spec, environment, device)
    return agent.for_transfer(_context(spec, environment, device)) if spec.transfer is not None else agent


def _pretraining_agent(spec: JobSpec, environment: Environment, device: str) -> Agent:
    description = load_agent(spec.agent)
    # An agent that was pretrained on data has no exploration policy in its snapshots.
    context = replace(_context(spec, environment, device), collects=not spec.protocol.pretrain_updates)
    return description.build(context, description.config.model_validate(spec.agent_config))


def _of_phase(agent: Agent, spec: JobSpec, environment: Environment, device: str) -> Agent:
    return agent.for_finetuning(_context(spec, environment, device)) if spec.learns == "finetune" else agent


def _context(spec: JobSpec, environment: Environment, device: str) -> AgentContext:
    return AgentContext(
        observation_kind=spec.observation,
        observation_shape=environment.observation_shape,
        action_dim=environment.action_dim,
        action_repeat=spec.action_repeat,
        seed=spec.seed,
        ends_early=suite_of(spec).domain(spec.domain).ends_early,
        device=device,
    )
