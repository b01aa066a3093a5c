"""Frames a second of urlbench's environments against the plain ones, on the same actions from the same resets.

    python benchmarks/environments.py --output environments.json

* From states: the bare dm_control environment receives the controls that our wrapper would send. Both play in this
  process, taking turns.
* From pixels: the bare one draws with dm_control's own renderer, in a process of its own, since dm_control chooses its
  graphics library at import; the two processes take turns. Walker and quadruped are drawn once for two frames by both.
  Jaco's camera is an observable of dm_control, which draws every frame, while ours draws one of two.
* Reach: Meta-World's own environment, which takes each action twice.

Each repetition plays the same frames; tables show medians and, as spread, the smallest and largest of all repetitions.
"""

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import comparing
import numpy as np
import reporting

from urlbench.core.interfaces import Array, Environment
from urlbench.suites import rendering
from urlbench.suites.dmc import environment as dmc, pixels
from urlbench.suites.metaworld import sawyer_reach

TASKS = ("walker_walk", "quadruped_walk", "jaco_reach_top_left")
SEED = 1
PIXEL_REPEAT = 2
EPISODE_STEPS = 125  # agent steps before a reset, which Jaco's episodes from pixels end with


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        state_steps: agent steps of a repetition from states.
        pixel_steps: agent steps of a repetition from pixels.
        repetitions: after one that is not counted.
    """

    state_steps: int
    pixel_steps: int
    repetitions: int


@dataclass(frozen=True)
class Measurement:
    """One environment, ours against the plain one.

    Attributes:
        ours: frames a second in each repetition.
        plain: frames a second of the plain version, in the repetitions next to ours.
        renderer_share: part of our time spent drawing; None from states.
    """

    environment: str
    observation: str
    plain_version: str
    ours: list[float]
    plain: list[float]
    renderer_share: float | None = None
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Compare repetitions that were next to each other, so that a machine's moods cancel."""
        object.__setattr__(self, "ratios", [one / other for one, other in zip(self.ours, self.plain, strict=True)])


Run = Callable[[], float]
"""Plays one repetition and returns its seconds."""


def take_turns(ours: Run, plain: Run, repetitions: int) -> tuple[list[float], list[float]]:
    """Seconds of both in each repetition, after one to warm up; who goes first changes every time."""
    seconds: dict[Run, list[float]] = {ours: [], plain: []}
    for repetition in range(-1, repetitions):
        for run in (ours, plain) if repetition % 2 else (plain, ours):
            took = run()
            if repetition >= 0:
                seconds[run].append(took)
    return seconds[ours], seconds[plain]


def _rates(seconds: Sequence[float], frames: int) -> list[float]:
    return [frames / one for one in seconds]


def actions(count: int, action_dim: int) -> Array:
    """Uniform random actions, float32 [count, A]."""
    return np.random.default_rng(SEED).uniform(-1, 1, (count, action_dim)).astype(np.float32)


def play(environment: Environment, sequence: Sequence[Array]) -> float:
    """Seconds that the steps take; resets are left out."""
    return _seconds_of_steps(environment.reseed, environment, sequence)


def _seconds_of_steps(reseed: Callable[[int], None], environment: Any, sequence: Sequence[Array]) -> float:
    """Seconds of the steps of an environment of ours or of dm_control; resets are left out."""
    reseed(SEED)
    total = 0.0
    for start in range(0, len(sequence), EPISODE_STEPS):
        environment.reset()
        begin = time.perf_counter()
        for action in sequence[start : start + EPISODE_STEPS]:
            environment.step(action)
        total += time.perf_counter() - begin
    return total


# --- From states ------------------------------------------------------------------------------------


def measure_states(settings: Settings) -> Iterator[Measurement]:
    """Our wrapper against the environment it wraps."""
    for task in TASKS:
        ours, bare = dmc.make_environment(task, SEED, 1), dmc.make_environment(task, SEED, 1)
        sequence = actions(settings.state_steps, ours.action_dim)
        controls = [ours.control(action) for action in sequence]
        seconds = take_turns(
            lambda ours=ours, sequence=sequence: play(ours, sequence),  # type: ignore[misc]
            lambda bare=bare, controls=controls: _seconds_of_steps(bare.reseed, bare.environment, controls),  # type: ignore[misc]
            settings.repetitions,
        )
        np.testing.assert_array_equal(ours.physics.get_state(), bare.physics.get_state())
        ours_rates, plain_rates = (_rates(some, settings.state_steps) for some in seconds)
        yield Measurement(task, "states", "dm_control", ours_rates, plain_rates)


# --- Reach ------------------------------------------------------------------------------------------


def measure_reach(settings: Settings) -> Iterator[Measurement]:
    """Ours, from states and for an agent that does not look, against Meta-World's own environment."""
    plain = _PlainReach()
    sequence = list(actions(settings.state_steps, 4))
    for observed, what in ((True, "states"), (False, "nothing")):
        ours = sawyer_reach.ReachEnvironment(SEED, PIXEL_REPEAT, SEED, observed=observed)
        ours.set_goal(0)
        seconds = take_turns(
            lambda ours=ours: play(ours, sequence),  # type: ignore[misc]
            lambda ours=ours: plain.play(ours.goals[0], sequence),  # type: ignore[misc]
            settings.repetitions,
        )
        np.testing.assert_array_equal(ours.simulation.data.qpos, plain.environment.data.qpos)
        ours_rates, plain_rates = (_rates(some, settings.state_steps * PIXEL_REPEAT) for some in seconds)
        yield Measurement("reach", what, "metaworld", ours_rates, plain_rates)


class _PlainReach:
    """Meta-World's environment with a place for the object and one for the goal."""

    def __init__(self) -> None:
        with rendering.imported_without_graphics():
            from metaworld.envs.sawyer_reach_v3 import SawyerReachEnvV3
            from metaworld.types import Task

            self.environment = SawyerReachEnvV3()
        self._task = Task

    def play(self, places: Array, sequence: Sequence[Array]) -> float:
        """Seconds that the steps take; resets are left out."""
        data = {"rand_vec": places, "env_cls": type(self.environment), "partially_observable": True}
        self.environment.set_task(self._task("reach-v3", pickle.dumps(data)))
        total = 0.0
        for start in range(0, len(sequence), EPISODE_STEPS):
            self.environment.reset()
            begin = time.perf_counter()
            for action in sequence[start : start + EPISODE_STEPS]:
                for _ in range(PIXEL_REPEAT):
                    self.environment.step(action)
            total += time.perf_counter() - begin
        return total


# --- From pixels ------------------------------------------------------------------------------------


def measure_pixels(settings: Settings) -> Iterator[Measurement]:
    """Our pictures against dm_control's."""
    for task in TASKS:
        environment = pixels.make_environment(task, SEED, PIXEL_REPEAT)
        sequence = actions(settings.pixel_steps, environment.action_dim)
        drawing = _Stopwatch(environment)
        with PlainPixels(task, settings.pixel_steps) as plain:
            ours, theirs = take_turns(
                lambda environment=environment, sequence=sequence: play(environment, sequence),  # type: ignore[misc]
                plain.run,
                settings.repetitions,
            )
        frames = settings.pixel_steps * PIXEL_REPEAT
        yield Measurement(
            task, "pixels", "dm_control, its renderer", _rates(ours, frames), _rates(theirs, frames), drawing.share
        )


class _Stopwatch:
    """Measures the share of a pixel environment's steps that is drawing."""

    def __init__(self, environment: pixels.PixelEnvironment) -> None:
        self._drawing: list[float] = []
        self._stepping: list[float] = []
        setattr(environment, "look", _timed(environment.look, self._drawing))  # noqa: B010 - no type has this
        setattr(environment, "step", _timed(environment.step, self._stepping))  # noqa: B010

    @property
    def share(self) -> float:
        """Of the median step; resets, which draw as well, are too few to count."""
        return statistics.median(self._drawing) / statistics.median(self._stepping)


def _timed(function: Callable[[Any], Any], seconds: list[float]) -> Callable[[Any], Any]:
    def timed(argument: Any) -> Any:
        begin = time.perf_counter()
        result = function(argument)
        seconds.append(time.perf_counter() - begin)
        return result

    return timed


class PlainPixels(AbstractContextManager["PlainPixels"]):
    """dm_control with its own renderer, in another process."""

    def __init__(self, task: str, steps: int) -> None:
        self._command = [sys.executable, str(Path(__file__).with_name("plain_pixels.py")), task, str(steps)]
        self._stack = ExitStack()

    def __enter__(self) -> "PlainPixels":
        library = rendering.choose_backend().library
        self._process = self._stack.enter_context(
            subprocess.Popen(
                self._command,
                env={**os.environ, "MUJOCO_GL": library},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._stack.close()

    def run(self) -> float:
        """Play one repetition; its seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print("go", file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())


# --- The report -------------------------------------------------------------------------------------

MEASUREMENTS: tuple[Callable[[Settings], Iterator[Measurement]], ...] = (measure_states, measure_reach, measure_pixels)


COLUMNS = ("environment", "sees", "ours [frames/s]", "plain [frames/s]", "ours/plain", "drawing", "plain is")


def _row(measurement: Measurement) -> tuple[str, ...]:
    share = measurement.renderer_share
    return (
        measurement.environment,
        measurement.observation,
        reporting.spread(measurement.ours, ".0f"),
        reporting.spread(measurement.plain, ".0f"),
        reporting.spread(measurement.ratios, ".3f"),
        "" if share is None else f"{share:.0%}",
        measurement.plain_version,
    )


def _comparison(measurement: Measurement) -> comparing.Row:
    what = f"{measurement.environment}, seeing {measurement.observation}"
    plain, ours, ratio = map(statistics.median, (measurement.plain, measurement.ours, measurement.ratios))
    return comparing.Row(what, plain, ours, "frames/s", ratio)


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Frames a second of the environments against the plain ones.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--state-steps", type=int, default=2000, help="agent steps of a repetition (%(default)s)")
    parser.add_argument("--pixel-steps", type=int, default=125, help="agent steps of a repetition (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=9, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    settings = Settings(given.state_steps, given.pixel_steps, given.repetitions)
    machine = reporting.describe_machine(threads=1)
    measurements = [measurement for measure in MEASUREMENTS for measurement in measure(settings)]
    renderer = rendering.draw_test_picture()
    print(f"{settings.repetitions} repetitions after one to warm up; drawn by {renderer}")
    print(reporting.markdown_table(COLUMNS, [_row(measurement) for measurement in measurements]))
    if given.output is not None:
        found = {
            "machine": machine,
            "renderer": renderer,
            "settings": asdict(settings),
            "warm_up_repetitions": 1,
            "measurements": [asdict(measurement) for measurement in measurements],
            "rows": [_comparison(measurement)._asdict() for measurement in measurements],
        }
        given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
