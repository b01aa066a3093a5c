"""What every loop that learns has in common: updates from a replay, snapshots, rows of train.jsonl and checkpoints."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from urlbench.core.durable import append_jsonl
from urlbench.core.interfaces import Agent
from urlbench.core.jobs import JobSpec
from urlbench.core.seeding import generator_state, set_generator_state, stream
from urlbench.episodes.replay import Replay
from urlbench.runs.budgets import budget_of
from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.store import RunDirectory
from urlbench.training.checkpoint import SnapshotHeader, save_checkpoint, save_snapshot, snapshot_path
from urlbench.training.metrics import EpisodeMetrics


class Interrupted(Exception):
    """The run was asked to stop, and has written a checkpoint."""


@dataclass
class Surroundings:
    """What a loop is told besides the job.

    Attributes:
        stop: returns why the run must stop, or an empty string; asked at every step.
        checkpoint_seconds: wall-clock time between checkpoints; does not change results.
    """

    directory: RunDirectory
    heartbeat: Heartbeat
    stop: Callable[[], str]
    checkpoint_seconds: float


class LearningLoop(ABC):
    """A run under way that updates an agent.

    Args:
        job_id: written into the checkpoints.
        spec: of the job.
        agent: learns.
        replay: what it learns from.
        surroundings: where files go and when to stop.
    """

    def __init__(self, job_id: str, spec: JobSpec, agent: Agent, replay: Replay, surroundings: Surroundings) -> None:
        self._job_id, self._spec, self._agent, self._replay = job_id, spec, agent, replay
        self._surroundings, self._directory = surroundings, surroundings.directory
        self._budget, self._schedule = budget_of(spec), agent.schedule
        self._streams: dict[str, np.random.Generator] = {"replay": stream(spec.seed, spec.phase, "replay")}
        self._metrics = EpisodeMetrics()
        self._updates = 0
        self._saved_snapshots: list[int] = []
        self._checkpointed: tuple[int, int] | None = None
        self._next_checkpoint = time.monotonic() + surroundings.checkpoint_seconds

    @property
    @abstractmethod
    def progress(self) -> int:
        """How far it is, in the unit of the status."""

    # --- learning ---

    def _can_update(self) -> bool:
        return all(map(self._replay.can_sample, self._schedule.sampled.values()))

    def _update(self) -> None:
        rng = self._streams["replay"]
        batches = {name: self._replay.sample(rng, batch) for name, batch in self._schedule.sampled.items()}
        self._metrics.add(self._agent.update(batches if self._schedule.batches else batches[""]))
        self._updates += 1

    def _log(self, row: Mapping[str, Any], when: str) -> None:
        """Append a row of train.jsonl, with the means of the updates since the one before, which were made `when`."""
        metrics = self._metrics.take_means(when)
        assert not metrics.keys() & row.keys(), f"metrics must not be called {', '.join(row)}"
        append_jsonl(self._directory.train_file, {**row, **metrics})

    def _save_due_snapshots(self) -> None:
        """Keep the agent for each threshold that was reached since this was called before."""
        for threshold in self._spec.protocol.snapshots:
            if threshold <= self.progress and threshold not in self._saved_snapshots:
                path = snapshot_path(self._directory.path, threshold)
                save_snapshot(path, SnapshotHeader.of(self._spec, threshold), self._agent.state_dict())
                self._saved_snapshots.append(threshold)

    # --- checkpoints ---

    def _maybe_checkpoint(self) -> None:
        if self._surroundings.stop():
            self._interrupt()
        if time.monotonic() >= self._next_checkpoint:
            self.checkpoint()

    def _interrupt(self) -> NoReturn:
        self.checkpoint()
        raise Interrupted(self._surroundings.stop())

    def checkpoint(self) -> None:
        """Save everything that the rest of the run depends on; nothing if all of this was saved already."""
        place = (self.progress, self._updates_here())
        if place != self._checkpointed:
            progress, updates = place
            save_checkpoint(self._directory.checkpoints, progress, self._state(), updates=updates)
            self._checkpointed = place
        self._next_checkpoint = time.monotonic() + self._surroundings.checkpoint_seconds

    def _updates_here(self) -> int:
        """How many updates were made since `progress` became what it is."""
        return 0

    def _state(self) -> dict[str, Any]:
        return {
            "job": self._job_id,
            "agent": self._agent.state_dict(),
            "updates": self._updates,
            "metrics": self._metrics.state_dict(),
            "streams": json.dumps({name: generator_state(rng) for name, rng in self._streams.items()}),
            "snapshots": list(self._saved_snapshots),
            "lengths": self._directory.lengths(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._agent.load_state_dict(state["agent"])
        self._updates = state["updates"]
        self._metrics.load_state_dict(state["metrics"])
        for name, saved in json.loads(state["streams"]).items():
            set_generator_state(self._streams[name], saved)
        self._saved_snapshots = list(state["snapshots"])
