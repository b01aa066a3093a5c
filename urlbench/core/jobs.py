"""The records of what is run: a job, what determines its result, and a plan of jobs."""

from typing import Any

from urlbench.core.types import ImageFormat, ObservationKind, Phase, Protocol, Spec, Transfer


class JobSpec(Spec):
    """Everything that determines a run's result; its hash is the job's id.

    Attributes:
        suite: `name@version`.
        task: when pretraining, the primal task, or the one whose rewards are learned from.
        rewarded: of a pretraining: the agent learns from the rewards of `task`, as in a fine-tuning.
        keeps_episodes: of a pretraining: its episodes stay, with their physics, for replays that start with them.
        transfer: of a fine-tuning, how it starts from a rewarded pretraining; None for another start.
        snapshot: of the pretraining, in the protocol's `pretrain_unit`, that the job starts from; 0 if none.
        parent: job id of that pretraining.
        image: what the agent sees of a pixel suite; None from states, and if it does not look.
        goal_set: number of the goal set; None for suites without.
        data: fingerprint of the data set that is pretrained on; None online.
        agent: of a pretraining, the one that is pretrained: others may start from it, too.
        agent_config: the resolved configuration, as plain JSON values; of a pretraining, what it reads of that.
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
    rewarded: bool = False
    keeps_episodes: bool = False
    transfer: Transfer | None = None
    snapshot: int = 0
    parent: str | None = None
    image: ImageFormat | None = None
    goal_set: int | None = None
    data: str | None = None
    versions: dict[str, str]

    @property
    def place(self) -> str:
        """What the job is about: a domain if it is a reward-free pretraining, else a task."""
        return self.domain if self.phase == "pretrain" and not self.rewarded else self.task

    @property
    def learns(self) -> Phase:
        """The phase that the agent is in: a rewarded pretraining fine-tunes one from nothing."""
        return "finetune" if self.rewarded else self.phase


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
        where = spec.place
        if spec.goal_set is not None and spec.phase != "pretrain":
            where += f" goal set {spec.goal_set}"
        start = f" from {spec.snapshot}" if spec.snapshot else ""
        return f"{spec.agent} {spec.phase} {where}{start} seed {spec.seed}"


class Plan(Spec):
    """Jobs in an order in which every parent comes before its children."""

    jobs: tuple[Job, ...]
