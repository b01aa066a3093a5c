"""The one loop that pretrains, fine-tunes and evaluates, and the continuing of an interrupted run.

Source of the order inside an iteration: the published loops of URLB and Choreographer (act, update, step, store).
All budgets are in frames; a step is `action_repeat` of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from urlbench.core.durable import append_jsonl
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, Array, Cell, CoveredEnvironment, Environment, Schedule, TimeStep
from urlbench.core.jobs import JobSpec
from urlbench.core.seeding import derive_seed, stream
from urlbench.episodes.replay import Replay, aligned
from urlbench.training.assembly import suite_of
from urlbench.training.checkpoint import SnapshotHeader, save_snapshot, snapshot_path
from urlbench.training.evaluation import FinetuningEvaluation, episode_steps
from urlbench.training.learning import LearningLoop, Surroundings


class _StopAsked(Exception):
    """Leaves an evaluation at once; the checkpoint is the one of before the evaluation."""


def updates_due(frame: int, action_repeat: int, schedule: Schedule, made: int) -> int:
    """How many updates the schedule asks for at `frame`: for each multiple of its period since the last step.

    With a period that is a multiple of the action repeat, that is whenever it divides `frame`. One that catches up asks
    for those of all multiples so far, less the `made` ones; at frame 0 there is nothing to learn from.
    """
    period = schedule.update_every_frames
    if period is None or frame < schedule.seed_frames:
        return 0
    if schedule.catch_up:
        return schedule.updates * (frame // period) - made
    return schedule.updates * (frame // period - (frame - action_repeat) // period)


@dataclass
class _Decision:
    """What comes next in an episode: the updates that are due, then the action that was chosen before them.

    Attributes:
        action: float32 [A].
        due: updates.
        made: how many of them were made.
    """

    action: Array
    due: int
    made: int = 0


class TrainingLoop(LearningLoop):
    """A pretraining or fine-tuning under way that acts in an environment.

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
        super().__init__(job_id, spec, agent, replay, surroundings)
        self._environment, self._evaluation = environment, evaluation
        self._random_actions = spec.learns in self._schedule.random_action_phases
        self._action_bound = 1.0 if self._schedule.seed_action_bound == "one" else float(environment.action_dim)
        self._streams["seed_actions"] = stream(spec.seed, spec.phase, "seed_actions")
        self._actor = agent.actor(evaluation=False, seed=derive_seed(spec.seed, spec.phase, "actor"))
        self.step, self._episode, self._return = 0, 0, 0.0
        self._timestep: TimeStep | None = None
        self._decision: _Decision | None = None
        self._episode_start: dict[str, Any] = {}
        self._actions: list[Array] = []
        self._recorded: list[Mapping[str, Array]] = []
        self._cell = environment.cell if isinstance(environment, CoveredEnvironment) else None
        self._episode_cells, self._cells = set[Cell](), set[Cell]()
        self._evaluation_start = None if evaluation is None else evaluation.random_state()

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
            if self._evaluation_due():
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
        self._actions, self._recorded, self._episode_cells = [], [], set()
        timestep = self._environment.reset()
        self._actor.begin_episode()
        self._store(timestep, None, self._actor.recorded())
        return timestep

    def _advance(self, timestep: TimeStep) -> TimeStep:
        """Act, make the updates that are due, and step."""
        self._surroundings.heartbeat.beat(self.frame)
        if self._decision is None:
            self._decision = self._decide(timestep)
        decision = self._decision
        while decision.made < decision.due:
            if decision.made:  # a burst may take long
                self._maybe_checkpoint()
                self._surroundings.heartbeat.beat(self.frame)
            self._update()
            decision.made += 1
        following = self._environment.step(decision.action)
        self._store(following, decision.action, self._actor.recorded())
        self._decision = None
        self.step += 1
        if not following.is_last:
            self._actor.after_step(self.step)
        return following

    def _decide(self, timestep: TimeStep) -> _Decision:
        frame = self.frame
        self._actor.before_step(self.step)
        if self._random_actions and frame < self._schedule.seed_frames:
            bound = self._action_bound
            action = self._streams["seed_actions"].uniform(-bound, bound, self._environment.action_dim)
        else:
            action = self._actor.act(aligned(timestep.observation), self.step)
        due = updates_due(frame, self._spec.action_repeat, self._schedule, self._updates)
        # A copy of its own: actors may reuse their buffer, and these actions must be replayed bit for bit.
        return _Decision(np.array(action, np.float32), due if due and self._can_update() else 0)

    def _store(self, timestep: TimeStep, action: Array | None, recorded: Mapping[str, Array]) -> None:
        self._replay.add(timestep, action, recorded)
        self._recorded.append({name: np.array(value, np.float32) for name, value in recorded.items()})
        if action is not None:
            self._actions.append(action)
        self._return += timestep.reward
        if self._cell is not None:
            self._episode_cells.add(self._cell())

    def _end_episode(self) -> None:
        when = f"in the episode that ended at frame {self.frame}"
        self._check_length()
        if not np.isfinite(self._return):
            raise UserError(f"the return of the episode that ended at frame {self.frame} is {self._return}.")
        row = {"frame": self.frame, "episode": self._episode, "return": self._return, "updates": self._updates}
        if self._cell is not None:
            self._cells |= self._episode_cells
            row |= {"episode_cells": len(self._episode_cells), "cells": len(self._cells)}
        self._log(row, when)
        self._episode, self._return = self._episode + 1, 0.0
        if self._spec.phase == "pretrain":
            self._save_due_snapshots()

    def _check_length(self) -> None:
        """UserError if the episode that has ended is not as long as the suite says."""
        domain = suite_of(self._spec).domain(self._spec.domain)
        steps, most = len(self._actions), episode_steps(self._spec)
        if steps > most or (steps < most and not domain.ends_early):
            raise UserError(
                f"an episode of {self._spec.task} had {steps * self._spec.action_repeat} frames, and suite "
                f"{self._spec.suite} says of domain {domain.name!r} that {'none has' if steps > most else 'all have'} "
                f"{'more than ' if steps > most else ''}{domain.max_episode_frames}; correct its max_episode_frames or "
                "ends_early."
            )

    # --- evaluation ---

    def _evaluation_due(self) -> bool:
        # Not again if the run goes on amid the updates after it.
        periodic = self.frame > 0 and self._spec.phase == "finetune" and self._decision is None
        return periodic and self.frame % self._spec.protocol.eval_every_frames == 0

    def _evaluate(self) -> None:
        """Play whole episodes with deterministic actions; training is left as it was."""
        assert self._evaluation is not None, "fine-tuning needs to be evaluated"
        try:
            episodes = self._evaluation.play(self._agent, self.frame, self._tick)
        except _StopAsked:
            self._interrupt()
        returns = episodes["returns"]
        if not np.all(np.isfinite(returns)):
            raise UserError(f"an evaluation at frame {self.frame} gave the returns {returns}.")
        row = {"frame": self.frame, "task": self._spec.task, **episodes, "mean": float(np.mean(returns))}
        append_jsonl(self._directory.eval_file, row)
        self._evaluation_start = self._evaluation.random_state()

    def _tick(self) -> None:
        self._surroundings.heartbeat.beat(self.frame)
        if self._surroundings.stop():
            raise _StopAsked

    # --- checkpoints ---

    def _updates_here(self) -> int:
        return 0 if self._decision is None else self._decision.made

    def _state(self) -> dict[str, Any]:
        assert self._timestep is not None, "there is nothing to save before the first episode"
        return super()._state() | {
            "step": self.step,
            "episode": self._episode,
            "return": self._return,
            "actor": self._actor.state_dict(),
            "environment": json.dumps(self._episode_start),
            "evaluation_environment": json.dumps(self._evaluation_start),
            "actions": torch.tensor(np.array(self._actions, np.float32)),
            "recorded": {
                name: torch.tensor(np.stack([entry[name] for entry in self._recorded])) for name in self._recorded[0]
            },
            "decision": None
            if self._decision is None
            else vars(self._decision) | {"action": torch.tensor(self._decision.action)},
            "observation": torch.tensor(self._timestep.observation),
            "cells": sorted(self._cells),
            "replay_episodes": self._replay.episodes,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint: the episode under way is played again from its start with its actions.

        Raises:
            UserError: if the environment does not play as it did when the checkpoint was written.
        """
        super().restore(state)
        self._actor.load_state_dict(state["actor"])
        self._evaluation_start = json.loads(state["evaluation_environment"])
        if self._evaluation is not None and self._evaluation_start is not None:
            self._evaluation.set_random_state(self._evaluation_start)
        self.step, self._episode, self._cells = state["step"], state["episode"], set(state["cells"])
        if (decision := state["decision"]) is not None:
            self._decision = _Decision(decision["action"].numpy(), decision["due"], decision["made"])
        self._checkpointed = (self.progress, self._updates_here())
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
