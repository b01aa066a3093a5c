"""Meta-World reach: which goals of a set does an agent find that was pretrained without rewards and is told none?

Source: Mazzaglia et al. 2023 (Choreographer), sec. 4.2 and app. B.2; the reach task is Meta-World's in version 3, where
they used version 2. The suite from states is ours, for machines that draw pictures slowly. Imports no simulator, so
that listing and planning stay light.
"""

from urlbench.core.types import Domain, GoalSets, ObservationKind, Protocol, Search, Suite, Task

_DOMAIN = Domain(name="metaworld", primal_task="reach", max_episode_frames=500)
_TASK = Task(name="reach", domain=_DOMAIN.name, description="bring the hand within 0.05 m of the goal")

# A step's reward is the number of its frames that are successes. Actions are sampled, as in the code that gave the
# published numbers (the paper does not say): once a goal is set nothing in an episode is random but the agent, so an
# agent without skills would play its 100 episodes of a goal alike with the mean of its policy.
_SEARCH = Search(goals=50, found_reward=1.0, actions="sampled", skill_steps=50, stop_when_found=True)


def _protocol(preset: str, description: str, frames: int, episodes: int, search: Search) -> Protocol:
    """A search in `episodes` for each goal, after pretraining for `frames`."""
    snapshots = (100_000, 500_000, 1_000_000, 2_000_000)
    return Protocol(
        preset=preset,
        description=description,
        pretrain_frames=frames,
        snapshots=snapshots if frames == snapshots[-1] else (frames,),
        eval_episodes=episodes,
        search=search,
    )


_PROTOCOLS = (
    _protocol("paper", "the published protocol", 2_000_000, 100, _SEARCH),
    _protocol(
        "paper-mean-actions",
        "the published protocol, but with the mean of the policy instead of sampled actions",
        2_000_000,
        100,
        _SEARCH.model_copy(update={"actions": "mean"}),
    ),
    _protocol(
        "small",
        "a seventieth of the pretraining and a fiftieth of the episodes; no score compares with a published one",
        30_000,
        2,
        _SEARCH,
    ),
    # Software renderers draw 10 to 20 of these pictures a second.
    _protocol(
        "smoke",
        "checks that everything runs, in a minute or two a job, with the first 3 goals; the scores mean nothing",
        1_500,
        1,
        _SEARCH.model_copy(update={"goals": 3}),
    ),
)

_GOAL_SETS = GoalSets(
    goals=50,
    reachable={0: 40, 1: 43, 2: 44, 3: 45, 4: 47, 5: 43, 6: 45, 7: 41, 8: 44, 9: 46},
    source=(
        "what a proportional controller that is told the goal comes to in an episode of 500 frames (metaworld 3.1.1, "
        "mujoco 3.3.0; python -m urlbench.suites.metaworld.reach_ceiling); with more swing the arm can come to one or "
        "two more"
    ),
)


def _suite(name: str, description: str, observation: ObservationKind, factory: str) -> Suite:
    return Suite(
        name=name,
        version=1,
        description=description,
        observation=observation,
        action_repeat=2,
        domains=(_DOMAIN,),
        tasks=(_TASK,),
        protocols={protocol.preset: protocol for protocol in _PROTOCOLS},
        score="goals_found",
        normaliser=None,
        environment=f"urlbench.suites.metaworld.sawyer_reach:{factory}",
        packages=("metaworld", "mujoco"),
        requirements=("metaworld==3.1.1", "mujoco==3.3.0"),
        goal_sets=_GOAL_SETS,
    )


PIXELS = _suite(
    "metaworld-reach",
    "sets of 50 goals that a pretrained Sawyer arm, seen in 64x64 images, has to find without learning any more",
    "pixels",
    "make_pixels",
)
STATES = _suite(
    "metaworld-reach-states",
    "sets of 50 goals that a pretrained Sawyer arm has to find from states, without learning any more",
    "states",
    "make_states",
)
