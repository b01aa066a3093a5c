"""Searches for goals with a pretrained agent that learns nothing more, and the continuing of an interrupted search.

Source: sparse-reward suites of Choreographer (Mazzaglia et al. 2023, sec. 4.2, app. B.2).
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from urlbench.core.durable import append_jsonl
from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent
from urlbench.core.jobs import JobSpec
from urlbench.core.seeding import derive_seed
from urlbench.runs.store import RunDirectory
from urlbench.training.evaluation import Episode, Outcome, Player, episode_steps
from urlbench.training.learning import Interrupted, Surroundings

ROW_EPISODES = 10
_SEEDS = 2**32  # what environments take


class Block(NamedTuple):
    """The episodes of one row of eval.jsonl: at most ten of one goal."""

    goal: int
    first_episode: int
    episodes: int


def blocks_of(spec: JobSpec) -> list[Block]:
    """The rows of a whole search, in their order."""
    assert spec.protocol.search is not None, f"{spec.suite} is not a suite that searches for goals"
    episodes = spec.protocol.eval_episodes
    return [
        Block(goal, first, min(ROW_EPISODES, episodes - first))
        for goal in range(spec.protocol.search.goals)
        for first in range(0, episodes, ROW_EPISODES)
    ]


def keep_whole_rows(directory: RunDirectory, spec: JobSpec) -> tuple[int, list[str]]:
    """Cut eval.jsonl back to the rows that an attempt before has finished.

    Returns:
        Their number, and what was noticed.
    """
    content = directory.eval_file.read_bytes() if directory.eval_file.exists() else b""
    length, rows = 0, 0
    for line, block in zip(content.splitlines(keepends=True), blocks_of(spec), strict=False):
        if not _is_row(line, spec, block):
            break
        length, rows = length + len(line), rows + 1
    directory.cut_back({directory.eval_file.name: length})
    if length == len(content):
        return rows, []
    return rows, [f"{directory.eval_file} line {rows + 1} is not whole; it and what follows is played again."]


def _is_row(line: bytes, spec: JobSpec, block: Block) -> bool:
    """Whether a line is the whole row of that block."""
    try:
        row = json.loads(line)
        about = (row["task"], row["goal"], row["first_episode"])
        lists = [row[name] for name in ("found", "returns", "max_rewards", "steps")]
        lengths = {len(values) for values in lists}
    except (ValueError, KeyError, TypeError):
        return False
    return line.endswith(b"\n") and about == (spec.task, *block[:2]) and lengths == {block.episodes}


class SearchLoop:
    """A search under way.

    Args:
        spec: of the job.
        agent: pretrained.
        player: plays the episodes.
        rows: how many rows of eval.jsonl are there.
        surroundings: where files go and when to stop.

    Attributes:
        progress: episodes so far, those in the rows that were there included.
    """

    def __init__(self, spec: JobSpec, agent: Agent, player: Player, rows: int, surroundings: Surroundings) -> None:
        self._spec, self._agent, self._player, self._surroundings = spec, agent, player, surroundings
        self._left = blocks_of(spec)[rows:]
        self._steps = episode_steps(spec)
        self.progress = sum(block.episodes for block in blocks_of(spec)[:rows])

    def run(self) -> None:
        """Play all episodes that are left.

        Raises:
            Interrupted: if the surroundings asked to stop; the rows that are there stay.
            UserError: if rewards are not finite, or a file cannot be written.
        """
        self._tick()
        played = self._player.play(self._agent, [list(self._episodes(block)) for block in self._left], self._tick)
        for block, outcomes in zip(self._left, played, strict=True):
            append_jsonl(self._surroundings.directory.eval_file, self._row(block, outcomes))
            self.progress += block.episodes

    def _tick(self) -> None:
        self._surroundings.heartbeat.beat(self.progress)
        if reason := self._surroundings.stop():
            raise Interrupted(reason)

    def _episodes(self, block: Block) -> Iterator[Episode]:
        """Each with streams of its own, whatever the agent: all agents search from the same states."""
        spec, goal_set = self._spec, self._spec.goal_set
        where: list[str | int] = [spec.task, *([] if goal_set is None else [goal_set]), block.goal]
        for number in range(block.first_episode, block.first_episode + block.episodes):
            yield Episode(
                # The name of the streams stays what it was when results were made with them.
                start=derive_seed(spec.seed, "zero_shot", *where, number, "environment") % _SEEDS,
                actor_seed=derive_seed(spec.seed, "zero_shot", *where, number, "actor"),
                first_step=number * self._steps,
                goal=None if goal_set is None else block.goal,
            )

    def _row(self, block: Block, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        if not np.all(np.isfinite([outcome[:2] for outcome in outcomes])):
            raise UserError(
                f"goal {block.goal} of {self._spec.task} gave the returns {[outcome.total for outcome in outcomes]} "
                f"from episode {block.first_episode} on."
            )
        return {
            "task": self._spec.task,
            "goal": block.goal,
            "first_episode": block.first_episode,
            "found": [outcome.found for outcome in outcomes],
            "returns": [outcome.total for outcome in outcomes],
            "max_rewards": [outcome.max_reward for outcome in outcomes],
            "steps": [outcome.steps for outcome in outcomes],
        }
