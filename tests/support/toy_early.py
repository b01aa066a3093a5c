"""A suite whose episodes end early and an agent that minds it, for `--plugin`; both run in milliseconds.

Suite `toy-early`: a point on a line is pushed to a place, where the episode terminates with a reward of 1; without that
its time is over after 20 frames. Agent `toy-early` learns a linear model of the entries that are there, from one batch
or from several, and acts by a skill that it draws every `SKILL_STEPS` steps and has recorded.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch

from urlbench.core.interfaces import Actor, Agent, AgentContext, AgentSpec, Array, Schedule, TimeStep
from urlbench.core.registry import register_agent, register_suite
from urlbench.core.seeding import derive_seed
from urlbench.core.types import Domain, Normaliser, Protocol, Spec, Suite, Task

PLUGIN = str(Path(__file__).resolve())
EPISODE_FRAMES, SKILL_STEPS = 20, 4
PLACES = {"line_left": -1.5, "line_right": 1.5}


class EarlyEnvironment:
    """A point with a random start; observation [2], action [1]."""

    observation_shape: tuple[int, ...] = (2,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    action_dim = 1

    def __init__(self, task: str, seed: int, action_repeat: int) -> None:
        self._place, self.action_repeat = PLACES[task], action_repeat
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._frame, self._position = EPISODE_FRAMES, 0.0

    def _timestep(self) -> TimeStep:
        there = abs(self._position - self._place) < 0.4
        observation = np.array([self._position, self._frame / EPISODE_FRAMES], np.float32)
        over = there or self._frame >= EPISODE_FRAMES
        return TimeStep(observation, float(there), float(not there), self._frame == 0, over and self._frame > 0)

    def reset(self) -> TimeStep:
        self._frame, self._position = 0, float(self._rng.uniform(-1, 1))
        return self._timestep()

    def step(self, action: Array) -> TimeStep:
        self._position += 0.4 * float(np.clip(action[0], -1, 1))
        self._frame += self.action_repeat
        return self._timestep()

    def random_state(self) -> dict[str, Any]:
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state

    def reseed(self, seed: int) -> None:
        self._rng.bit_generator.state = np.random.PCG64(seed).state


def make_environment(task: str, seed: int, action_repeat: int) -> EarlyEnvironment:
    return EarlyEnvironment(task, seed, action_repeat)


class EarlyConfig(Spec):
    """Settings of the agent."""

    schedule: Schedule = Schedule(
        update_every_frames=3, seed_frames=15, batch_size=4, batch_length=8, replay_capacity_steps=100
    )


class EarlyActor(Actor):
    """Pushes to where its skill says, with noise."""

    def __init__(self, agent: "EarlyAgent", evaluation: bool, seed: int) -> None:
        self._agent, self._evaluation = agent, evaluation
        self._generator = torch.Generator().manual_seed(seed)
        self._skill, self._left = torch.zeros(1), 0

    def begin_episode(self) -> None:
        self._left = 0

    def before_step(self, step: int) -> None:
        if self._left == 0:
            self._skill, self._left = torch.rand(1, generator=self._generator) * 2 - 1, SKILL_STEPS
        self._left -= 1

    @torch.no_grad()
    def act(self, observation: Array, step: int) -> Array:
        noise = 0.0 if self._evaluation else 0.3
        learned = self._agent.model(torch.as_tensor(observation))[:1]
        return (self._skill + 0.1 * learned + noise * torch.randn(1, generator=self._generator)).numpy()

    def recorded(self) -> Mapping[str, Array]:
        return {"skill": self._skill.numpy()}

    def state_dict(self) -> dict[str, Any]:
        return {"skill": self._skill, "left": self._left, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._skill, self._left = state["skill"], state["left"]
        self._generator.set_state(state["generator"])


class EarlyAgent(Agent):
    """Predicts the next observation, reward and discount where there is a next entry."""

    def __init__(self, context: AgentContext, config: EarlyConfig) -> None:
        self.context, self.config, self.schedule = context, config, config.schedule
        self.recorded = {"skill": (1,)} if context.collects else {}
        self._generator = torch.Generator().manual_seed(derive_seed(context.seed, "toy-early"))
        self.model = torch.nn.Linear(2, 4)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=self._generator))
        self._optimiser = torch.optim.Adam(self.model.parameters(), lr=0.01)

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        return EarlyActor(self, evaluation, seed)

    def update(self, batch: Mapping[str, Any]) -> Mapping[str, SupportsFloat]:
        named = batch if self.schedule.batches else {"whole": batch}
        losses = {name: self._loss(one) for name, one in named.items()}
        self._optimiser.zero_grad()
        sum(losses.values(), torch.zeros(())).backward()
        self._optimiser.step()
        return losses

    def _loss(self, batch: Mapping[str, Array]) -> torch.Tensor:
        observation, reward, discount, mask = (
            torch.as_tensor(batch[key]) for key in ("observation", "reward", "discount", "mask")
        )
        noise = 0.1 * torch.randn(observation.shape, generator=self._generator)
        target = torch.cat([observation, reward[..., None], discount[..., None]], -1)[:, 1:]
        errors = (self.model(observation + noise)[:, :-1] - target).square().mean(-1)
        return errors[mask[:, 1:]].mean()

    def for_finetuning(self, context: AgentContext) -> Agent:
        agent = EarlyAgent(context, self.config)
        agent.model.load_state_dict(self.model.state_dict())
        return agent

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])


SUITE = Suite(
    name="toy-early",
    version=1,
    description="a point on a line that is done when it is there",
    observation="states",
    action_repeat=1,
    domains=(Domain(name="line", primal_task="line_left", max_episode_frames=EPISODE_FRAMES, ends_early=True),),
    tasks=tuple(Task(name=name, domain="line", description="come there") for name in PLACES),
    protocols={
        preset: Protocol(
            preset=preset,
            description="tiny",
            pretrain_frames=frames,
            snapshots=(frames // 2, frames),
            finetune_frames=80,
            eval_every_frames=20,
            eval_episodes=3,
        )
        for preset, frames in (("paper", 400), ("smoke", 120))
    },
    score="normalised_return",
    normaliser=Normaliser(name="toy-early", version=1, source="made up", references=dict.fromkeys(PLACES, 1.0)),
    environment=f"{__name__}:make_environment",
    packages=("numpy",),
)
AGENT = AgentSpec(
    name="toy-early",
    description="learns a linear model of the entries that are there",
    paper="none",
    observations=("states",),
    pretrains=True,
    config=EarlyConfig,
    build=EarlyAgent,
    presets={},
)

if __name__ == "urlbench_plugin_toy_early":
    register_suite(SUITE)
    register_agent(AGENT)
