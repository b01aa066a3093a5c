"""URLB from states: 12 tasks of three bodies, pretrained without rewards and fine-tuned for 100k frames.

Source: Laskin et al. 2021 (URLB); budgets and reference returns as in Mazzaglia et al. 2023
(Choreographer), app. B and Tab. 2. Imports no simulator, so that listing and planning stay light.
"""

from urlbench.core.types import Domain, Normaliser, Protocol, Suite, Task

_DOMAINS = (
    Domain(name="walker", primal_task="walker_stand", max_episode_frames=1000),
    Domain(name="quadruped", primal_task="quadruped_walk", max_episode_frames=1000),
    Domain(name="jaco", primal_task="jaco_reach_top_left", max_episode_frames=250),
)

_DESCRIPTIONS = {
    "walker": {
        "stand": "keep the torso up and high",
        "walk": "stand and move forward at 1 m/s or more",
        "run": "stand and move forward at 8 m/s or more",
        "flip": "stand and turn forward with an angular momentum of 5 or more",
    },
    "quadruped": {
        "walk": "stay upright and move forward at 0.5 m/s or more",
        "run": "stay upright and move forward at 5 m/s or more",
        "stand": "stay upright",
        "jump": "stay upright with the centre of mass at 1 m or higher",
    },
    "jaco": {
        "reach_top_left": "bring the hand to the brick at (-0.09, 0.09) m",
        "reach_top_right": "bring the hand to the brick at (0.09, 0.09) m",
        "reach_bottom_left": "bring the hand to the brick at (-0.09, -0.09) m",
        "reach_bottom_right": "bring the hand to the brick at (0.09, -0.09) m",
    },
}

_TASKS = tuple(
    Task(name=f"{domain}_{task}", domain=domain, description=description)
    for domain, tasks in _DESCRIPTIONS.items()
    for task, description in tasks.items()
)

# The released training loops are configured to 2,000,010 and 100,010 frames. The ten frames are slack that lets the
# loops reach the snapshot at 2M and the evaluation at 100k; the budgets that are meant are 2M and 100k, and the runner
# takes the last snapshot and the last evaluation exactly there.
_PAPER = Protocol(
    preset="paper",
    description="the published budgets",
    pretrain_frames=2_000_000,
    snapshots=(100_000, 500_000, 1_000_000, 2_000_000),
    finetune_frames=100_000,
    eval_every_frames=10_000,
    eval_episodes=10,
)
_SMALL = Protocol(
    preset="small",
    description="a seventieth of the pretraining, for one CPU core; no score compares with a published one",
    pretrain_frames=30_000,
    snapshots=(30_000,),
    finetune_frames=30_000,
    eval_every_frames=10_000,
    eval_episodes=10,
)
# Multiples of 1000 and of 250, so that every budget ends with an episode of every domain.
_SMOKE = Protocol(
    preset="smoke",
    description="checks that everything runs, well under a minute a job; the scores mean nothing",
    pretrain_frames=3_000,
    snapshots=(3_000,),
    finetune_frames=2_000,
    eval_every_frames=1_000,
    eval_episodes=2,
)

_EXPERT = Normaliser(
    name="urlb-expert",
    version=1,
    source=(
        "Choreographer (Mazzaglia et al. 2023), Table 2, column Expert; identical to the values the URLB authors gave "
        "in rll-research/url_benchmark issue 1 (M. Laskin, 2021-11-01)"
    ),
    references={
        "walker_flip": 799.0,
        "walker_run": 796.0,
        "walker_stand": 984.0,
        "walker_walk": 971.0,
        "quadruped_jump": 888.0,
        "quadruped_run": 888.0,
        "quadruped_stand": 920.0,
        "quadruped_walk": 866.0,
        "jaco_reach_bottom_left": 193.0,
        "jaco_reach_bottom_right": 203.0,
        "jaco_reach_top_left": 191.0,
        "jaco_reach_top_right": 223.0,
    },
)

SUITE = Suite(
    name="urlb-states",
    version=1,
    description="12 locomotion and reaching tasks from proprioceptive states (walker, quadruped, jaco)",
    observation="states",
    action_repeat=1,
    domains=_DOMAINS,
    tasks=_TASKS,
    protocols={protocol.preset: protocol for protocol in (_PAPER, _SMALL, _SMOKE)},
    score="normalised_return",
    normaliser=_EXPERT,
    environment="urlbench.suites.dmc.environment:make_environment",
    packages=("dm_control", "mujoco"),
    # This dm_control cannot load its models with mujoco 4, and calls in1d, which numpy 2.4 has not.
    requirements=("dm_control==1.0.28", "mujoco==3.3.0", "numpy<2.4"),
)
