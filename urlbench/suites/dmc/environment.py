"""dm_control environments behind urlbench's `Environment`: flat float32 observations, actions in [-1, 1].

Source: the wrapper stack of URLB (Laskin et al. 2021), reduced to what it computes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import dm_env
import numpy as np

from urlbench.core.errors import unknown_name
from urlbench.core.interfaces import Array, Cell, TimeStep
from urlbench.suites.rendering import imported_without_graphics

with imported_without_graphics():
    from urlbench.suites.dmc import coverage, jaco, quadruped, walker

TASKS = tuple(
    f"{domain}_{name}"
    for domain, names in (("walker", walker.TASKS), ("quadruped", quadruped.TASKS), ("jaco", jaco.TASKS))
    for name in names
)


def make_environment(
    task: str, seed: int, action_repeat: int, *, variant: jaco.Variant = "urlb", observed: bool = True
) -> "DmcEnvironment":
    """The environment of a URLB task, for example `walker_flip`.

    Args:
        task: `domain_task`.
        seed: of the stream that resets draw from, in [0, 2^32).
        action_repeat: frames an action is applied for.
        variant: only jaco differs; see `urlbench.suites.dmc.jaco`.
        observed: False computes no observations; they are empty, everything else is the same.

    Raises:
        UserError: if there is no such task.
    """
    if task not in TASKS:
        raise unknown_name("task", task, TASKS, see="urlbench list tasks")
    domain, _, name = task.partition("_")
    if domain == "jaco":
        environment = jaco.make(name, seed, variant, observed=observed)
        return DmcEnvironment(environment, environment.random_state, action_repeat, coverage.CELLS[domain])
    environment = {"walker": walker, "quadruped": quadruped}[domain].make(name, seed)
    if not observed:
        environment.task.get_observation = lambda physics: {}
    return DmcEnvironment(environment, environment.task.random, action_repeat, coverage.CELLS[domain])


class DmcEnvironment:
    """A dm_control environment of the suite or of composer; implements `urlbench.core.interfaces.Environment`.

    Deterministic given `random_state()` before a reset and the actions since: every reset starts the physics from
    scratch, so nothing else is carried from one episode to the next.

    Attributes:
        environment: the wrapped dm_control environment.
    """

    def __init__(
        self,
        environment: Any,
        random_state: np.random.RandomState,
        action_repeat: int,
        cell: Callable[[Any, Any], Cell],
    ) -> None:
        """Wrap `environment`.

        Args:
            environment: `dm_control.rl.control.Environment` or `dm_control.composer.Environment`.
            random_state: the generator that its resets draw from.
            action_repeat: frames an action is applied for.
            cell: of its task and physics, see `coverage`.
        """
        self.environment, self._cell = environment, cell
        self.action_repeat = action_repeat
        self._random = random_state
        self._over = True

        sizes = [int(np.prod(spec.shape, dtype=int)) for spec in environment.observation_spec().values()]
        ends = np.cumsum(sizes).tolist()
        self._slices = tuple(slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
        self.observation_shape: tuple[int, ...] = (sum(sizes),)
        self.observation_dtype: np.dtype[Any] = np.dtype(np.float32)

        spec = environment.action_spec()
        self.action_dim = int(spec.shape[0])
        # Bounds and ranges are float32, the scaling is float64 and its result float32 again: what the published stack
        # does, where controls are compared exactly.
        low, high = (
            np.broadcast_to(np.asarray(bound, np.float32), spec.shape) for bound in (spec.minimum, spec.maximum)
        )
        self._low = low.astype(np.float64)
        self._half_range = (high - low).astype(np.float64) / 2

    @property
    def physics(self) -> Any:
        """The physics of the current episode; composer makes a new one at each reset, so do not keep it."""
        return self.environment.physics

    def reset(self) -> TimeStep:
        """Start an episode."""
        timestep = self.environment.reset()
        self._over = False
        return TimeStep(self._flat(timestep.observation), 0.0, 1.0, True, False)

    def step(self, action: Array) -> TimeStep:
        """Apply `action` [A] for `action_repeat` frames, or until the episode ends.

        Values beyond [-1, 1] are handed on: the physics clamps them.

        Raises:
            RuntimeError: before the first reset and after the last step of an episode.
        """
        if self._over:
            raise RuntimeError("no episode is under way: call reset() first and after a step with is_last.")
        control = self.control(action)
        reward = 0.0
        for _ in range(self.action_repeat):
            timestep = self.environment.step(control)
            reward += timestep.reward
            if timestep.step_type is dm_env.StepType.LAST:
                self._over = True
                break
        return TimeStep(self._flat(timestep.observation), float(reward), float(timestep.discount), False, self._over)

    def control(self, action: Array) -> Array:
        """What the physics receives for `action` [A]: [-1, 1] mapped linearly to its ranges, float64 [A].

        Rounded to float32 values, as published.
        """
        assert action.shape == (self.action_dim,), f"action has shape {action.shape}, expected ({self.action_dim},)"
        control: Array = self._low + self._half_range * (action.astype(np.float64) + 1.0)
        return control.astype(np.float32).astype(np.float64)

    def random_state(self) -> dict[str, Any]:
        """The state of the stream that the next `reset` draws from, as plain JSON values."""
        state: dict[str, Any] = self._random.get_state(legacy=False)
        key, position = state["state"]["key"], state["state"]["pos"]
        return {
            "bit_generator": state["bit_generator"],
            "state": {"key": key.tolist(), "pos": int(position)},
            "has_gauss": int(state["has_gauss"]),
            "gauss": float(state["gauss"]),
        }

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        inner = state["state"]
        self._random.set_state({**state, "state": {**inner, "key": np.asarray(inner["key"], np.uint32)}})

    def reseed(self, seed: int) -> None:
        """Start the random stream anew, from `seed` in [0, 2^32)."""
        self._random.seed(seed)

    def physics_state(self) -> Array:
        """Positions, velocities and activations, float64 [P]."""
        state: Array = np.array(self.physics.get_state(), np.float64)
        return state

    def set_physics_state(self, state: Array) -> None:
        """Put the physics into `state` [P], as ExORL does to label recorded states with rewards.

        The solver starts without memory, which for jaco's contacts is not how a recorded step began.
        """
        with self.physics.reset_context():
            self.physics.set_state(np.asarray(state, np.float64))

    def present_reward(self) -> float:
        """The task's reward of the state the physics is in, without a step."""
        return float(self.environment.task.get_reward(self.physics))

    def cell(self) -> Cell:
        """See `coverage`."""
        return self._cell(self.environment.task, self.physics)

    def _flat(self, observation: Mapping[str, Array]) -> Array:
        flat = np.empty(self.observation_shape, np.float32)
        for where, value in zip(self._slices, observation.values(), strict=True):
            flat[where] = value if value.ndim <= 1 else value.ravel()
        return flat
