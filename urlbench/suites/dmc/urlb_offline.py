"""URLB pretrained from recorded exploration: world model and skills from a data set, then fine-tuning as in URLB.

Source: Mazzaglia et al. 2023 (Choreographer), sec. 4.1 and app. B.2, on the data sets of ExORL (Yarats et al. 2022):
the paper's main result from states is on those collected with RND. One suite for each collection method, since each
is a question of its own. Imports no simulator, so that listing and planning stay light.
"""

from typing import Literal

from urlbench.core import exorl
from urlbench.core.interfaces import Environment
from urlbench.core.types import Protocol, Suite
from urlbench.suites.dmc.urlb_states import SUITE as URLB

JACO_VARIANT: Literal["exorl_as_in_choreographer"] = "exorl_as_in_choreographer"

_FINETUNING = {preset: protocol.model_dump() for preset, protocol in URLB.protocols.items()}


def _protocol(preset: str, description: str, updates: int, transitions: int, snapshots: tuple[int, ...]) -> Protocol:
    """Fine-tuning as in URLB with the same preset, after `updates` on the first `transitions`."""
    pretraining = {
        "description": description,
        "pretrain_frames": 0,
        "pretrain_updates": updates,
        "data_transitions": transitions,
        "snapshots": snapshots,
    }
    return Protocol(**{**_FINETUNING[preset], **pretraining})


# The snapshots are after as many updates as online pretraining makes in 100k, 500k, 1M and 2M frames.
_PROTOCOLS = (
    _protocol("paper", "the published budgets", 200_000, 2_000_000, (10_000, 50_000, 100_000, 200_000)),
    _protocol(
        "small",
        "a seventieth of the updates, for one CPU core; no score compares with a published one",
        3_000,
        30_000,
        (3_000,),
    ),
    _protocol(
        "smoke", "checks that everything runs, well under a minute a job; the scores mean nothing", 40, 3_000, (40,)
    ),
)

# Jaco's target is a place and no brick here, see `make_environment`.
_TASKS = tuple(
    task.model_copy(update={"description": task.description.replace("the brick at", "the place")})
    for task in URLB.tasks
)


def make_environment(task: str, seed: int, action_repeat: int) -> Environment:
    """The environment of a task, for fine-tuning and for collecting data.

    Walker and quadruped are URLB's. Jaco is ExORL's, whose data have 42 observations: the target is a fixed place and
    is not observed, and the hand starts in a larger box. Its resets draw as in the code that produced the published
    numbers; ExORL's own code draws one 3-vector less, so starting poses differ from the second reset on.
    """
    from urlbench.suites.dmc.environment import make_environment as make  # only here: it imports the simulator

    return make(task, seed, action_repeat, variant=JACO_VARIANT)


def _suite(collection: str) -> Suite:
    return Suite(
        name=exorl.suite_name(collection),
        version=1,
        description=exorl.suite_description(collection),
        observation="states",
        action_repeat=1,
        domains=URLB.domains,
        tasks=_TASKS,
        protocols={protocol.preset: protocol for protocol in _PROTOCOLS},
        score="normalised_return",
        normaliser=URLB.normaliser,
        environment=f"{__name__}:make_environment",
        packages=URLB.packages,
        requirements=URLB.requirements,
        collection=collection,
    )


APS, DIAYN, DISAGREEMENT, ICM, ICM_APT, PROTO, RANDOM, RND, SMM = map(_suite, exorl.METHODS)
