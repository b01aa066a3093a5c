"""Measures the updates of one agent in one phase: run by `updates.py`, in a process of its own.

    python benchmarks/one_update.py AGENT PHASE SETTINGS

Prints the measurement as JSON; nothing for an agent that learns nothing in that phase, or cannot see the observations.
"""

import resource
import statistics
import sys
import time
from collections.abc import Mapping
from typing import get_args

import numpy as np
from updates import Measurement, Settings

from urlbench.agents.common.finetuning import Finetuning
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.optimiser import Optimiser
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import Actor, Agent, AgentContext, AgentSpec, Array, TimeStep
from urlbench.core.types import Phase
from urlbench.episodes.replay import Replay
from urlbench.training.assembly import set_up_torch

SEED = 1
STATE_DIM, ACTION_DIM = 24, 6  # walker's
ACTION_REPEAT = {"states": 1, "pixels": 2}  # URLB's
LATE_STEP = 40_000  # agent steps into a phase: skills have been searched for, exploration is what it stays
EPISODE_STEPS = 100


def measure(name: str, phase: Phase, settings: Settings) -> Measurement | None:
    """The agent of that name; None if there is nothing to measure."""
    spec = registry.load_agent(name)
    baseline = peak_memory()
    if settings.observation not in spec.observations or (phase == "pretrain" and not spec.pretrains):
        return None
    set_up_torch("cpu", settings.threads)
    agent = build(spec, phase, settings)
    if agent.schedule.update_every_frames is None:
        return None
    actor = agent.actor(evaluation=False, seed=SEED)
    batch = play(agent, actor, context(spec, settings))
    settle(agent, batch)
    agent.update(batch)
    update_seconds, cpu_seconds = time_updates(agent, batch, settings)
    return Measurement(
        agent=name,
        phase=phase,
        parameters=trained_parameters(agent),
        batch=(agent.schedule.batch_size, agent.schedule.batch_length),
        update_seconds=update_seconds,
        cpu_seconds=cpu_seconds,
        act_seconds=time_actions(actor, batch),
        baseline_bytes=baseline,
        peak_bytes=peak_memory(),
    )


def peak_memory() -> int:
    """The most memory that this process has taken, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def context(spec: AgentSpec, settings: Settings) -> AgentContext:
    """A walker, in the images that the agent asks for."""
    image, kind = spec.image, settings.observation
    shape = (STATE_DIM,) if kind == "states" else (3 * image.frame_stack, image.size, image.size)
    return AgentContext(kind, shape, action_dim=ACTION_DIM, action_repeat=ACTION_REPEAT[kind], seed=SEED)


def build(spec: AgentSpec, phase: Phase, settings: Settings) -> Agent:
    """The agent of that phase, as a run builds it."""
    where = context(spec, settings)
    agent = spec.build(where, resolve_config(spec, settings.preset))
    return agent.for_finetuning(where) if phase == "finetune" else agent


def play(agent: Agent, actor: Actor, where: AgentContext) -> dict[str, Array]:
    """A batch from `filled_replay`."""
    rng = np.random.default_rng(SEED)
    schedule = agent.schedule
    return filled_replay(agent, actor, where, rng).sample(rng, schedule.sampled[""])


def filled_replay(agent: Agent, actor: Actor, where: AgentContext, rng: np.random.Generator) -> Replay:
    """The replay of an episode of noise, with rewards in [0, 1), that the actor acts and records in."""
    schedule, dtype = agent.schedule, np.float32 if where.observation_kind == "states" else np.uint8
    replay = Replay(None, where.observation_shape, dtype, where.action_dim, EPISODE_STEPS, agent.recorded)
    steps = max(EPISODE_STEPS, schedule.batch_length)

    def entry(step: int) -> TimeStep:
        observation: Array = rng.normal(size=where.observation_shape)
        if where.observation_kind == "pixels":
            observation = rng.integers(0, 256, size=where.observation_shape)
        return TimeStep(observation.astype(dtype), rng.random(), 1.0, step == 0, step == steps)

    actor.begin_episode()
    timestep = entry(0)
    replay.add(timestep, None, actor.recorded())
    for step in range(1, steps + 1):
        actor.before_step(LATE_STEP + step)
        action = actor.act(timestep.observation, LATE_STEP + step)
        timestep = entry(step)
        replay.add(timestep, action, actor.recorded())
    return replay


def settle(agent: Agent, batch: Mapping[str, Array]) -> None:
    """Let a fine-tuning choose its skill: before that it learns no policy."""
    while isinstance(agent, Finetuning) and agent.skills is not None and agent.chosen_skill is None:
        agent.update(batch)


def time_updates(
    agent: Agent, batch: Mapping[str, Array], settings: Settings
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Seconds of each update, by the clock and of all threads together."""
    clock, cpu = list[float](), list[float]()
    while len(clock) < settings.updates and sum(clock) < settings.seconds:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        agent.update(batch)
        clock.append(time.perf_counter() - begin)
        cpu.append(time.process_time() - cpu_begin)
    return tuple(clock), tuple(cpu)


def time_actions(actor: Actor, batch: Mapping[str, Array]) -> float:
    """Median seconds of an action in an episode, on the CPU."""
    observation, seconds = batch["observation"][0, 0], list[float]()
    actor.begin_episode()
    for step in range(LATE_STEP, LATE_STEP + EPISODE_STEPS):
        actor.before_step(step)
        begin = time.process_time()
        actor.act(observation, step)
        seconds.append(time.process_time() - begin)
        actor.after_step(step + 1)
    return statistics.median(seconds)


def trained_parameters(agent: Agent) -> int:
    """Numbers that some optimiser of the agent trains."""
    assert isinstance(agent, Learner), f"{type(agent).__name__} has no components to count"
    optimisers = [component for component in agent.components.values() if isinstance(component, Optimiser)]
    trained = {id(parameter): parameter for optimiser in optimisers for parameter in optimiser.parameters}
    return sum(parameter.numel() for parameter in trained.values())


def main() -> None:
    """Measure what the command line says."""
    name, phase, settings = sys.argv[1:]
    known: dict[str, Phase] = {one: one for one in get_args(Phase)}
    measurement = measure(name, known[phase], Settings.model_validate_json(settings))
    if measurement is not None:
        print(measurement.model_dump_json())


if __name__ == "__main__":
    main()
