"""Pretraining from a data set: updates and nothing else, and the continuing of an interrupted run.

Source: offline pretraining of Choreographer (Mazzaglia et al. 2023, sec. 4.1, app. B.2): the first files of a data set
by name, until they hold the transitions asked for, are the replay, and every update samples from all of it.
"""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from urlbench.core.durable import append_jsonl
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent
from urlbench.core.seeding import generator_state, set_generator_state, stream
from urlbench.core.types import JobSpec
from urlbench.episodes.datasets import Dataset
from urlbench.episodes.replay import Replay
from urlbench.runs.budgets import budget_of
from urlbench.training.checkpoint import SnapshotHeader, save_checkpoint, save_snapshot, snapshot_path
from urlbench.training.loop import Interrupted, Surroundings
from urlbench.training.metrics import EpisodeMetrics

LOG_EVERY_UPDATES = 100
RESERVED_COLUMNS = ("updates",)


def fill_replay(replay: Replay, folder: str | None, spec: JobSpec, stop: Callable[[], str] = lambda: "") -> None:
    """Put the data that the job's identity names into `replay`, every file checked against it.

    Args:
        replay: empty, without a folder.
        folder: of the data set.
        spec: of the job; `data` is the fingerprint and `protocol.data_transitions` says how much is taken.
        stop: as in `Surroundings`; asked before every file.

    Raises:
        UserError: if there is no such data set, if it is another one by now, or if a file of it is damaged.
        Interrupted: if `stop` says so.
    """
    assert folder is not None, "a job that pretrains from data knows where they are"
    dataset, transitions = Dataset(Path(folder)), spec.protocol.data_transitions
    if dataset.fingerprint(transitions) != spec.data:
        raise UserError(
            f"the data set {folder} is not the one that this run was planned with: its fingerprint is another; "
            "restore it, or run with --rerun stale to move this run aside and pretrain on what is there now."
        )
    for file in dataset.first_files(transitions):
        if reason := stop():
            raise Interrupted(reason)
        replay.add_file(dataset.read(file), dataset.buffer / file.name, file.length)


class OfflineLoop:
    """An offline pretraining under way.

    Args:
        job_id: written into the checkpoints.
        spec: of the job.
        agent: learns.
        replay: the data.
        surroundings: where files go and when to stop.

    Attributes:
        progress: updates so far.
    """

    def __init__(self, job_id: str, spec: JobSpec, agent: Agent, replay: Replay, surroundings: Surroundings) -> None:
        self._job_id, self._spec, self._agent, self._replay = job_id, spec, agent, replay
        self._surroundings, self._directory = surroundings, surroundings.directory
        self._budget = budget_of(spec)
        self._rng = stream(spec.seed, spec.phase, "replay")
        self._metrics = EpisodeMetrics()
        self.progress = 0
        self._saved_snapshots: list[int] = []
        self._checkpointed = -1
        self._next_checkpoint = time.monotonic() + surroundings.checkpoint_seconds

    def run(self) -> None:
        """Go on to the end of the budget.

        Raises:
            Interrupted: if the surroundings asked to stop; a checkpoint is written.
            UserError: if metrics are not finite, no episode is long enough, or a file cannot be written.
        """
        schedule = self._agent.schedule
        if not self._replay.can_sample(schedule.batch_length):
            raise UserError(
                f"no episode of the data set has {schedule.batch_length} steps, which the agent's batches ask for; "
                "choose a smaller batch_length, or other data."
            )
        while self.progress < self._budget:
            self._maybe_checkpoint()
            self._surroundings.heartbeat.beat(self.progress)
            batch = self._replay.sample(self._rng, schedule.batch_size, schedule.batch_length)
            self._metrics.add(self._agent.update(batch))
            self.progress += 1
            if self.progress % LOG_EVERY_UPDATES == 0 or self.progress == self._budget:
                self._log()
            if self.progress in self._spec.protocol.snapshots and self.progress not in self._saved_snapshots:
                path = snapshot_path(self._directory.path, self.progress)
                save_snapshot(path, SnapshotHeader.of(self._spec, self.progress), self._agent.state_dict())
                self._saved_snapshots.append(self.progress)

    def _log(self) -> None:
        """A row of train.jsonl: means over the updates since the row before."""
        metrics = self._metrics.take_means(f"in the updates up to {self.progress}")
        assert not metrics.keys() & set(RESERVED_COLUMNS), f"metrics must not be called {RESERVED_COLUMNS}"
        append_jsonl(self._directory.train_file, {"updates": self.progress} | metrics)

    # --- checkpoints ---

    def _maybe_checkpoint(self) -> None:
        if reason := self._surroundings.stop():
            self.checkpoint()
            raise Interrupted(reason)
        if time.monotonic() >= self._next_checkpoint:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Save everything that the rest of the run depends on; nothing if this update was saved already."""
        if self.progress != self._checkpointed:
            save_checkpoint(self._directory.checkpoints, self.progress, self._state())
            self._checkpointed = self.progress
        self._next_checkpoint = time.monotonic() + self._surroundings.checkpoint_seconds

    def _state(self) -> dict[str, Any]:
        return {
            "job": self._job_id,
            "updates": self.progress,
            "agent": self._agent.state_dict(),
            "metrics": self._metrics.state_dict(),
            "stream": json.dumps(generator_state(self._rng)),
            "snapshots": list(self._saved_snapshots),
            "lengths": self._directory.lengths(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; the replay holds the same data as then."""
        self._agent.load_state_dict(state["agent"])
        self._metrics.load_state_dict(state["metrics"])
        set_generator_state(self._rng, json.loads(state["stream"]))
        self.progress = self._checkpointed = state["updates"]
        self._saved_snapshots = list(state["snapshots"])
