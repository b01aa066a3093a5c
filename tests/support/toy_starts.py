"""Toy suites whose agents start from nothing, or from a training on another task; a plugin beside `toy_plugin.py`.

Suite `toy-scratch` has no pretraining. In `toy-transfer`, `ball_right` and `cube_far` start from trainings on other
places, the first with what was played there; `cube_near` starts from nothing.
"""

from toy_runs import toy_plugin

from urlbench.core.registry import register_suite
from urlbench.core.types import Domain, Suite, Task, Transfer

_TOY = toy_plugin()

SCRATCH = Suite.model_validate(
    {
        **_TOY.SUITE.model_dump(),
        "name": "toy-scratch",
        "description": "a point on a line, without pretraining",
        "domains": [Domain(name=name, max_episode_frames=_TOY.EPISODE_FRAMES) for name in ("ball", "cube")],
        "protocols": {
            preset: protocol.model_copy(update={"pretrain_frames": 0, "snapshots": ()})
            for preset, protocol in _TOY.SUITE.protocols.items()
        },
    }
)
TRANSFER = Suite.model_validate(
    {
        **SCRATCH.model_dump(),
        "name": "toy-transfer",
        "description": "a point on a line, from one place to another",
        "action_repeat": 2,
        "protocols": _TOY.SUITE.protocols,
        "tasks": [
            Task(
                name="ball_right",
                domain="ball",
                description="go on from the left, with what was played there",
                transfer=Transfer(source="ball_left", initial_replay="relabelled"),
            ),
            Task(name="cube_near", domain="cube", description="be there"),
            Task(name="cube_far", domain="cube", description="go on from near", transfer=Transfer(source="cube_near")),
        ],
    }
)

for _suite in (SCRATCH, TRANSFER):
    register_suite(_suite)
