"""Plays evaluation episodes: each depends on nothing but its `Episode`, the agent's weights and the suite.

So it does not matter which process plays an episode, or after which others. Source of the order inside an episode:
the published loops of URLB and Choreographer, whose step counter runs on over the episodes of an evaluation.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol as TypingProtocol, cast

import numpy as np
import torch

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Agent, Environment, GoalEnvironment, JudgedEnvironment
from urlbench.core.jobs import JobSpec
from urlbench.core.seeding import derive_seed
from urlbench.core.types import OUTCOMES, Search
from urlbench.episodes.replay import aligned
from urlbench.training.assembly import not_told, suite_of

Tick = Callable[[], None]
"""Called at every step, or several times a second; raises to end the evaluation."""


class Episode(NamedTuple):
    """One episode to play.

    Attributes:
        start: of the environment's random stream before the reset: a state of it, or a seed in [0, 2^32).
        actor_seed: of the actor's own random stream.
        first_step: the actor's step counter at the start.
        goal: place in the goal set; None in suites without.
        evaluation_seed: the same for all episodes of one evaluation of a fine-tuning; None in a search for goals.
    """

    start: dict[str, Any] | int
    actor_seed: int
    first_step: int
    goal: int | None = None
    evaluation_seed: int | None = None


class Outcome(NamedTuple):
    """What happened in an episode.

    Attributes:
        total: the undiscounted return, up to where the episode was left.
        max_reward: the largest reward of one agent step.
        steps: agent steps played.
        found: whether the goal was found; False where there is none to find.
        success: 1 or 0 as the environment tells it of a whole episode; None if it does not.
        completed: number of completed sub-tasks, likewise.
    """

    total: float
    max_reward: float
    steps: int
    found: bool
    success: float | None = None
    completed: float | None = None


def play_episode(environment: Environment, agent: Agent, episode: Episode, rules: Search | None, tick: Tick) -> Outcome:
    """Play an episode; neither the agent's weights nor what other episodes give are changed by it.

    Args:
        environment: of the episode's task and goal set.
        agent: acts; pretrained if there are rules, else in fine-tuning.
        episode: where it starts.
        rules: of a search for goals; None for whole episodes with deterministic actions.
        tick: called at every step.
    """
    if rules is None:
        actor = agent.actor(evaluation=True, seed=episode.actor_seed)
    else:
        sample = rules.actions == "sampled"
        actor = agent.search_actor(seed=episode.actor_seed, skill_steps=rules.skill_steps, sample=sample)
    if isinstance(episode.start, int):
        environment.reseed(episode.start)
    else:
        environment.set_random_state(episode.start)
    if episode.goal is not None:
        cast(GoalEnvironment, environment).set_goal(episode.goal)
    if episode.evaluation_seed is not None:
        actor.begin_evaluation(episode.evaluation_seed)
    timestep = environment.reset()
    actor.begin_episode()
    step, total, max_reward, found = episode.first_step, 0.0, -np.inf, False
    while not timestep.is_last:
        tick()
        actor.before_step(step)
        timestep = environment.step(np.array(actor.act(aligned(timestep.observation), step), np.float32))
        step += 1
        total += timestep.reward
        max_reward = max(max_reward, timestep.reward)
        if rules is not None:
            found = max_reward >= rules.found_reward if rules.criterion == "step_reward" else total > rules.found_reward
            if found and rules.stop_when_found:
                break
        if not timestep.is_last:
            actor.after_step(step)
    told = environment.outcome() if rules is None and isinstance(environment, JudgedEnvironment) else {}
    return Outcome(total, max_reward, step - episode.first_step, found, told.get("success"), told.get("completed"))


class Player(TypingProtocol):
    """Plays the evaluation episodes of one job."""

    def play(self, agent: Agent, blocks: Sequence[Sequence[Episode]], tick: Tick) -> Iterator[list[Outcome]]:
        """The outcomes of each block, in order.

        Args:
            agent: with the weights to play with.
            blocks: episodes that are played one after another; blocks may be played at the same time.
            tick: called at every step, or several times a second.
        """


class LocalPlayer:
    """Plays in this process, one episode after another."""

    def __init__(self, environment: Environment, rules: Search | None) -> None:
        self._environment, self._rules = environment, rules

    def play(self, agent: Agent, blocks: Sequence[Sequence[Episode]], tick: Tick) -> Iterator[list[Outcome]]:
        """See `Player`."""
        for block in blocks:
            with one_thread():
                outcomes = [play_episode(self._environment, agent, episode, self._rules, tick) for episode in block]
            yield outcomes


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread, as in the processes of a `ProcessPlayer`: sums may depend on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class FinetuningEvaluation:
    """The evaluations of a fine-tuning: whole episodes, with deterministic actions.

    Start states come from one stream that goes on over all evaluations, as published.

    Args:
        spec: of the job.
        environment: of the job's task; its random stream is the one that goes on.
        player: plays the episodes.
    """

    def __init__(self, spec: JobSpec, environment: Environment, player: Player) -> None:
        self._spec, self._environment, self._player = spec, environment, player
        self._suite = suite_of(spec)
        self._scored = OUTCOMES.get(self._suite.score)
        self._episode_steps = episode_steps(spec)

    def play(self, agent: Agent, frame: int, tick: Tick) -> dict[str, list[float]]:
        """What happened in the episodes of the evaluation after `frame` frames of training, as its row says it.

        Returns:
            The undiscounted `returns`, and where the suite's score needs it `success` and `completed`, if told.

        Raises:
            UserError: if the environment does not tell what it must, or tells what cannot be.
        """
        spec, environment = self._spec, self._environment
        starts = []
        for _ in range(spec.protocol.eval_episodes):
            starts.append(environment.random_state())
            environment.reset()
        following = environment.random_state()
        shared = derive_seed(spec.seed, "evaluation", frame)
        blocks = [
            [
                Episode(
                    start=start,
                    actor_seed=derive_seed(spec.seed, "evaluation", frame, number),
                    first_step=number * self._episode_steps,
                    evaluation_seed=shared,
                )
            ]
            for number, start in enumerate(starts)
        ]
        outcomes = [outcome for block in self._player.play(agent, blocks, tick) for outcome in block]
        environment.set_random_state(following)
        return {"returns": [outcome.total for outcome in outcomes], **self._told(outcomes)}

    def _told(self, outcomes: Sequence[Outcome]) -> dict[str, list[float]]:
        """What the environment told of the episodes, checked; nothing where the suite's score does not need it."""
        told: dict[str, list[float]] = {}
        for name, most in (("success", 1), ("completed", self._suite.subtasks or np.inf)):
            values = [getattr(outcome, name) for outcome in outcomes]
            if self._scored is None or (None in values and name != self._scored):
                continue
            if None in values:
                raise not_told(self._suite)
            wrong = [value for value in values if not (0 <= value <= most and float(value).is_integer())]
            if wrong:
                raise UserError(
                    f"an episode of {self._spec.task} ended with {name} {wrong[0]}, where only whole numbers from 0 to "
                    f"{most:g} can be; mend outcome() of the environment of {self._suite.full_name}."
                )
            told[name] = [int(value) for value in values]
        return told

    def random_state(self) -> dict[str, Any]:
        """The state of the stream that the next evaluation starts from."""
        return self._environment.random_state()

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self._environment.set_random_state(state)


def episode_steps(spec: JobSpec) -> int:
    """Agent steps of a whole episode."""
    return suite_of(spec).domain(spec.domain).max_episode_frames // spec.action_repeat
