"""The replay of a fine-tuning that goes on from another task: the episodes of the training there, relabelled.

Source: the transfers of LSP (Xie et al. 2021, "Latent Skill Planning for Exploration and Transfer", sec. 4), where the
rewards in the replay are recomputed with the reward function of the target.
"""

import hashlib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from urlbench.core.durable import write_atomic
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Environment, PhysicsEnvironment
from urlbench.core.jobs import Job
from urlbench.episodes.datasets import EpisodeFile, describe_file, episode_files
from urlbench.episodes.format import read_arrays
from urlbench.episodes.physics import rewards_again
from urlbench.episodes.replay import Replay
from urlbench.runs.store import RunDirectory
from urlbench.training.learning import Interrupted, Surroundings

_INDEX = TypeAdapter(tuple[EpisodeFile, ...])


def with_physics(environment: Environment) -> PhysicsEnvironment:
    """The environment, if the state of its physics can be read and set; else UserError."""
    if not isinstance(environment, PhysicsEnvironment):
        raise UserError(
            f"{type(environment).__name__} does not tell the state of its physics, which relabelled episodes are made "
            "from; give it the methods of PhysicsEnvironment, or let the task's initial_replay be empty."
        )
    return environment


def index_episodes(directory: RunDirectory) -> None:
    """Write down which episodes a run that ends has kept; each is read for that."""
    files = tuple(map(describe_file, episode_files(directory.episodes)))
    write_atomic(directory.episodes_file, _INDEX.dump_json(files, indent=1) + b"\n")


def fill_relabelled(
    replay: Replay,
    job: Job,
    runs_root: Path,
    environment: Environment,
    surroundings: Surroundings,
) -> None:
    """Put what the training on the source has played into `replay`, with the rewards of the job's task.

    Only episodes from before the snapshot that the job starts from, and no more than the replay holds.

    Args:
        replay: empty; it writes its files as if the episodes were the job's own, so that they are there to continue.
        job: of the fine-tuning.
        runs_root: where the parent's directory is found.
        environment: of the job's task; another one than that of its training.
        surroundings: asked whether to stop before every episode.

    Raises:
        UserError: if an episode is missing or is another one by now, or if the environment cannot give rewards.
        Interrupted: if the surroundings say so; the replay is then to be filled anew.
    """
    assert job.parent_path is not None, f"{job.label} starts from no other training"
    parent, relabelling = RunDirectory(runs_root / job.parent_path), with_physics(environment)
    for file in _newest(_before(_index(parent), job), replay.capacity_steps):
        surroundings.heartbeat.beat(0)
        if reason := surroundings.stop():
            raise Interrupted(reason)
        path = parent.episodes / file.name
        content = _content(path, file)
        arrays = read_arrays(content, str(path))
        replay.add_file(content, path, file.length, rewards_again(relabelling, arrays["physics"], arrays["action"]))


def _index(parent: RunDirectory) -> tuple[EpisodeFile, ...]:
    try:
        return _INDEX.validate_json(parent.episodes_file.read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{parent.episodes_file} cannot be read ({type(error).__name__}); restore it, or move the folder "
            f"{parent.path} away to train on the source anew."
        ) from error


def _before(files: tuple[EpisodeFile, ...], job: Job) -> list[EpisodeFile]:
    """Those that were complete when the snapshot was kept: at the first end of an episode at or after its frames."""
    chosen, frames = [], 0
    for file in files:
        if frames >= job.spec.snapshot:
            break
        chosen.append(file)
        frames += file.length * job.spec.action_repeat
    return chosen


def _newest(files: list[EpisodeFile], most_steps: int) -> list[EpisodeFile]:
    """The longest tail within the capacity, at least one."""
    first, steps = len(files), 0
    while first > 0 and (steps + files[first - 1].length <= most_steps or first == len(files)):
        first -= 1
        steps += files[first].length
    return files[first:]


def _content(path: Path, file: EpisodeFile) -> bytes:
    remedy = f"restore it, or move the folder {path.parent.parent} away to train on the source anew"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"the episode {path} of the source cannot be read: {error.strerror}; {remedy}.") from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise UserError(f"the episode {path} of the source is not what was recorded: its SHA-256 is another; {remedy}.")
    return content
