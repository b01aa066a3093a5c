"""Toy suites with every other score, for `--plugin` beside `toy_plugin.py`.

In `toy-success` an episode succeeds that ends near its place, in `toy-subtasks` it completes one of four sub-tasks for
each of four distances that it gets below; `toy-floors` normalises returns with floors. The environment of `toy-mute`
does not tell what its score needs.
"""

from pathlib import Path
from typing import Any

import numpy as np

from urlbench.core.interfaces import Array, TimeStep
from urlbench.core.registry import load_plugin, load_suite, register_suite
from urlbench.core.types import Normaliser, Suite

FOLDER = Path(__file__).parent.resolve()
PLUGINS = (str(FOLDER / "toy_plugin.py"), str(FOLDER / "toy_judged.py"))
DISTANCES = (3.0, 2.0, 1.5, 1.0)
FLOORS = {"ball_left": 1.0, "ball_right": 2.0, "cube_near": 3.0}


class JudgedToy:
    """A toy environment that tells how an episode went."""

    def __init__(self, environment: Any) -> None:
        self._environment, self._distances = environment, list[float]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def reset(self) -> TimeStep:
        self._distances = []
        timestep: TimeStep = self._environment.reset()
        return timestep

    def step(self, action: Array) -> TimeStep:
        timestep: TimeStep = self._environment.step(action)
        self._distances.append(-float(np.log(timestep.reward)))
        return timestep

    def outcome(self) -> dict[str, float]:
        completed = sum(min(self._distances) < distance for distance in DISTANCES)
        return {"success": float(self._distances[-1] < DISTANCES[-1]), "completed": float(completed)}


def make_environment(task: str, seed: int, action_repeat: int) -> JudgedToy:
    from urlbench.core.registry import load_attribute

    return JudgedToy(load_attribute(load_suite("toy-states").environment)(task, seed, action_repeat))


def _suite(**changes: Any) -> Suite:
    plain = load_suite("toy-states").model_dump()
    return Suite.model_validate(plain | {"normaliser": None, "environment": f"{__name__}:make_environment"} | changes)


def _register() -> None:
    load_plugin(PLUGINS[0])
    toys = load_suite("toy-states")
    assert toys.normaliser is not None
    floors = Normaliser.model_validate(toys.normaliser.model_dump() | {"name": "toy-floors", "floors": FLOORS})
    register_suite(_suite(name="toy-success", score="success_rate"))
    register_suite(_suite(name="toy-subtasks", score="subtasks", subtasks=len(DISTANCES)))
    register_suite(_suite(name="toy-floors", normaliser=floors))
    register_suite(_suite(name="toy-mute", score="subtasks", subtasks=4, environment=toys.environment))


if __name__ == "urlbench_plugin_toy_judged":
    _register()
