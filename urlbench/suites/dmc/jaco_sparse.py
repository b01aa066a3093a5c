"""Sparse Jaco: does an agent that was pretrained without rewards find a target, with nothing to tell it where?

Source: Mazzaglia et al. 2023 (Choreographer), sec. 4.2 and app. B.2. The pretrainings are those of URLB from pixels on
Jaco. Imports no simulator, so that listing and planning stay light.
"""

from urlbench.core.types import Protocol, Search, Suite
from urlbench.suites.dmc.urlb_pixels import SUITE as URLB

# The reward is 1e-4 at three times the target's radius, 0.15 m from it, and never 0.
_SEARCH = Search(found_reward=1e-4)


def _protocol(preset: str, description: str, pretrained: Protocol, episodes: int, search: Search) -> Protocol:
    """A search in `episodes` after the pretraining of `pretrained`."""
    return Protocol(
        preset=preset,
        description=description,
        pretrain_frames=pretrained.pretrain_frames,
        snapshots=pretrained.snapshots,
        eval_episodes=episodes,
        search=search,
    )


_PROTOCOLS = (
    _protocol("paper", "the published protocol", URLB.protocols["paper"], 100, _SEARCH),
    # The released code calls an episode successful whose 125 rewards sum to more than the threshold, which many tiny
    # ones can, and samples actions.
    _protocol(
        "paper-released-code",
        "the published budgets, with sampled actions, and found if an episode's return is above 1e-4",
        URLB.protocols["paper"],
        100,
        Search(found_reward=1e-4, criterion="episode_return", actions="sampled"),
    ),
    _protocol(
        "small",
        "a seventieth of the pretraining and a tenth of the episodes; no score compares with a published one",
        URLB.protocols["small"],
        10,
        _SEARCH,
    ),
    _protocol(
        "smoke",
        "checks that everything runs, in a minute or two a job; the scores mean nothing",
        URLB.protocols["smoke"],
        2,
        _SEARCH,
    ),
)

SUITE = Suite(
    name="jaco-sparse",
    version=1,
    description="4 targets that a pretrained Jaco arm, seen in 64x64 images, has to find without learning any more",
    observation="pixels",
    action_repeat=URLB.action_repeat,
    domains=tuple(domain for domain in URLB.domains if domain.name == "jaco"),
    tasks=tuple(task for task in URLB.tasks if task.domain == "jaco"),
    protocols={protocol.preset: protocol for protocol in _PROTOCOLS},
    score="goals_found",
    normaliser=None,
    environment=URLB.environment,
    packages=URLB.packages,
    requirements=URLB.requirements,
    pretrained_in=URLB.name,
)
