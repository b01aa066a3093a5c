"""What agents with a world model share: saved components, and an actor that filters what it sees."""

from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from urlbench.agents.common import acting
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel, preprocess
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array, Schedule

PIXEL_REPLAY_STEPS = 1_000_000


def schedule_for(schedule: Schedule, context: AgentContext) -> Schedule:
    """`schedule`, but from pixels the replay holds at most 1M steps, as published."""
    if context.observation_kind == "states":
        return schedule
    capacity = min(schedule.replay_capacity_steps, PIXEL_REPLAY_STEPS)
    return schedule.model_copy(update={"replay_capacity_steps": capacity})


class Stateful(Protocol):
    """A module, an optimiser or a source of draws."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""


class Learner(Agent):
    """An agent that is the sum of named components, each saved and restored by its own means.

    Attributes:
        components: everything that `update` and the actors depend on.
    """

    context: AgentContext
    components: dict[str, Stateful]

    def state_dict(self) -> dict[str, Any]:
        """The components' states by name."""
        return {name: component.state_dict() for name, component in self.components.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore every component; KeyError if one is missing."""
        for name, component in self.components.items():
            component.load_state_dict(state[name])


class LatentActor(Actor):
    """Filters observations with a world model and hands the model state to a policy.

    Args:
        world_model: whose current weights it filters with.
        context: action size and device.
        draws: the actor's own.
    """

    def __init__(self, world_model: WorldModel, context: AgentContext, draws: Draws) -> None:
        self._world_model, self._context, self._draws = world_model, context, draws
        self._encoder, self._filter = acting.encoder(world_model.encoder), acting.filter_step(world_model.rssm)
        self._state: LatentState | None = None
        self._action = torch.zeros(1, context.action_dim, device=context.device)

    @abstractmethod
    def policy(self, feat: Tensor, step: int) -> Tensor:
        """The action [1, A] at the model state `feat` [1, F]."""

    def begin_episode(self) -> None:
        """Start from the zero state and the zero action."""
        self._state = None
        self._action = torch.zeros_like(self._action)

    @torch.inference_mode()
    def act(self, observation: Array, step: int) -> Array:
        """The action, float32 [A]; the posterior latent is drawn in evaluation too, as published."""
        model = self._world_model
        state = model.rssm.initial(1) if self._state is None else self._state
        seen = torch.as_tensor(observation, device=self._action.device).unsqueeze(0)
        embed = self._encoder(preprocess(seen, symlog_states=model.config.symlog_states))
        self._state = self._filter(state, self._action, embed, self._draws)
        self._action = self.policy(self._state.feat, step)
        return self._action[0].cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """Model state, last action and draws."""
        state = None if self._state is None else list(self._state)
        return {"state": state, "action": self._action, "draws": self._draws.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        device = self._action.device
        self._state = None if state["state"] is None else LatentState(*(x.to(device) for x in state["state"]))
        self._action = state["action"].to(device)
        self._draws.load_state_dict(state["draws"])
