"""Collecting a data set: the reward-free pretraining of an agent, with every episode and its physics kept.

The run lies in the data set's folder, in `run`, and is continued like every other run. The episodes are those that an
uninterrupted collection gives, bit for bit, and the index is written when all of them are there.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from urlbench.core import exorl
from urlbench.core.config import agent_changes, plain_values, pretraining_of, resolve_config
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.identity import job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.core.registry import load_agent, load_attribute, load_plugin, load_suite
from urlbench.core.requirements import suite_versions
from urlbench.core.types import Protocol, Spec
from urlbench.episodes.datasets import (
    BUFFER_NAME,
    INDEX_NAME,
    Dataset,
    DatasetIndex,
    Origin,
    dataset_folder,
    describe_file,
    episode_files,
    write_index,
)
from urlbench.episodes.format import array_formats, format_of, read_arrays
from urlbench.runs.plan import MAX_SEED
from urlbench.runs.store import RunDirectory

RUN_NAME = "run"
_BUDGETS_OF = "urlb-states"


class CollectionRequest(Spec):
    """What a user asks for.

    Attributes:
        transitions: rounded up to whole episodes.
        preset: of the agent's configuration.
        overrides: `agent.key=value`.
    """

    domain: str
    agent: str
    collection: str
    transitions: int
    seed: int = 0
    preset: str = "paper"
    overrides: tuple[str, ...] = ()
    config_file: str | None = None
    plugins: tuple[str, ...] = ()


def collection_job(request: CollectionRequest, root: Path) -> Job:
    """The run that collects what is asked for.

    Raises:
        UserError: for every name or number that does not fit.
    """
    for plugin in request.plugins:
        load_plugin(plugin)
    length = format_of(request.domain).length
    if request.transitions <= 0:
        raise UserError(f"--transitions {request.transitions} asks for nothing; an episode has {length} of them.")
    if not 0 <= request.seed <= MAX_SEED:
        raise UserError(f"--seed {request.seed} does not fit; environments take seeds from 0 to {MAX_SEED}.")
    suite, agent = load_suite(exorl.suite_name(exorl.MAIN_METHOD)), load_agent(request.agent)
    if suite.observation not in agent.observations:
        raise UserError(
            f"agent {agent.name!r} runs on {' and '.join(agent.observations)}, and data sets hold {suite.observation}; "
            "choose another of: urlbench list agents"
        )
    protocols = load_suite(_BUDGETS_OF).protocols
    if request.preset not in protocols:
        raise unknown_name("preset", request.preset, protocols)
    frames = -(-request.transitions // length) * length
    protocol = {**protocols[request.preset].model_dump(), "pretrain_frames": frames, "snapshots": (frames,)}
    primal_task = suite.domain(request.domain).primal_task
    assert primal_task is not None, f"{suite.name} pretrains in every domain"
    changes = agent_changes((agent.name,), request.overrides, request.config_file)
    agent, config = pretraining_of(agent, plain_values(resolve_config(agent, request.preset, changes[agent.name])))
    spec = JobSpec(
        suite=suite.full_name,
        observation=suite.observation,
        action_repeat=suite.action_repeat,
        agent=agent.name,
        agent_config=config,
        protocol=Protocol.model_validate(protocol),
        phase="pretrain",
        domain=request.domain,
        task=primal_task,
        seed=request.seed,
        versions=suite_versions(suite),
    )
    folder = dataset_folder(root, request.domain, request.collection)
    path = (folder / RUN_NAME).relative_to(root).as_posix()
    return Job(id=job_id(spec), path=path, spec=spec, plugins=request.plugins)


def prepare_collection(request: CollectionRequest, root: Path) -> tuple[Job, RunDirectory]:
    """The run with its folder, ready to be run or continued.

    Raises:
        UserError: also if the folder holds another data set; nothing of it is changed.
    """
    job = collection_job(request, root)
    directory = RunDirectory(root / job.path)
    folder = directory.path.parent
    if not directory.spec_file.exists() and (
        (folder / INDEX_NAME).exists() or any((folder / BUFFER_NAME).glob("*.npz"))
    ):
        raise UserError(f"{folder} holds episodes from elsewhere; choose another name with --collection.")
    directory.prepare(job, "choose another name with --collection, or remove the folder to collect anew")
    return job, directory


def collect(
    request: CollectionRequest,
    root: Path,
    *,
    threads: int = 1,
    device: str = "cpu",
    stop: Callable[[], str] = lambda: "",
    **options: Any,
) -> Dataset | None:
    """Collect what is not collected yet, and index it.

    Args:
        request: what to collect.
        root: folder of all data sets.
        threads: of torch.
        device: a torch device string, or `auto`.
        stop: returns why to stop, or an empty string.
        options: of `run_job`.

    Returns:
        The data set; None if `stop` ended the run, which the same call continues.

    Raises:
        UserError: if the request does not fit, or if the run fails.
    """
    from urlbench.training.job import run_job  # only here: it imports torch

    job, directory = prepare_collection(request, root)
    folder = directory.path.parent
    with directory.lock():
        outcome = run_job(
            job,
            directory,
            runs_root=root,
            threads=threads,
            device=device,
            stop=stop,
            recordings=folder / BUFFER_NAME,
            **options,
        )
        if outcome != "done":
            return None
        return Dataset(folder) if (folder / INDEX_NAME).exists() else _index(job, request.collection, folder)


def _index(job: Job, collection: str, folder: Path) -> Dataset:
    spec = job.spec
    paths = episode_files(folder / BUFFER_NAME)
    files = tuple(map(describe_file, paths))
    frames = sum(file.length for file in files)
    if frames != spec.protocol.pretrain_frames:
        raise UserError(
            f"{folder / BUFFER_NAME} holds {frames} transitions and {spec.protocol.pretrain_frames} were collected; "
            "restore the files, or remove the folder to collect anew."
        )
    details = {
        "run": job.id,
        "seed": spec.seed,
        "preset": spec.protocol.preset,
        "agent_config": spec.agent_config,
    }
    variant = load_attribute("urlbench.suites.dmc.urlb_offline:JACO_VARIANT") if spec.domain == "jaco" else None
    index = DatasetIndex(
        domain=spec.domain,
        collection=collection,
        origin=Origin(kind="collected", source=spec.agent, details=details),
        task=spec.task,
        variant=variant,
        simulator=spec.versions,
        arrays=array_formats(read_arrays(paths[0].read_bytes(), paths[0].name)),
        files=files,
    )
    return write_index(folder, index)
