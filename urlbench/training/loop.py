"""The one loop that pretrains, fine-tunes and evaluates, and the continuing of an interrupted run.

Source of the order inside an iteration: the published loops of URLB and Choreographer (act, update, step, store).
All budgets are in frames; a step is `action_repeat` of them.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from urlbench.core.durable import append_jsonl
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, Array, Environment, Schedule, TimeStep
from urlbench.core.seeding import derive_seed, generator_state, set_generator_state, stream
from urlbench.core.types import JobSpec
from urlbench.episodes.replay import Replay, aligned
from urlbench.runs.budgets import budget_of
from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.store import RunDirectory
from urlbench.training.checkpoint import SnapshotHeader, save_checkpoint, save_snapshot, snapshot_path
from urlbench.training.evaluation import FinetuningEvaluation
from urlbench.training.metrics import EpisodeMetrics

RESERVED_COLUMNS = ("frame", "episode", "return", "updates")


class Interrupted(Exception):
    """The run was asked to stop, and has written a checkpoint."""


class _StopAsked(Exception):
    """Leaves an evaluation at once; the checkpoint is the one of before the evaluation."""


def updates_due(frame: int, action_repeat: int, schedule: Schedule) -> int:
    """How many updates the schedule asks for at `frame`: one for each multiple of its period since the last step.

    With a period that is a multiple of the action repeat, that is one whenever it divides `frame`.
    """
    period = schedule.update_every_frames
    if period is None or frame < schedule.seed_frames:
        return 0
    return frame // period - (frame - action_repeat) // period


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


class TrainingLoop:
    """A run under way.

    Args:
        job_id: written into the checkpoints.
        spec: of the job.
        agent: learns and acts.
        environment: for training.
        evaluation: None when pretraining.
        replay: empty, or loaded as the checkpoint says.
        surroundings: where files go and when to stop.

    Attributes:
        step: agent steps so far.
    """

    def __init__(
        self,
        job_id: str,
        spec: JobSpec,
        agent: Agent,
        environment: Environment,
        evaluation: FinetuningEvaluation | None,
        replay: Replay,
        surroundings: Surroundings,
    ) -> None:
        self._job_id, self._spec, self._agent, self._replay = job_id, spec, agent, replay
        self._environment, self._evaluation = environment, evaluation
        self._surroundings = surroundings
        self._directory = surroundings.directory
        self._budget = budget_of(spec)
        self._schedule = agent.schedule
        self._random_actions = spec.learns in self._schedule.random_action_phases
        self._action_bound = 1.0 if self._schedule.seed_action_bound == "one" else float(environment.action_dim)
        self._streams = {name: stream(spec.seed, spec.phase, name) for name in ("replay", "seed_actions")}
        self._actor = agent.actor(evaluation=False, seed=derive_seed(spec.seed, spec.phase, "actor"))
        self._metrics = EpisodeMetrics()
        self.step, self._episode, self._updates, self._return = 0, 0, 0, 0.0
        self._saved_snapshots: list[int] = []
        self._timestep: TimeStep | None = None
        self._episode_start: dict[str, Any] = {}
        self._actions: list[Array] = []
        self._recorded: list[Mapping[str, Array]] = []
        self._evaluation_start = None if evaluation is None else evaluation.random_state()
        self._checkpointed_step = -1
        self._next_checkpoint = time.monotonic() + surroundings.checkpoint_seconds

    @property
    def frame(self) -> int:
        """Frames so far."""
        return self.step * self._spec.action_repeat

    @property
    def progress(self) -> int:
        """Frames so far, as the status shows them."""
        return self.frame

    def run(self) -> None:
        """Go on to the end of the budget.

        Raises:
            Interrupted: if the surroundings asked to stop; a checkpoint is written.
            UserError: if returns or metrics are not finite, or a file cannot be written.
        """
        if self._timestep is None:
            self._timestep = self._begin_episode()
        while True:
            if self._timestep.is_last:
                self._end_episode()
                self._timestep = self._begin_episode()
            self._maybe_checkpoint()
            if (
                self._spec.phase == "finetune"
                and self.frame
                and self.frame % self._spec.protocol.eval_every_frames == 0
            ):
                self._evaluate()
            if self.frame >= self._budget:
                break
            self._timestep = self._advance(self._timestep)
        if self._spec.phase == "pretrain":
            self._save_due_snapshots()
        else:
            header = SnapshotHeader.of(self._spec, self._budget)
            save_snapshot(snapshot_path(self._directory.path, None), header, self._agent.state_dict())

    def _begin_episode(self) -> TimeStep:
        self._episode_start = self._environment.random_state()
        self._actions, self._recorded = [], []
        timestep = self._environment.reset()
        self._actor.begin_episode()
        self._store(timestep, None, self._actor.recorded())
        return timestep

    def _advance(self, timestep: TimeStep) -> TimeStep:
        """Act, update if it is due, and step."""
        frame = self.frame
        self._surroundings.heartbeat.beat(frame)
        self._actor.before_step(self.step)
        if self._random_actions and frame < self._schedule.seed_frames:
            bound = self._action_bound
            action = self._streams["seed_actions"].uniform(-bound, bound, self._environment.action_dim)
        else:
            action = self._actor.act(aligned(timestep.observation), self.step)
        # A copy of its own: actors may reuse their buffer, and these actions must be replayed bit for bit.
        action = np.array(action, np.float32)
        for _ in range(updates_due(frame, self._spec.action_repeat, self._schedule)):
            self._update()
        following = self._environment.step(action)
        self._store(following, action, self._actor.recorded())
        self.step += 1
        if not following.is_last:
            self._actor.after_step(self.step)
        return following

    def _store(self, timestep: TimeStep, action: Array | None, recorded: Mapping[str, Array]) -> None:
        self._replay.add(timestep, action, recorded)
        self._recorded.append({name: np.array(value, np.float32) for name, value in recorded.items()})
        if action is not None:
            self._actions.append(action)
        self._return += timestep.reward

    def _update(self) -> None:
        schedule = self._schedule
        if not self._replay.can_sample(schedule.batch_length):
            return
        batch = self._replay.sample(self._streams["replay"], schedule.batch_size, schedule.batch_length)
        self._metrics.add(self._agent.update(batch))
        self._updates += 1

    def _end_episode(self) -> None:
        metrics = self._metrics.take_means(f"in the episode that ended at frame {self.frame}")
        if not np.isfinite(self._return):
            raise UserError(f"the return of the episode that ended at frame {self.frame} is {self._return}.")
        assert not metrics.keys() & set(RESERVED_COLUMNS), f"metrics must not be called {RESERVED_COLUMNS}"
        row = {"frame": self.frame, "episode": self._episode, "return": self._return, "updates": self._updates}
        append_jsonl(self._directory.train_file, row | metrics)
        self._episode, self._return = self._episode + 1, 0.0
        if self._spec.phase == "pretrain":
            self._save_due_snapshots()

    def _save_due_snapshots(self) -> None:
        """Keep the agent at the first episode end at or after each threshold, and at the budget's end."""
        for frames in self._spec.protocol.snapshots:
            if frames <= self.frame and frames not in self._saved_snapshots:
                path = snapshot_path(self._directory.path, frames)
                save_snapshot(path, SnapshotHeader.of(self._spec, frames), self._agent.state_dict())
                self._saved_snapshots.append(frames)

    # --- evaluation ---

    def _evaluate(self) -> None:
        """Undiscounted returns of whole episodes with deterministic actions; training is left as it was."""
        assert self._evaluation is not None, "fine-tuning needs to be evaluated"
        try:
            returns = self._evaluation.returns(self._agent, self.frame, self._tick)
        except _StopAsked:
            self._interrupt()
        if not np.all(np.isfinite(returns)):
            raise UserError(f"an evaluation at frame {self.frame} gave the returns {returns}.")
        row = {"frame": self.frame, "task": self._spec.task, "returns": returns, "mean": float(np.mean(returns))}
        append_jsonl(self._directory.eval_file, row)
        self._evaluation_start = self._evaluation.random_state()

    def _tick(self) -> None:
        self._surroundings.heartbeat.beat(self.frame)
        if self._surroundings.stop():
            raise _StopAsked

    # --- checkpoints ---

    def _maybe_checkpoint(self) -> None:
        if self._surroundings.stop():
            self._interrupt()
        if time.monotonic() >= self._next_checkpoint:
            self.checkpoint()

    def _interrupt(self) -> None:
        self.checkpoint()
        raise Interrupted(self._surroundings.stop())

    def checkpoint(self) -> None:
        """Save everything that the rest of the run depends on; nothing if this step was saved already."""
        if self.step != self._checkpointed_step:
            save_checkpoint(self._directory.checkpoints, self.frame, self._state())
            self._checkpointed_step = self.step
        self._next_checkpoint = time.monotonic() + self._surroundings.checkpoint_seconds

    def _state(self) -> dict[str, Any]:
        assert self._timestep is not None, "there is nothing to save before the first episode"
        return {
            "job": self._job_id,
            "step": self.step,
            "episode": self._episode,
            "updates": self._updates,
            "return": self._return,
            "agent": self._agent.state_dict(),
            "actor": self._actor.state_dict(),
            "metrics": self._metrics.state_dict(),
            "streams": json.dumps({name: generator_state(rng) for name, rng in self._streams.items()}),
            "environment": json.dumps(self._episode_start),
            "evaluation_environment": json.dumps(self._evaluation_start),
            "actions": torch.tensor(np.array(self._actions, np.float32)),
            "recorded": {
                name: torch.tensor(np.stack([entry[name] for entry in self._recorded])) for name in self._recorded[0]
            },
            "observation": torch.tensor(self._timestep.observation),
            "snapshots": list(self._saved_snapshots),
            "replay_episodes": self._replay.episodes,
            "lengths": self._directory.lengths(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint: the episode under way is played again from its start with its actions.

        Raises:
            UserError: if the environment does not play as it did when the checkpoint was written.
        """
        self._agent.load_state_dict(state["agent"])
        self._actor.load_state_dict(state["actor"])
        self._metrics.load_state_dict(state["metrics"])
        for name, saved in json.loads(state["streams"]).items():
            set_generator_state(self._streams[name], saved)
        self._evaluation_start = json.loads(state["evaluation_environment"])
        if self._evaluation is not None and self._evaluation_start is not None:
            self._evaluation.set_random_state(self._evaluation_start)
        self.step = self._checkpointed_step = state["step"]
        self._episode, self._updates = state["episode"], state["updates"]
        self._saved_snapshots = list(state["snapshots"])
        self._episode_start = json.loads(state["environment"])
        self._environment.set_random_state(self._episode_start)
        self._return = 0.0
        timestep = self._environment.reset()
        recorded = {name: values.numpy() for name, values in state["recorded"].items()}
        self._store(timestep, None, {name: values[0] for name, values in recorded.items()})
        for i, action in enumerate(state["actions"].numpy(), start=1):
            timestep = self._environment.step(action)
            self._store(timestep, action, {name: values[i] for name, values in recorded.items()})
        self._timestep = timestep
        if self._return != state["return"] or not np.array_equal(timestep.observation, state["observation"].numpy()):
            raise UserError(
                f"the environment does not play the unfinished episode at frame {self.frame} as it did before; "
                "continue the run on a machine like the one it was started on, or remove it to start from nothing."
            )
