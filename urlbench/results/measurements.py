"""Reads eval.jsonl strictly: the evaluations of a fine-tuning, or a search for goals.

Every line must be what the protocol asks for, in its place; anything else is a fault that names file and line, and
then nothing of the file counts.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from urlbench.core.jobs import JobSpec
from urlbench.core.types import Search
from urlbench.results.problems import Fault

T = TypeVar("T")
# What the list of each metric of the episodes is called in a line of eval.jsonl; the first one is always there.
LISTS = {"return": "returns", "success": "success", "completed": "completed"}


@dataclass(frozen=True)
class Evaluation:
    """One line of a fine-tuning's eval.jsonl.

    Attributes:
        frame: fine-tuning frames before the evaluation.
        episodes: what happened in each episode, by metric: `return`, undiscounted, and where the suite has them
            `success`, 1 or 0, and `completed`, a number of sub-tasks.
    """

    frame: int
    episodes: Mapping[str, tuple[float, ...]]

    @property
    def means(self) -> dict[str, float]:
        """The mean of each metric over the episodes."""
        return {metric: float(np.mean(values)) for metric, values in self.episodes.items()}

    @property
    def n_episodes(self) -> int:
        """Number of episodes."""
        return len(self.episodes["return"])


@dataclass(frozen=True)
class GoalSearch:
    """The episodes in which one goal was looked for.

    Attributes:
        goal: its place in the set; 0 for a task that has one goal.
        found: whether each episode found it.
    """

    goal: int
    found: tuple[bool, ...]


class _Block(BaseModel):
    """One line of a search: successive episodes of one goal, as the runner writes them."""

    model_config = ConfigDict(frozen=True, strict=True)

    task: str
    goal: int
    first_episode: int
    found: list[bool]
    returns: list[float]
    max_rewards: list[float]
    steps: list[int]


def read_evaluations(content: bytes, name: str, spec: JobSpec, digest: object) -> tuple[list[Evaluation], list[Fault]]:
    """The evaluations of a finished fine-tuning, ascending in frames; none if there is a fault.

    Args:
        content: of eval.jsonl.
        name: of the file, for faults.
        spec: of the run.
        digest: SHA-256 that DONE gives for the file.
    """
    lines, faults = _parsed(content, name, _parse_evaluation, "an evaluation")
    for number, evaluation in lines:
        where = f"{name} line {number} (frame {evaluation.frame})"
        faults.extend(_evaluation_faults(where, evaluation, spec.protocol.eval_episodes))
    evaluations = [evaluation for _, evaluation in lines]
    if not faults:
        faults = [*_frame_faults(name, spec, [evaluation.frame for evaluation in evaluations])]
    if not faults:
        faults = _digest_faults(content, name, digest)
    return ([] if faults else evaluations), faults


def read_searches(content: bytes, name: str, spec: JobSpec, digest: object) -> tuple[list[GoalSearch], list[Fault]]:
    """The searches of a finished search run, goal by goal; none if there is a fault.

    Args:
        content: of eval.jsonl.
        name: of the file, for faults.
        spec: of the run.
        digest: SHA-256 that DONE gives for the file.
    """
    rules = spec.protocol.search
    assert rules is not None, "searches are made by protocols that search"
    lines, faults = _parsed(content, name, _parse_block, "a block of episodes")
    for number, block in lines:
        faults.extend(_block_faults(f"{name} line {number} (goal {block.goal})", block, spec.task, rules))
    if not faults:
        faults = _order_faults(name, lines, rules.goals, spec.protocol.eval_episodes)
    if not faults:
        faults = _digest_faults(content, name, digest)
    if faults:
        return [], faults
    by_goal = itertools.groupby((block for _, block in lines), key=lambda block: block.goal)
    return [GoalSearch(goal, tuple(one for block in blocks for one in block.found)) for goal, blocks in by_goal], []


def _parsed(
    content: bytes, name: str, parse: Callable[[bytes], T | None], what: str
) -> tuple[list[tuple[int, T]], list[Fault]]:
    """The whole lines with their numbers from 1, and what is wrong with the others."""
    parsed: list[tuple[int, T]] = []
    faults: list[Fault] = []
    *lines, rest = content.split(b"\n")
    if rest:
        faults.append(("truncated", f"{name} is truncated: line {len(lines) + 1} has no end"))
    for number, line in enumerate(lines, start=1):
        value = parse(line)
        if value is None:
            faults.append(("truncated", f"{name} line {number} is damaged: not {what} in JSON"))
        else:
            parsed.append((number, value))
    return parsed, faults


def _parse_evaluation(line: bytes) -> Evaluation | None:
    try:
        row = json.loads(line)
        lists = {metric: row[key] for metric, key in LISTS.items() if key in row or metric == "return"}
        return Evaluation(int(row["frame"]), {metric: tuple(map(float, values)) for metric, values in lists.items()})
    except (ValueError, KeyError, TypeError):
        return None


def _parse_block(line: bytes) -> _Block | None:
    try:
        return _Block.model_validate_json(line)
    except ValidationError:
        return None


def _evaluation_faults(line: str, evaluation: Evaluation, n_episodes: int) -> Iterator[Fault]:
    """What is wrong with an evaluation in itself."""
    for metric, values in evaluation.episodes.items():
        if not all(map(math.isfinite, values)):
            yield "nan", f"{line} holds a {metric} that is not finite"
        elif metric == "success" and not set(values) <= {0.0, 1.0}:
            yield "outcome", f"{line} holds a success that is neither 0 nor 1"
        elif metric == "completed" and not all(value >= 0 and value.is_integer() for value in values):
            yield "outcome", f"{line} holds a number of completed sub-tasks that is no whole number of 0 or more"
        if len(values) != n_episodes:
            what = "" if metric == "return" else f" in {metric!r}"
            yield "episodes", f"{line} has {len(values)} episodes{what}, the protocol asks for {n_episodes}"


def _digest_faults(content: bytes, name: str, digest: object) -> list[Fault]:
    if digest == hashlib.sha256(content).hexdigest():
        return []
    return [("hash", f"{name} was changed after the run ended: its SHA-256 is not the one in DONE")]


def _frame_faults(name: str, spec: JobSpec, frames: list[int]) -> Iterator[Fault]:
    protocol = spec.protocol
    if any(later <= earlier for earlier, later in itertools.pairwise(frames)):
        yield "frames", f"{name} holds the frames {frames}: each must come once, ascending"
        return
    if not frames or frames[-1] != protocol.finetune_frames:
        last = f"ends at frame {frames[-1]}" if frames else "is empty"
        yield "frames", f"{name} {last}, the final evaluation belongs at frame {protocol.finetune_frames}"
        return
    due = range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames)
    absent = sorted(set(due) - set(frames))
    if absent:
        yield "frames", f"{name} lacks the evaluations at frames {', '.join(map(str, absent))}"


def _block_faults(line: str, block: _Block, task: str, rules: Search) -> Iterator[Fault]:
    """What is wrong with a block in itself; `found` is worked out again from what was recorded."""
    if block.task != task:
        yield "episodes", f"{line} is of task {block.task}, not {task}"
    sizes = {len(block.found), len(block.returns), len(block.max_rewards), len(block.steps)}
    if len(sizes) > 1 or 0 in sizes:
        yield "episodes", f"{line} holds lists that are empty or differ in length"
        return
    if not all(map(math.isfinite, [*block.returns, *block.max_rewards])):
        yield "nan", f"{line} holds a return or a reward that is not finite"
        return
    if min(block.steps) < 1:
        yield "episodes", f"{line} holds an episode without a step"
    if rules.criterion == "step_reward":
        reached, rule = [reward >= rules.found_reward for reward in block.max_rewards], "a step reward of at least"
    else:
        reached, rule = [total > rules.found_reward for total in block.returns], "a return above"
    wrong = [block.first_episode + index for index, found in enumerate(block.found) if found != reached[index]]
    if wrong:
        yield (
            "found",
            f"{line} says of episode {wrong[0]} the opposite of its rewards: found means {rule} {rules.found_reward:g}",
        )


def _order_faults(name: str, blocks: Sequence[tuple[int, _Block]], goals: int, episodes: int) -> list[Fault]:
    """The first place where the blocks are not the goals 0, 1, ... with the episodes 0, 1, ... of each."""
    goal = episode = 0
    for number, block in blocks:
        if (block.goal, block.first_episode) != (goal, episode) or goal == goals:
            due = f"goal {goal}, episode {episode}, belongs there" if goal < goals else "nothing more belongs there"
            return [
                (
                    "episodes",
                    f"{name} line {number} begins at goal {block.goal}, episode {block.first_episode}; {due}: "
                    "each block must come once, in order",
                )
            ]
        episode += len(block.found)
        if episode > episodes:
            return [("episodes", f"{name} line {number} goes beyond the {episodes} episodes of goal {goal}")]
        if episode == episodes:
            goal, episode = goal + 1, 0
    if goal < goals:
        where = f"ends before goal {goal}, episode {episode}" if blocks else "is empty"
        return [("episodes", f"{name} {where}; the protocol asks for {goals} x {episodes} episodes")]
    return []
