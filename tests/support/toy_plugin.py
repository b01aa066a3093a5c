"""Suites and two agents that run in milliseconds without MuJoCo, for tests of everything around them.

Suite `toy-states`: a point on a line is pushed by the action; the reward is higher near the task's place. In
`toy-pixels` it is seen as an image. `toy-search` looks for the places with agents pretrained in `toy-states`, and
`toy-goals` for places in numbered sets. Agent `toy` learns a linear model with momentum and dropout, so weights,
optimiser, counters and generators all matter for what comes next; `toy-cautious` starts from the same pretraining, but
from smaller weights; `toy-fail` raises for one seed. Give this file to `--plugin`, or import it as a module.
"""

import itertools
import os
import select
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np
import torch

from urlbench.core.interfaces import Actor, Agent, AgentContext, AgentSpec, Array, Schedule, TimeStep
from urlbench.core.registry import register_agent, register_suite
from urlbench.core.seeding import derive_seed
from urlbench.core.types import Domain, GoalSets, ImageFormat, Normaliser, Protocol, Search, Spec, Suite, Task

EPISODE_FRAMES = 20
GOALS = 4
PLACES = {"ball_left": -1.0, "ball_right": 1.0, "cube_near": 0.5, "cube_far": 2.0}


class ToyEnvironment:
    """A point with noise-free dynamics and a random start; observation [4], action [2]."""

    observation_shape: tuple[int, ...] = (4,)
    observation_dtype: np.dtype[Any] = np.dtype(np.float32)
    action_dim = 2

    def __init__(self, task: str, seed: int, action_repeat: int) -> None:
        self._place, self.action_repeat = PLACES[task], action_repeat
        self._rng = np.random.Generator(np.random.PCG64(seed))
        self._frame = EPISODE_FRAMES
        self._position = self._speed = np.zeros(2)

    def _timestep(self, reward: float) -> TimeStep:
        observation = np.concatenate([self._position, self._speed]).astype(np.float32)
        return TimeStep(observation, reward, 1.0, self._frame == 0, self._frame >= EPISODE_FRAMES)

    def reset(self) -> TimeStep:
        self._frame, self._position, self._speed = 0, self._rng.normal(size=2), np.zeros(2)
        return self._timestep(0.0)

    def step(self, action: Array) -> TimeStep:
        if self._frame >= EPISODE_FRAMES:
            raise RuntimeError("the episode is over")
        assert action.shape == (2,)
        assert action.dtype == np.float32
        self._speed = 0.9 * self._speed + 0.1 * np.clip(action, -1, 1)
        self._position = self._position + self._speed
        self._frame += self.action_repeat
        return self._timestep(self.present_reward())

    def physics_state(self) -> Array:
        return np.concatenate([self._position, self._speed])

    def set_physics_state(self, state: Array) -> None:
        self._position, self._speed = state[:2].copy(), state[2:].copy()

    def present_reward(self) -> float:
        return float(np.exp(-abs(self._position[0] - self._place)))

    def random_state(self) -> dict[str, Any]:
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: dict[str, Any]) -> None:
        self._rng.bit_generator.state = state

    def reseed(self, seed: int) -> None:
        self._rng.bit_generator.state = np.random.PCG64(seed).state


class ToyPixelEnvironment(ToyEnvironment):
    """The point as a bright pixel in an image; seen by nobody, there is no image."""

    observation_dtype = np.dtype(np.uint8)

    def __init__(self, task: str, seed: int, action_repeat: int, image: ImageFormat | None) -> None:
        super().__init__(task, seed, action_repeat)
        self.observation_shape = (0,) if image is None else (3 * image.frame_stack, image.size, image.size)

    def drawn_by(self) -> str | None:
        return "NumPy" if self.observation_shape != (0,) else None

    def _timestep(self, reward: float) -> TimeStep:
        observation = np.zeros(self.observation_shape, np.uint8)
        if observation.size:
            observation[:, 0, int(self._position[0]) % self.observation_shape[-1]] = 255
        return super()._timestep(reward)._replace(observation=observation)


class ToyGoalEnvironment(ToyEnvironment):
    """The place is a goal of a set, and the reward of a frame is 1 near it and 0 elsewhere."""

    def __init__(self, task: str, seed: int, action_repeat: int, goal_set: int) -> None:
        super().__init__("ball_left", seed, action_repeat)
        self._places = np.random.RandomState(goal_set).uniform(-2, 2, GOALS)
        self._goal: int | None = None

    def set_goal(self, goal: int | None) -> None:
        self._goal = goal

    def reset(self) -> TimeStep:
        goal = int(self._rng.integers(GOALS)) if self._goal is None else self._goal
        self._place = float(self._places[goal])
        return super().reset()

    def step(self, action: Array) -> TimeStep:
        timestep = super().step(action)
        near = abs(self._position[0] - self._place) < 0.5
        return timestep._replace(reward=float(near * self.action_repeat))


def make_environment(task: str, seed: int, action_repeat: int) -> ToyEnvironment:
    return ToyEnvironment(task, seed, action_repeat)


def make_pixel_environment(task: str, seed: int, action_repeat: int, image: ImageFormat | None) -> ToyPixelEnvironment:
    return ToyPixelEnvironment(task, seed, action_repeat, image)


def make_goal_environment(task: str, seed: int, action_repeat: int, goal_set: int) -> ToyGoalEnvironment:
    return ToyGoalEnvironment(task, seed, action_repeat, goal_set)


_ACTIONS = itertools.count()


def wait_while_held() -> None:
    """Wait where a test wants it (`toy_runs.Hold`): until it lets go, or a signal comes that this process takes.

    $TOY_HOLD is a folder. While there is a file `hold` in it, a process that has acted as often as the file says waits,
    and says so by a file with its number.
    """
    if "TOY_HOLD" not in os.environ:
        return
    folder, acted = Path(os.environ["TOY_HOLD"]), next(_ACTIONS)
    hold = folder / "hold"
    if not hold.exists() or acted < int(hold.read_text()):
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    try:
        (folder / f"{os.getpid()}.held").touch()
        while hold.exists() and not select.select([reader], [], [], 0.02)[0]:
            pass
    finally:
        signal.set_wakeup_fd(before)
        os.close(reader)
        os.close(writer)


class ToyConfig(Spec):
    """Settings of the toy agents."""

    schedule: Schedule = Schedule(
        update_every_frames=3, seed_frames=45, batch_size=4, batch_length=5, replay_capacity_steps=200
    )
    learning_rate: float = 0.01
    noise: float = 0.3
    fail_seed: int = 1
    fail_update: int = 5
    nan_update: int | None = None
    pause_seconds: float = 0.0
    fail_act: int | None = None


class ToyActor(Actor):
    """Acts by the weights plus noise; remembers its last action."""

    def __init__(self, agent: "ToyAgent", evaluation: bool, seed: int) -> None:
        self._agent, self._evaluation = agent, evaluation
        self._generator = torch.Generator().manual_seed(seed)
        self._last = torch.zeros(2)
        self._offset = torch.zeros(2)

    def begin_episode(self) -> None:
        self._last = torch.zeros(2)
        self._offset = torch.randn(2, generator=self._generator)

    @torch.no_grad()
    def act(self, observation: Array, step: int) -> Array:
        time.sleep(self._agent.config.pause_seconds)
        wait_while_held()
        if step == self._agent.config.fail_act:
            raise ValueError("the toy actor fails on purpose")
        mean = self._agent.model(torch.as_tensor(observation))[:2] + 0.1 * self._last
        noise = 0.0 if self._evaluation else self._agent.config.noise
        draw = torch.randn(2, generator=self._generator)
        self._last = torch.tanh(mean + noise * (draw + self._offset) + 0.001 * (step % 7))
        return self._last.numpy()

    def after_step(self, step: int) -> None:
        if step % 8 == 0:
            self._offset = torch.randn(2, generator=self._generator)

    def recorded(self) -> Mapping[str, Array]:
        return {"offset": self._offset.numpy()}

    def state_dict(self) -> dict[str, Any]:
        return {"last": self._last, "offset": self._offset, "generator": self._generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._last, self._offset = state["last"], state["offset"]
        self._generator.set_state(state["generator"])


class ToyAgent(Agent):
    """Learns to predict the next observation and reward with noisy inputs."""

    fails = False

    def __init__(self, context: AgentContext, config: ToyConfig) -> None:
        self.context, self.config, self.schedule = context, config, config.schedule
        self._generator = torch.Generator().manual_seed(derive_seed(context.seed, "toy"))
        self.model = torch.nn.Linear(4, 5)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=self._generator))
        self._optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.updates = 0
        if context.collects:  # a data set holds nothing of its own actors
            self.recorded = {"offset": (2,)}

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        return ToyActor(self, evaluation, seed)

    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        self.updates += 1
        if self.fails and self.context.seed == self.config.fail_seed and self.updates == self.config.fail_update:
            raise ValueError("the toy agent fails on purpose")
        observation, reward = torch.as_tensor(batch["observation"]), torch.as_tensor(batch["reward"])
        keep = torch.rand(observation.shape, generator=self._generator) > 0.1
        predicted = self.model(observation * keep)[:, :-1]
        if self.recorded:
            predicted = predicted + 0.01 * torch.as_tensor(batch["offset"]).mean()
        target = torch.cat([observation[:, 1:], reward[:, 1:, None]], -1)
        loss = (predicted - target).square().mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        if self.updates == self.config.nan_update:
            loss = loss * torch.nan
        return {"loss": loss, "updates_of_agent": self.updates}

    def for_finetuning(self, context: AgentContext) -> Agent:
        agent = type(self)(context, self.config)
        agent.model.load_state_dict(self.model.state_dict())
        return agent

    def state_dict(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])
        self.updates = state["updates"]


class FailingAgent(ToyAgent):
    """Raises in one update of one seed."""

    fails = True


class CautiousConfig(ToyConfig):
    """What caution adds: the share of the pretrained weights that fine-tuning starts from."""

    kept_share: float = 0.5


class CautiousAgent(ToyAgent):
    """Starts its fine-tuning from a share of the pretrained weights."""

    config: CautiousConfig

    def for_finetuning(self, context: AgentContext) -> Agent:
        agent = super().for_finetuning(context)
        assert isinstance(agent, CautiousAgent)
        with torch.no_grad():
            for parameter in agent.model.parameters():
                parameter.mul_(self.config.kept_share)
        return agent


def _protocol(preset: str, pretrain: int, finetune: int) -> Protocol:
    return Protocol(
        preset=preset,
        description="tiny",
        pretrain_frames=pretrain,
        snapshots=(pretrain // 2, pretrain),
        finetune_frames=finetune,
        eval_every_frames=finetune // 4,
        eval_episodes=3,
    )


SUITE = Suite(
    name="toy-states",
    version=1,
    description="a point on a line",
    observation="states",
    action_repeat=1,
    domains=(
        Domain(name="ball", primal_task="ball_left", max_episode_frames=EPISODE_FRAMES),
        Domain(name="cube", primal_task="cube_near", max_episode_frames=EPISODE_FRAMES),
    ),
    tasks=tuple(Task(name=name, domain=name.partition("_")[0], description="be there") for name in PLACES),
    protocols={
        "paper": _protocol("paper", 400, 240),
        "small": _protocol("small", 200, 160),
        "smoke": _protocol("smoke", 100, 80),
    },
    score="normalised_return",
    normaliser=Normaliser(
        name="toy-expert", version=1, source="made up", references=dict.fromkeys(PLACES, float(EPISODE_FRAMES))
    ),
    environment=f"{__name__}:make_environment",
    packages=("numpy",),
)


PIXELS = SUITE.model_copy(
    update={
        "name": "toy-pixels",
        "description": "a point on a line, seen as an image",
        "observation": "pixels",
        "action_repeat": 2,
        "environment": f"{__name__}:make_pixel_environment",
    }
)


def _search_protocol(preset: str, pretrain: int, episodes: int, **rules: Any) -> Protocol:
    return Protocol(
        preset=preset,
        description="tiny",
        pretrain_frames=pretrain,
        snapshots=(pretrain // 2, pretrain),
        eval_episodes=episodes,
        search=Search(**rules),
    )


def _search_protocols(**rules: Any) -> dict[str, Protocol]:
    released = {"criterion": "episode_return", "actions": "sampled", "stop_when_found": False}
    protocols = (
        _search_protocol("paper", 400, 12, skill_steps=3, **rules),
        _search_protocol("paper-released-code", 400, 12, skill_steps=3, **(rules | released)),
        _search_protocol("small", 200, 11, skill_steps=3, **rules),
        _search_protocol("smoke", 100, 3, skill_steps=3, **rules),
    )
    return {protocol.preset: protocol for protocol in protocols}


SEARCH = SUITE.model_copy(
    update={
        "name": "toy-search",
        "description": "places on a line, to be found by agents pretrained in toy-states",
        "protocols": _search_protocols(found_reward=0.9),
        "score": "goals_found",
        "normaliser": None,
        "pretrained_in": "toy-states",
    }
)
GOAL_SUITE = Suite(
    name="toy-goals",
    version=1,
    description="goals on a line",
    observation="states",
    action_repeat=2,
    domains=(Domain(name="line", primal_task="line_find", max_episode_frames=EPISODE_FRAMES),),
    tasks=(Task(name="line_find", domain="line", description="find the goal"),),
    protocols=_search_protocols(found_reward=1.0, goals=GOALS, stop_when_found=True),
    score="goals_found",
    normaliser=None,
    environment=f"{__name__}:make_goal_environment",
    packages=("numpy",),
    goal_sets=GoalSets(goals=GOALS, reachable=dict.fromkeys(range(10), GOALS), source="made up"),
)


def _agent(
    name: str, build: type[ToyAgent], description: str, config: type[ToyConfig] = ToyConfig, **more: Any
) -> AgentSpec:
    return AgentSpec(
        name=name,
        description=description,
        paper="none",
        observations=("states",),
        pretrains=True,
        config=config,
        build=build,
        presets={},
        **more,
    )


TOY = _agent("toy", ToyAgent, "learns a linear model")
TOY_CAUTIOUS = _agent(
    "toy-cautious",
    CautiousAgent,
    "starts from a share of what toy has learned",
    CautiousConfig,
    pretrained_as="toy",
    finetuning_settings=("kept_share",),
)
TOY_FAIL = _agent("toy-fail", FailingAgent, "raises in one update of one seed")

for _suite in (SUITE, PIXELS, SEARCH, GOAL_SUITE):
    register_suite(_suite)
for _agent_spec in (TOY, TOY_CAUTIOUS, TOY_FAIL):
    register_agent(_agent_spec)
