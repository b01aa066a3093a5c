"""What agents that learn are: the sum of named components."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from torch import nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import initialised
from urlbench.core.interfaces import Agent, AgentContext
from urlbench.core.seeding import derive_seed

M = TypeVar("M", bound=nn.Module)


class Stateful(Protocol):
    """A module, an optimiser or a source of draws."""

    def state_dict(self) -> dict[str, Any]:
        """Its state, as tensors and plain values."""

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what `state_dict` returned."""


class Learner(Agent):
    """An agent that is the sum of named components, each saved and restored by its own means.

    Args:
        context: where it lives.

    Attributes:
        components: everything that `update` and the actors depend on.
    """

    components: dict[str, Stateful]

    def __init__(self, context: AgentContext) -> None:
        self.context = context
        self._draws = Draws(derive_seed(context.seed, "updates"), context.device)
        self.components = {"draws": self._draws}

    def component(self, name: str, build: Callable[[], M]) -> M:
        """The new component `name`: a module whose initial parameters are drawn from a stream of its own."""
        module = initialised(build, derive_seed(self.context.seed, "init", name)).to(self.context.device)
        self.components[name] = module
        return module

    def actor_draws(self, seed: int) -> Draws:
        """What an actor with that seed draws from."""
        return Draws(derive_seed(seed, "actor"), self.context.device)

    def state_dict(self) -> dict[str, Any]:
        """The components' states by name."""
        return {name: component.state_dict() for name, component in self.components.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore every component; KeyError if one is missing."""
        for name, component in self.components.items():
            component.load_state_dict(state[name])
