"""Uniform random actions: the floor that every agent is measured against."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

from urlbench.agents.common.random_actor import RandomActor
from urlbench.core.interfaces import Actor, Agent, AgentContext, AgentSpec, Array, Schedule
from urlbench.core.types import Spec


class RandomConfig(Spec):
    """It has nothing to set."""


class RandomAgent(Agent):
    """Never learns."""

    schedule = Schedule(update_every_frames=None, seed_frames=0, random_action_phases=())

    def __init__(self, context: AgentContext, config: RandomConfig) -> None:
        self._action_dim = context.action_dim

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """The same in training and in evaluation."""
        return RandomActor(self._action_dim, seed)

    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """Nothing to learn; the schedule never asks for it."""
        return {}

    def for_finetuning(self, context: AgentContext) -> Agent:
        """Nothing to carry over."""
        return RandomAgent(context, RandomConfig())

    def state_dict(self) -> dict[str, Any]:
        """Empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


SPEC = AgentSpec(
    name="random",
    description="uniform random actions, no learning",
    paper="the random baseline of Laskin et al. 2021 (URLB)",
    observations=("states", "pixels"),
    pretrains=False,
    config=RandomConfig,
    build=RandomAgent,
    presets={},
    looks=False,
)
