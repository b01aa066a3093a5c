"""The core records: what a suite measures.

Nothing here imports torch, dm_control or pandas. Budgets are in environment frames everywhere
(frames = agent steps x action repeat), and the names say so.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from packaging.requirements import Requirement
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator, model_validator

Phase = Literal["pretrain", "finetune", "search"]
BudgetUnit = Literal["frames", "updates"]
ObservationKind = Literal["states", "pixels"]
Score = Literal["normalised_return", "success_rate", "subtasks", "goals_found"]
# What an environment must tell of every evaluation episode.
OUTCOMES: Mapping[Score, str] = MappingProxyType({"success_rate": "success", "subtasks": "completed"})


class AddedLater:
    """Marks a field of a `Spec`, as `Annotated[kind, AddedLater]`, that configurations had been hashed without.

    `urlbench.core.config.plain_values` leaves it out while it has its default: what was run before is the same run.
    """


class Spec(BaseModel):
    """A frozen record that refuses unknown keys; the base of every specification and configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- Suites: what is measured -----------------------------------------------------------------------


class Transfer(Spec):
    """How a fine-tuning starts from a training of the same agent on the rewards of another task.

    Attributes:
        source: that task, of the same domain. It need not be one of the suite's, but its environment must make it.
        initial_replay: what the fine-tuning's replay holds at its start: nothing (`empty`), or the episodes of that
            training with the rewards that the new task gives for them (`relabelled`).
    """

    source: str
    initial_replay: Literal["empty", "relabelled"] = "empty"

    @property
    def words(self) -> str:
        """In a few words for people."""
        replay = "with an empty replay" if self.initial_replay == "empty" else "with its episodes, relabelled"
        return f"starts from a training on {self.source}, {replay}"


class Task(Spec):
    """One reward function of a domain, for example `walker_flip`.

    Attributes:
        transfer: what its fine-tunings start from; None for the domain's reward-free pretraining, if there is one.
    """

    name: str
    domain: str
    description: str
    transfer: Transfer | None = None


class Domain(Spec):
    """One body and its tasks.

    Attributes:
        primal_task: the task whose environment is used for reward-free pretraining; its reward is
            recorded and shown to no policy. None where there is no such pretraining.
        max_episode_frames: length of every episode, in frames, or of the longest if they end early.
        ends_early: episodes may end before that, by termination (discount 0) or because all is done.
    """

    name: str
    primal_task: str | None = None
    max_episode_frames: int = Field(gt=0)
    ends_early: bool = False


class Search(Spec):
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
    first `data_transitions`; or there is none, and all agents start from nothing. What follows is either a fine-tuning
    or a search for goals without learning (`search`).

    Attributes:
        preset: `paper` are the published budgets, and so are `paper-...` with one other documented choice; every
            other name marks a reduced budget.
        snapshots: pretraining, in `pretrain_unit`, after which the agent is kept; ascending; empty without pretraining.
        eval_every_frames: fine-tuning frames between two evaluations.
        eval_episodes: of each evaluation, or of each goal.
    """

    preset: str
    description: str
    pretrain_frames: int = Field(default=0, ge=0)
    pretrain_updates: int = Field(default=0, ge=0)
    data_transitions: int = Field(default=0, ge=0)
    snapshots: tuple[int, ...] = ()
    finetune_frames: int = Field(default=0, ge=0)
    eval_every_frames: int = Field(default=0, ge=0)
    eval_episodes: int = Field(gt=0)
    # Frozen results made before say `zero_shot`.
    search: Search | None = Field(default=None, validation_alias=AliasChoices("search", "zero_shot"))

    @model_validator(mode="after")
    def _budgets_fit(self) -> "Protocol":
        if self.pretrain_frames and self.pretrain_updates:
            raise ValueError("give either pretrain_frames or pretrain_updates")
        if bool(self.pretrain_updates) != bool(self.data_transitions):
            raise ValueError("pretrain_updates and data_transitions belong together")
        if bool(self.snapshots) != bool(self.pretrain_budget):
            raise ValueError("a pretraining keeps at least one snapshot, and without pretraining there is none to keep")
        if list(self.snapshots) != sorted(set(self.snapshots)) or min(self.snapshots, default=1) <= 0:
            raise ValueError(f"snapshots {self.snapshots} must be positive, ascending and distinct")
        if self.last_snapshot > self.pretrain_budget:
            raise ValueError(
                f"snapshot {self.last_snapshot} lies beyond pretrain_{self.pretrain_unit} {self.pretrain_budget}"
            )
        if self.search is not None:
            if self.finetune_frames or self.eval_every_frames:
                raise ValueError("a protocol that searches has no fine-tuning")
        elif not (self.finetune_frames and self.eval_every_frames) or self.finetune_frames % self.eval_every_frames:
            raise ValueError(
                f"eval_every_frames {self.eval_every_frames} must divide finetune_frames {self.finetune_frames}, "
                "or the final score would not be taken at the end of the budget"
            )
        return self

    @property
    def pretrain_budget(self) -> int:
        """Length of the pretraining, in `pretrain_unit`; 0 if there is none."""
        return self.pretrain_frames or self.pretrain_updates

    @property
    def last_snapshot(self) -> int:
        """What runs start from unless another one is chosen; 0 without pretraining."""
        return self.snapshots[-1] if self.snapshots else 0

    @property
    def pretrain_unit(self) -> BudgetUnit:
        """What pretraining and snapshots are counted in."""
        return "updates" if self.pretrain_updates else "frames"

    @property
    def reduced(self) -> bool:
        """True if no result compares with a published one."""
        return self.preset != "paper" and not self.preset.startswith("paper-")


class Normaliser(Spec):
    """A named, versioned table that turns returns into scores: (return - floor) / (reference - floor).

    Attributes:
        source: where the reference returns were published.
        references: task name to the return that scores 1.
        floors: task name to the return that scores 0, of a random agent say; 0 for tasks without.
    """

    name: str
    version: int
    source: str
    references: dict[str, float]
    floors: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _floors_lie_below(self) -> "Normaliser":
        for task, reference in self.references.items():
            if self.floors.get(task, 0.0) >= reference:
                raise ValueError(f"the reference {reference:g} of {task} is not above {self.floors.get(task, 0.0):g}")
        if unknown := sorted(self.floors.keys() - self.references.keys()):
            raise ValueError(f"the floor of {unknown[0]} has no reference beside it")
        return self


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
        requirements: versions of distributions that the suite was checked with, as pip takes them (`mujoco==3.3.0`); it
            refuses to run with others. What is not named may have any version.
        protocols: budgets by preset; `paper` is the default. All of them end alike: fine-tuned, or a search.
        score: what scores are made of. `normalised_return`: the mean return of an evaluation; `success_rate`: the
            fraction of its episodes that succeed; `subtasks`: the mean number of sub-tasks that its episodes complete,
            divided by `subtasks`; `goals_found`: the fraction of the goals that a search finds.
        normaliser: of returns; None for every other score.
        subtasks: number of sub-tasks of an episode; None for every other score.
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
    score: Score
    normaliser: Normaliser | None
    subtasks: int | None = Field(default=None, gt=0)
    environment: str
    packages: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    pretrained_in: str | None = None
    collection: str | None = None
    goal_sets: GoalSets | None = None

    @model_validator(mode="after")
    def _transfers_fit(self) -> "Suite":
        transferred = {task.name: task.transfer.source for task in self.tasks if task.transfer is not None}
        for name, source in transferred.items():
            if source in transferred:
                raise ValueError(f"{name} is to start from {source}, which starts from another task itself")
        if transferred:
            for protocol in self.protocols.values():
                if not protocol.pretrain_frames or protocol.search is not None:
                    raise ValueError(
                        f"preset {protocol.preset} needs pretrain_frames, for the source of {', '.join(transferred)}, "
                        "and a fine-tuning after them"
                    )
        return self

    @field_validator("requirements")
    @classmethod
    def _requirements_can_be_read(cls, requirements: tuple[str, ...]) -> tuple[str, ...]:
        for line in requirements:
            Requirement(line)  # raises a ValueError that says what is wrong
        return requirements

    @model_validator(mode="after")
    def _score_fits(self) -> "Suite":
        for protocol in self.protocols.values():
            self._check_part(f"search in preset {protocol.preset!r}", protocol.search is not None, "goals_found")
        self._check_part("normaliser", self.normaliser is not None, "normalised_return")
        self._check_part("number of subtasks", self.subtasks is not None, "subtasks")
        references = None if self.normaliser is None else self.normaliser.references
        absent = [task.name for task in self.tasks if references is not None and task.name not in references]
        if absent:
            raise ValueError(f"the normaliser of suite {self.name!r} has no reference of {', '.join(absent)}")
        return self

    def _check_part(self, part: str, is_there: bool, score: Score) -> None:
        """ValueError unless the suite has a part if and only if its score is the one that goes with it."""
        if is_there != (self.score == score):
            has = "a" if is_there else "no"
            raise ValueError(
                f"suite {self.name!r} with score {self.score} has {has} {part}: it goes with score {score} alone"
            )

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
        return "search" if any(protocol.search for protocol in self.protocols.values()) else "finetune"
