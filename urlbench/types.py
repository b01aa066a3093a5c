"""The core types: what a suite measures, what an agent is, what a job does.

Nothing here imports torch, dm_control or pandas. Budgets are in environment frames everywhere
(frames = agent steps x action repeat), and the names say so.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol as TypingProtocol, SupportsFloat

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

Phase = Literal["pretrain", "finetune", "evaluate"]
BudgetUnit = Literal["frames", "updates"]
ObservationKind = Literal["states", "pixels"]
Array = npt.NDArray[Any]


class Spec(BaseModel):
    """A frozen record that refuses unknown keys; the base of every specification and configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- Suites: what is measured -----------------------------------------------------------------------


class Task(Spec):
    """One reward function of a domain, for example `walker_flip`."""

    name: str
    domain: str
    description: str


class Domain(Spec):
    """One body and its tasks.

    Attributes:
        primal_task: the task whose environment is used for reward-free pretraining; its reward is
            recorded and shown to no policy.
        episode_frames: length of every episode, in frames; no task ends early.
    """

    name: str
    primal_task: str
    episode_frames: int = Field(gt=0)


class ZeroShot(Spec):
    """How a pretrained agent is searched for goals without learning anything more.

    Attributes:
        goals: goals of a task, each looked for in `Protocol.eval_episodes` episodes.
        found_reward: the threshold of `criterion`.
        criterion: `step_reward` finds a goal when the reward of one agent step is at least `found_reward`;
            `episode_return` when the sum of an episode is above it.
        actions: the policy's `mean` (or mode), or `sampled` from it.
        skill_steps: agent steps after which agents with skills draw another one.
        stop_when_found: an episode ends when it has found its goal; its return then says nothing.
    """

    goals: int = Field(default=1, gt=0)
    found_reward: float
    criterion: Literal["step_reward", "episode_return"] = "step_reward"
    actions: Literal["mean", "sampled"] = "mean"
    skill_steps: int = Field(default=50, gt=0)
    stop_when_found: bool = False

    def words(self, episodes: int) -> str:
        """The search in one sentence for people, with `episodes` for each goal."""
        found = "a step reward of at least" if self.criterion == "step_reward" else "an episode's return above"
        end = "left when the goal is found" if self.stop_when_found else "played to the end"
        return (
            f"{_counted(self.goals, 'goal')} a task, {_counted(episodes, 'episode')} each, {end}; a goal is found by "
            f"{found} {self.found_reward:g}; {self.actions} actions, skills drawn anew every {self.skill_steps} steps"
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Protocol(Spec):
    """The budgets of one preset of a suite, in environment frames unless a name says otherwise.

    Pretraining is either `pretrain_frames` of the agent's own exploration or `pretrain_updates` on a data set's
    first `data_transitions`. What follows is either a fine-tuning or a search for goals without learning
    (`zero_shot`).

    Attributes:
        preset: `paper` are the published budgets, and so are `paper-...` with one other documented choice; every
            other name marks a reduced budget.
        snapshots: pretraining, in `pretrain_unit`, after which the agent is kept; ascending.
        eval_every_frames: fine-tuning frames between two evaluations.
        eval_episodes: of each evaluation, or of each goal.
    """

    preset: str
    description: str
    pretrain_frames: int = Field(default=0, ge=0)
    pretrain_updates: int = Field(default=0, ge=0)
    data_transitions: int = Field(default=0, ge=0)
    snapshots: tuple[int, ...] = Field(min_length=1)
    finetune_frames: int = Field(default=0, ge=0)
    eval_every_frames: int = Field(default=0, ge=0)
    eval_episodes: int = Field(gt=0)
    zero_shot: ZeroShot | None = None

    @model_validator(mode="after")
    def _budgets_fit(self) -> "Protocol":
        if bool(self.pretrain_frames) == bool(self.pretrain_updates):
            raise ValueError("give either pretrain_frames or pretrain_updates")
        if bool(self.pretrain_updates) != bool(self.data_transitions):
            raise ValueError("pretrain_updates and data_transitions belong together")
        if list(self.snapshots) != sorted(set(self.snapshots)) or self.snapshots[0] <= 0:
            raise ValueError(f"snapshots {self.snapshots} must be positive, ascending and distinct")
        if self.snapshots[-1] > self.pretrain_budget:
            raise ValueError(
                f"snapshot {self.snapshots[-1]} lies beyond pretrain_{self.pretrain_unit} {self.pretrain_budget}"
            )
        if self.zero_shot is not None:
            if self.finetune_frames or self.eval_every_frames:
                raise ValueError("a zero-shot protocol has no fine-tuning")
        elif not (self.finetune_frames and self.eval_every_frames) or self.finetune_frames % self.eval_every_frames:
            raise ValueError(
                f"eval_every_frames {self.eval_every_frames} must divide finetune_frames {self.finetune_frames}, "
                "or the final score would not be taken at the end of the budget"
            )
        return self

    @property
    def pretrain_budget(self) -> int:
        """Length of the pretraining, in `pretrain_unit`."""
        return self.pretrain_frames or self.pretrain_updates

    @property
    def pretrain_unit(self) -> BudgetUnit:
        """What pretraining and snapshots are counted in."""
        return "frames" if self.pretrain_frames else "updates"

    @property
    def reduced(self) -> bool:
        """True if no result compares with a published one."""
        return self.preset != "paper" and not self.preset.startswith("paper-")


class Normaliser(Spec):
    """A named, versioned table that turns returns into scores: score = return / reference.

    Attributes:
        source: where the reference returns were published.
        references: task name to reference return.
    """

    name: str
    version: int
    source: str
    references: dict[str, float]


class ImageFormat(Spec):
    """What an agent sees of a pixel suite: RGB, channels first, uint8 [3 * frame_stack, size, size].

    Attributes:
        frame_stack: images of the latest steps, the oldest first; a reset fills it with copies of one.
    """

    size: int = Field(default=64, gt=0)
    frame_stack: int = Field(default=1, gt=0)


DEFAULT_IMAGE = ImageFormat()


class GoalSets(Spec):
    """Numbered sets of goals; a set is one more thing a result is about, beside task and seed.

    Attributes:
        goals: in each set.
        reachable: number of goals that a simple controller that is told them comes to, by set; few more can be found.
        source: what `reachable` was measured with.
    """

    goals: int = Field(gt=0)
    reachable: dict[int, int]
    source: str


class Suite(Spec):
    """A set of tasks with one protocol; changing a task, a budget or the normaliser changes `version`.

    Attributes:
        environment: lazy `module:function` with the signature of `EnvironmentFactory`.
        packages: distributions whose versions are part of a result's identity.
        protocols: budgets by preset; `paper` is the default. All of them end alike: fine-tuned, or zero-shot.
        normaliser: None where scores are fractions of goals found.
        pretrained_in: name of the suite whose pretrainings are used; None for its own.
        collection: name of the exploration method whose data set is pretrained on; None to pretrain online.
        goal_sets: None for suites without.
    """

    name: str
    version: int
    description: str
    observation: ObservationKind
    action_repeat: int = Field(gt=0)
    domains: tuple[Domain, ...]
    tasks: tuple[Task, ...]
    protocols: dict[str, Protocol]
    normaliser: Normaliser | None
    environment: str
    packages: tuple[str, ...]
    pretrained_in: str | None = None
    collection: str | None = None
    goal_sets: GoalSets | None = None

    def domain(self, name: str) -> Domain:
        """The domain of that name; KeyError if there is none."""
        return {domain.name: domain for domain in self.domains}[name]

    def task(self, name: str) -> Task:
        """The task of that name; KeyError if there is none."""
        return {task.name: task for task in self.tasks}[name]

    @property
    def full_name(self) -> str:
        """`name@version`, as used in paths and tables."""
        return f"{self.name}@{self.version}"

    @property
    def measured_phase(self) -> Phase:
        """The phase that gives the scores."""
        return "evaluate" if any(protocol.zero_shot for protocol in self.protocols.values()) else "finetune"


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


class PhysicsEnvironment(Environment, TypingProtocol):
    """An environment whose physics can be read and set; data sets hold the states of its physics."""

    def physics_state(self) -> Array:
        """Positions, velocities and activations, float64 [P]."""

    def set_physics_state(self, state: Array) -> None:
        """Put the physics into `state` [P], with everything that follows from it; an episode must be under way."""

    def present_reward(self) -> float:
        """The task's reward of the state the physics is in, without a step."""


class EnvironmentFactory(TypingProtocol):
    """Builds the environment of one task.

    Factories of pixel suites also take `image: ImageFormat | None`, where None renders nothing (the agent does not
    look), and those of suites with goal sets `goal_set: int`, the number of the set.
    """

    def __call__(self, task: str, seed: int, action_repeat: int) -> Environment:
        """The environment of `task`, its random stream started from `seed` in [0, 2^32)."""


# --- Agents: what is compared -----------------------------------------------------------------------


class Schedule(Spec):
    """What the runner does for an agent: when it updates, on what, and who acts at the start.

    Attributes:
        update_every_frames: frames between two updates; None for an agent that never learns.
        seed_frames: frames before the first update, in both phases.
        random_action_phases: phases whose first `seed_frames` are acted by uniform random actions.
        seed_action_bound: `one` draws them from U(-1, 1); `action_dim` from U(-A, A) as the released
            Choreographer code does by accident (physics clamps them, replay stores them unclamped).
        batch_size: sequences a batch (B).
        batch_length: steps a sequence (T).
        replay_capacity_steps: agent steps kept; the oldest episodes are dropped beyond it.
    """

    update_every_frames: int | None = Field(default=10, gt=0)
    seed_frames: int = Field(default=4000, ge=0)
    random_action_phases: tuple[Phase, ...] = ("pretrain",)
    seed_action_bound: Literal["one", "action_dim"] = "one"
    batch_size: int = Field(default=50, gt=0)
    batch_length: int = Field(default=50, gt=0)
    replay_capacity_steps: int = Field(default=2_000_000, gt=0)


@dataclass(frozen=True)
class AgentContext:
    """What an agent is told about where it will live.

    Attributes:
        observation_shape: [O] from states, [3 * stack, H, W] from pixels.
        seed: of the run; agents derive their streams from it by name.
        collects: False for pretraining from a fixed data set, where no exploration policy is needed.
        device: a torch device string.
    """

    observation_kind: ObservationKind
    observation_shape: tuple[int, ...]
    action_dim: int
    action_repeat: int
    seed: int
    collects: bool = True
    device: str = "cpu"


class Actor(ABC):
    """Acts in one stream of episodes: recurrent state, current skill and the random stream live here.

    The training actor is made once and checkpointed; each evaluation episode has a fresh one, so evaluating
    never changes training.
    """

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
        recorded: shape of each float32 array that its actors have the replay keep with every entry, by name.
    """

    schedule: Schedule
    recorded: Mapping[str, tuple[int, ...]] = MappingProxyType({})

    @abstractmethod
    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """An actor that uses this agent's current weights, its random stream started from `seed`.

        Args:
            evaluation: True for deterministic actions (policy mean or mode).
            seed: of the actor's own random stream.
        """

    def zero_shot_actor(self, *, seed: int, skill_steps: int, sample: bool) -> Actor:
        """What a pretrained agent looks for goals with, when it learns nothing more.

        Args:
            seed: of the actor's own random stream.
            skill_steps: agents with skills draw one at each episode start and whenever the step counter divides this.
            sample: draw actions from the policy instead of taking its mean or mode.
        """
        return self.actor(evaluation=not sample, seed=seed)

    @abstractmethod
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """One full update of every component.

        Args:
            batch: `observation` [B, T, ...], `action` [B, T, A] (the one that led to the observation),
                `reward` [B, T], `discount` [B, T], `is_first` [B, T] bool, and [B, T, ...] what is `recorded`.

        Returns:
            Metrics by name; converted to floats only when the runner logs them.
        """

    @abstractmethod
    def for_finetuning(self, context: AgentContext) -> "Agent":
        """A new agent that starts a fine-tuning from what this one has learned."""

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


# --- Jobs: what is run ------------------------------------------------------------------------------


class JobSpec(Spec):
    """Everything that determines a run's result; its hash is the job's id.

    Attributes:
        suite: `name@version`.
        task: the primal task when pretraining.
        snapshot: of the pretraining, in the protocol's `pretrain_unit`, that the job starts from; 0 if none.
        parent: job id of that pretraining.
        image: what the agent sees of a pixel suite; None from states, and if it does not look.
        goal_set: number of the goal set; None for suites without.
        data: fingerprint of the data set that is pretrained on; None online.
        agent_config: the resolved configuration, as plain JSON values.
        versions: versions of the packages that are part of a result's identity.
    """

    suite: str
    observation: ObservationKind
    action_repeat: int
    agent: str
    agent_config: dict[str, Any]
    protocol: Protocol
    phase: Phase
    domain: str
    task: str
    seed: int
    snapshot: int = 0
    parent: str | None = None
    image: ImageFormat | None = None
    goal_set: int | None = None
    data: str | None = None
    versions: dict[str, str]


class Job(Spec):
    """A JobSpec with its id and its place on disk.

    Attributes:
        id: the first 16 hex digits of the SHA-256 of the spec's canonical JSON.
        path: run directory, relative to the runs root.
        parent_path: run directory of the parent, relative to the runs root; None without a parent.
        plugins: files or modules that register the suite or the agent; not part of the identity.
        data_path: folder of the data set that is pretrained on; not part of the identity, its fingerprint is.
    """

    id: str
    path: str
    spec: JobSpec
    parent_path: str | None = None
    plugins: tuple[str, ...] = ()
    data_path: str | None = None

    @property
    def label(self) -> str:
        """A short name for people: `choreographer finetune walker_walk seed 0`."""
        spec = self.spec
        where = spec.domain if spec.phase == "pretrain" else spec.task
        if spec.goal_set is not None and spec.phase != "pretrain":
            where += f" goal set {spec.goal_set}"
        start = f" from {spec.snapshot}" if spec.snapshot else ""
        return f"{spec.agent} {spec.phase} {where}{start} seed {spec.seed}"


class Plan(Spec):
    """Jobs in an order in which every parent comes before its children."""

    jobs: tuple[Job, ...]
