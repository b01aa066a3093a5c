"""Toy suites whose agents start from nothing, or from a training on another task.

Suite `toy-scratch` has no pretraining. In `toy-transfer`, `ball_right` and `cube_far` start from trainings on other
places, the first with what was played there; `cube_near` starts from nothing.
"""

from toy_runs import toy_plugin

from urlbench.core.registry import register_suite
from urlbench.core.types import Domain, Suite, Task, Transfer


def register_starts() -> None:
    """Make the two suites known, beside those of `toy_plugin.py`."""
    toy = toy_plugin()
    scratch = Suite.model_validate(
        {
            **toy.SUITE.model_dump(),
            "name": "toy-scratch",
            "description": "a point on a line, without pretraining",
            "domains": [Domain(name=name, max_episode_frames=toy.EPISODE_FRAMES) for name in ("ball", "cube")],
            "protocols": {
                preset: protocol.model_copy(update={"pretrain_frames": 0, "snapshots": ()})
                for preset, protocol in toy.SUITE.protocols.items()
            },
        }
    )
    transfer = Suite.model_validate(
        {
            **scratch.model_dump(),
            "name": "toy-transfer",
            "description": "a point on a line, from one place to another",
            "action_repeat": 2,
            "protocols": toy.SUITE.protocols,
            "tasks": [
                Task(
                    name="ball_right",
                    domain="ball",
                    description="go on from the left, with what was played there",
                    transfer=Transfer(source="ball_left", initial_replay="relabelled"),
                ),
                Task(name="cube_near", domain="cube", description="be there"),
                Task(
                    name="cube_far", domain="cube", description="go on from near", transfer=Transfer(source="cube_near")
                ),
            ],
        }
    )
    for suite in (scratch, transfer):
        register_suite(suite)
