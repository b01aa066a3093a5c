"""URLB from pixels: the tasks and budgets of URLB from states, seen as 64x64 images, with each action repeated twice.

Source: Laskin et al. 2021 (URLB) and Mazzaglia et al. 2023 (Choreographer), sec. 4.1 and app. B.2. Imports no
simulator, so that listing and planning stay light.
"""

from urlbench.core.types import Normaliser, Protocol, Suite
from urlbench.suites.dmc.urlb_states import SUITE as URLB

# Software renderers draw 15 to 80 images a second. Multiples of 1000 and of 250, as in URLB from states.
_SMOKE = Protocol(
    preset="smoke",
    description="checks that everything runs, in about a minute a job; the scores mean nothing",
    pretrain_frames=2_000,
    snapshots=(2_000,),
    finetune_frames=2_000,
    eval_every_frames=2_000,
    eval_episodes=1,
)

assert URLB.normaliser is not None
_EXPERT: Normaliser = URLB.normaliser.model_copy(
    update={
        "source": URLB.normaliser.source
        + ". These experts act from states. What the papers divide their pixel scores by is not certain: Choreographer "
        "names the Expert returns, others an agent trained from pixels whose returns were not published"
    }
)

SUITE = Suite(
    name="urlb-pixels",
    version=1,
    description="12 locomotion and reaching tasks from 64x64 images (walker, quadruped, jaco)",
    observation="pixels",
    action_repeat=2,
    domains=URLB.domains,
    tasks=URLB.tasks,
    protocols={**URLB.protocols, _SMOKE.preset: _SMOKE},
    score="normalised_return",
    normaliser=_EXPERT,
    environment="urlbench.suites.dmc.pixels:make_environment",
    packages=URLB.packages,
    requirements=URLB.requirements,
)
