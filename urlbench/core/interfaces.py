"""What environments and agents promise: the methods that everything else calls.

Nothing here imports torch or a simulator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, Protocol as TypingProtocol, SupportsFloat, runtime_checkable

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator, model_validator

from urlbench.core.types import DEFAULT_IMAGE, AddedLater, ImageFormat, ObservationKind, Phase, Spec

Array = npt.NDArray[Any]
Precision = Literal["float32", "tf32", "bfloat16"]


# --- Environments -----------------------------------------------------------------------------------


class TimeStep(NamedTuple):
    """What an environment returns.

    Attributes:
        observation: float32 [O] from states, uint8 [3 * stack, H, W] from pixels, uint8 [0] if nobody looks.
        reward: sum over the repeated frames; 0 at a reset.
        discount: 0 at a true termination, else 1.
        is_last: the episode ended, by termination or by its time limit.
    """

    observation: Array
    reward: float
    discount: float
    is_first: bool
    is_last: bool


class Environment(TypingProtocol):
    """An episodic environment with actions in [-1, 1]^A.

    Deterministic given its random state and the actions: the state at an episode's start plus the
    actions since then restore it anywhere (this is how interrupted runs continue bit for bit).
    """

    observation_shape: tuple[int, ...]
    observation_dtype: np.dtype[Any]
    action_dim: int
    action_repeat: int

    def reset(self) -> TimeStep:
        """Start an episode."""

    def step(self, action: Array) -> TimeStep:
        """Apply `action` [A] for `action_repeat` frames; RuntimeError after the last step of an episode."""

    def random_state(self) -> dict[str, Any]:
        """The state of the random stream that the next `reset` draws from; JSON-serialisable."""

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""

    def reseed(self, seed: int) -> None:
        """Start the random stream anew, from `seed` in [0, 2^32)."""


class GoalEnvironment(Environment, TypingProtocol):
    """An environment of a suite with goal sets."""

    def set_goal(self, goal: int | None) -> None:
        """The goal, by its place in the set, of all episodes from the next reset on; None draws one at each reset."""


@runtime_checkable
class JudgedEnvironment(Environment, TypingProtocol):
    """An environment that tells how an episode went, besides its rewards; suites whose score needs that have one."""

    def outcome(self) -> Mapping[str, float]:
        """Of the episode that has ended: `success`, 1 or 0, or `completed`, a number of sub-tasks, or both."""


@runtime_checkable
class PhysicsEnvironment(Environment, TypingProtocol):
    """An environment whose physics can be read and set; data sets and kept episodes hold the states of its physics."""

    def physics_state(self) -> Array:
        """Positions, velocities and activations, float64 [P]."""

    def set_physics_state(self, state: Array) -> None:
        """Put the physics into `state` [P], with everything that follows from it; an episode must be under way."""

    def present_reward(self) -> float:
        """The task's reward of the state the physics is in, without a step."""


@runtime_checkable
class DrawnEnvironment(Environment, TypingProtocol):
    """An environment that knows what draws its pictures, for the manifest; others need not say."""

    def drawn_by(self) -> str | None:
        """Library and renderer in words; None if nothing is drawn."""


@runtime_checkable
class StackedEnvironment(Environment, TypingProtocol):
    """An environment whose observations are its latest frames, the oldest first, joined along their first axis.

    At a reset all of them are the first frame. The replay keeps every frame once; others need not say.
    """

    @property
    def frame_stack(self) -> int:
        """Frames an observation is made of."""


Cell = tuple[int, ...]


@runtime_checkable
class CoveredEnvironment(Environment, TypingProtocol):
    """An environment that sorts its states into cells, to see how much of them a training visits; others need not."""

    def cell(self) -> Cell:
        """That of the present state; draws nothing and changes nothing."""


class EnvironmentFactory(TypingProtocol):
    """Builds the environment of one task.

    Factories of pixel suites also take `image: ImageFormat | None`, where None renders nothing (the agent does not
    look), and those of suites with goal sets `goal_set: int`, the number of the set.
    """

    def __call__(self, task: str, seed: int, action_repeat: int) -> Environment:
        """The environment of `task`, its random stream started from `seed` in [0, 2^32)."""


# --- Agents -----------------------------------------------------------------------------------------


class AgentConfig(Spec):
    """What agents that learn with torch have in common; their configurations inherit it.

    Attributes:
        precision: of the factors of matrix products and convolutions, in the whole run. `tf32` (GPUs from Ampere on)
            keeps 11 significant bits of each and `bfloat16` (CPUs with AMX) 8, instead of 24.
            Parameters, sums, losses, optimisers, distances to neighbours and all else stay float32. It changes results,
            so it is part of the configuration and its hash. Where it would do nothing the run is refused.
    """

    precision: Annotated[Precision, AddedLater] = "float32"


class Batch(Spec):
    """What the windows of a batch are.

    Attributes:
        size: windows (B).
        length: entries of each (T).
        stride: agent steps from one entry to the next, fewer only before an episode's end. The reward of an entry is
            the sum over its steps, its discount their product, all else that of its last step: with the length of
            skills, entries are transitions of whole skills.
        start_every: windows start at a multiple of so many steps of their episode, as skills of that length do.
        newest_steps: only the newest episodes that hold so many steps are sampled; None for all.
    """

    size: int = Field(gt=0)
    length: int = Field(gt=0)
    stride: int = Field(default=1, gt=0)
    start_every: int = Field(default=1, gt=0)
    newest_steps: int | None = Field(default=None, gt=0)

    @property
    def least_steps(self) -> int:
        """Steps that an episode must have for a whole window: the last stride may be cut short by its end."""
        return 0 if self.length == 1 else (self.length - 2) * self.stride + 1


class Schedule(Spec):
    """What the runner does for an agent: when it updates, on what, and who acts at the start.

    Attributes:
        update_every_frames: frames between two updates, or bursts of them; None for an agent that never learns.
        updates: how many are made each time.
        seed_frames: frames before the first update, in both phases.
        catch_up: as soon as it can, the agent makes up for the updates that it would have made until then.
        random_action_phases: phases whose first `seed_frames` are acted by uniform random actions.
        seed_action_bound: `one` draws them from U(-1, 1); `action_dim` from U(-A, A) as the released
            Choreographer code does by accident (physics clamps them, replay stores them unclamped).
        batch_size: sequences a batch (B).
        batch_length: steps a sequence (T).
        batches: what an agent that learns from several at a time is given in place of that one; drawn in the order of
            their names.
        replay_capacity_steps: agent steps kept; the oldest episodes are dropped beyond it.
    """

    update_every_frames: int | None = Field(default=10, gt=0)
    updates: Annotated[int, AddedLater] = Field(default=1, gt=0)
    seed_frames: int = Field(default=4000, ge=0)
    catch_up: Annotated[bool, AddedLater] = False
    random_action_phases: tuple[Phase, ...] = ("pretrain",)
    seed_action_bound: Literal["one", "action_dim"] = "one"
    batch_size: int = Field(default=50, gt=0)
    batch_length: int = Field(default=50, gt=0)
    batches: Annotated[dict[str, Batch], AddedLater] = Field(default={})
    replay_capacity_steps: int = Field(default=2_000_000, gt=0)

    @field_validator("batches")
    @classmethod
    def _in_one_order(cls, batches: dict[str, Batch]) -> dict[str, Batch]:
        # The order of draws must not depend on how a configuration was written down: its hash does not.
        return dict(sorted(batches.items()))

    @model_validator(mode="after")
    def _settings_fit(self) -> "Schedule":
        if self.update_every_frames is None and (self.updates > 1 or self.catch_up):
            raise ValueError("updates and catch_up ask for updates, and update_every_frames null for none")
        for name, batch in self.batches.items():
            if (batch.newest_steps or 0) > self.replay_capacity_steps:
                raise ValueError(
                    f"batch {name!r} is of the newest_steps {batch.newest_steps}, and the replay holds "
                    f"replay_capacity_steps {self.replay_capacity_steps}"
                )
        return self

    @property
    def sampled(self) -> Mapping[str, Batch]:
        """All batches of an update by name; the name is empty for the one that has none."""
        return self.batches or {"": Batch(size=self.batch_size, length=self.batch_length)}


@dataclass(frozen=True)
class DataStatistics:
    """What is known of a data set before an agent learns from it.

    Attributes:
        transitions: how many there are.
        observation_mean: of each number of an observation, float32; so are the others.
        action_mean: without the zeros of the resets.
    """

    transitions: int
    observation_mean: Array
    observation_std: Array
    action_mean: Array
    action_std: Array


@dataclass(frozen=True)
class AgentContext:
    """What an agent is told about where it will live.

    Attributes:
        observation_shape: [O] from states, [3 * stack, H, W] from pixels.
        seed: of the run; agents derive their streams from it by name.
        collects: False for pretraining from a fixed data set, where no exploration policy is needed.
        ends_early: episodes may end before their longest, so windows of them have a `mask` and discounts may be 0.
        data: of the data set that is pretrained on, if the agent's spec asks for it. None in later phases: what they
            need of it is part of the state.
        device: a torch device string.
    """

    observation_kind: ObservationKind
    observation_shape: tuple[int, ...]
    action_dim: int
    action_repeat: int
    seed: int
    collects: bool = True
    ends_early: bool = False
    data: DataStatistics | None = None
    device: str = "cpu"


class Actor(ABC):
    """Acts in one stream of episodes: recurrent state, current skill and the random stream live here.

    The training actor is made once and checkpointed; each evaluation episode has a fresh one, so evaluating
    never changes training.
    """

    def begin_evaluation(self, seed: int) -> None:  # noqa: B027 - most actors have nothing to do here
        """Draw from `seed` what all episodes of an evaluation share; their actors are told the same number."""

    @abstractmethod
    def begin_episode(self) -> None:
        """Forget the recurrent state; draw what an episode starts with (a skill, say)."""

    def before_step(self, step: int) -> None:  # noqa: B027 - most actors have nothing to do here
        """Called before each environment step, also when a uniform random action is taken in place of `act`'s."""

    @abstractmethod
    def act(self, observation: Array, step: int) -> Array:
        """The action, float32 [A], for `observation`; `step` counts the run's agent steps so far."""

    def after_step(self, step: int) -> None:  # noqa: B027 - most actors have nothing to do here
        """Called after each environment step that did not end the episode, with the increased counter."""

    def recorded(self) -> Mapping[str, Array]:
        """What the replay keeps with the entry that is stored next, as `Agent.recorded` says: the skill, say."""
        return {}

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that `act` depends on besides the agent's weights; tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Agent(ABC):
    """A learner of one phase. Pretraining and fine-tuning are two objects, never one with a mode flag.

    Attributes:
        schedule: when the runner calls `update`, and on what batches.
        batch_names: of the schedule's `batches`, if it learns from such.
        recorded: shape of each float32 array that its actors have the replay keep with every entry, by name; in a
            pretraining from data, of what it takes of theirs besides observations, actions, rewards and discounts.
    """

    schedule: Schedule
    batch_names: tuple[str, ...] = ()
    recorded: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    @abstractmethod
    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """An actor that uses this agent's current weights, its random stream started from `seed`.

        Args:
            evaluation: True for deterministic actions (policy mean or mode).
            seed: of the actor's own random stream.
        """

    def search_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """What a pretrained agent looks for goals with, when it learns nothing more.

        Args:
            seed: of the actor's own random stream.
            skill_steps: agents with skills draw one at each episode start and whenever the step counter divides this.
            sample: draw actions from the policy instead of taking its mean or mode.
        """
        return self.actor(evaluation=not sample, seed=seed)

    @abstractmethod
    def update(self, batch: Mapping[str, Any]) -> Mapping[str, SupportsFloat]:
        """One full update of every component.

        Args:
            batch: `observation` [B, T, ...], `action` [B, T, A] (the one that led to the observation),
                `reward` [B, T], `discount` [B, T], `is_first` [B, T] bool, and [B, T, ...] what is `recorded`;
                with `AgentContext.ends_early` also `mask` [B, T] bool, False at the padding behind an episode's end,
                where all else is 0. If the schedule names `batches`, such a mapping for each of the names.

        Returns:
            Metrics by name; converted to floats only when the runner logs them.
        """

    @abstractmethod
    def for_finetuning(self, context: AgentContext) -> "Agent":
        """A new agent that starts a fine-tuning from what this one has learned."""

    def for_transfer(self, context: AgentContext) -> "Agent":
        """The agent that goes on with another task from what this one, a fine-tuning agent, has learned of its own.

        By default this one as it is, optimisers included; agents override it that must begin something anew.
        """
        return self

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers, optimisers, counters and random streams: enough to go on bit for bit."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""


@dataclass(frozen=True)
class AgentSpec:
    """An agent as the registry knows it.

    Attributes:
        paper: citation of the algorithm.
        observations: observation kinds it can be run on.
        pretrains: False for agents that start fine-tuning from nothing (their plan has no pretraining).
        config: its configuration model; the defaults are the published settings.
        presets: changes to the defaults for the reduced presets, by preset name.
        build: makes the pretraining agent (or, if `pretrains` is False, the one `for_finetuning` is asked of).
        image: what it wants to see of pixel suites.
        looks: False for agents that ignore observations: nothing is rendered for them.
        pretrained_as: name of the agent whose pretraining it starts from; None for its own.
        finetuning_settings: dotted configuration keys that no pretraining reads, so that agents and settings which
            differ in nothing else share it. A key of a nested configuration stands for all below it.
        wants_data_statistics: their context has `data`, for which a data set is read once more.
    """

    name: str
    description: str
    paper: str
    observations: tuple[ObservationKind, ...]
    pretrains: bool
    config: type[Spec]
    build: Callable[[AgentContext, Any], Agent]
    presets: Mapping[str, Mapping[str, Any]]
    image: ImageFormat = DEFAULT_IMAGE
    looks: bool = True
    pretrained_as: str | None = None
    finetuning_settings: tuple[str, ...] = ()
    wants_data_statistics: bool = False
