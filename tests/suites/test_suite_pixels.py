"""URLB seen through a camera: what is drawn, when, and that drawing changes nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import urlbench
from graphics import needs_renderer

from urlbench.core import registry
from urlbench.core.interfaces import TimeStep
from urlbench.core.types import ImageFormat
from urlbench.suites.dmc import environment as dmc, pixels
from urlbench.suites.dmc.pixels import make_environment
from urlbench.suites.rendering import Renderer

TINY = ImageFormat(size=16)
STATES, PIXELS, SPARSE = map(registry.load_suite, ("urlb-states", "urlb-pixels", "jaco-sparse"))


def actions(count: int, action_dim: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (count, action_dim)).astype(np.float32)


def play(environment: Any, count: int) -> list[TimeStep]:
    return [environment.reset(), *map(environment.step, actions(count, environment.action_dim))]


# --- The suites -------------------------------------------------------------------------------------


def test_the_tasks_and_published_budgets_are_those_from_states() -> None:
    assert (PIXELS.tasks, PIXELS.domains) == (STATES.tasks, STATES.domains)
    assert PIXELS.protocols["paper"] == STATES.protocols["paper"]
    assert (PIXELS.action_repeat, PIXELS.observation) == (2, "pixels")
    assert PIXELS.normaliser is not None
    assert STATES.normaliser is not None
    assert PIXELS.normaliser.references == STATES.normaliser.references
    assert "from states" in PIXELS.normaliser.source


def test_a_smoke_run_draws_few_frames() -> None:
    smoke = PIXELS.protocols["smoke"]
    frames = smoke.finetune_frames + smoke.eval_episodes * 1000 * (smoke.finetune_frames // smoke.eval_every_frames)
    assert frames / PIXELS.action_repeat / 60 <= 60
    assert smoke.pretrain_frames / PIXELS.action_repeat / 60 <= 60


def test_sparse_jaco_is_the_published_search() -> None:
    paper, released = SPARSE.protocols["paper"], SPARSE.protocols["paper-released-code"]
    assert [task.name for task in SPARSE.tasks] == [task.name for task in STATES.tasks if task.domain == "jaco"]
    assert (SPARSE.action_repeat, SPARSE.normaliser, SPARSE.pretrained_in) == (2, None, "urlb-pixels")
    assert SPARSE.measured_phase == "search"
    assert paper.eval_episodes == released.eval_episodes == 100
    assert paper.search is not None
    assert released.search is not None
    assert paper.search.model_dump() == {
        "goals": 1,
        "found_reward": 1e-4,
        "criterion": "step_reward",
        "actions": "mean",
        "skill_steps": 50,
        "stop_when_found": False,
    }
    assert (released.search.criterion, released.search.actions) == ("episode_return", "sampled")
    assert not paper.reduced
    assert not released.reduced


@pytest.mark.parametrize("preset", ["paper", "small", "smoke"])
def test_sparse_jaco_starts_from_pretrainings_that_urlb_from_pixels_makes(preset: str) -> None:
    ours, theirs = SPARSE.protocols[preset], PIXELS.protocols[preset]
    assert (ours.pretrain_frames, ours.snapshots) == (theirs.pretrain_frames, theirs.snapshots)


# --- What is not drawn ------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["walker_flip", "quadruped_run", "jaco_reach_top_left"])
def test_an_agent_that_does_not_look_gets_the_same_episodes_and_nothing_drawn(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixels, "Renderer", None)
    blind, seeing = make_environment(task, 1, 2, image=None), dmc.make_environment(task, 1, 2)
    assert blind.observation_shape == (0,)
    for _ in range(2):
        episode = play(blind, 20)
        assert [step[1:] for step in episode] == [step[1:] for step in play(seeing, 20)]
        assert {(step.observation.shape, step.observation.dtype.name) for step in episode} == {((0,), "uint8")}
        np.testing.assert_array_equal(blind.physics.get_state(), seeing.physics.get_state())
    assert blind.random_state() == seeing.random_state()


@pytest.mark.parametrize("task", ["walker_stand", "quadruped_stand", "jaco_reach_top_left"])
def test_states_that_nobody_sees_are_not_computed(task: str) -> None:
    environment = make_environment(task, 1, 2, image=None).environment
    assert environment.observation_shape == (0,)
    assert dict(environment.environment.reset().observation) == {}


# --- What is drawn ----------------------------------------------------------------------------------


@needs_renderer
def test_an_environment_knows_what_draws_it() -> None:
    drawn_by = make_environment("walker_run", 1, 2, image=TINY).drawn_by()
    # The library, and the renderer's own name.
    assert re.fullmatch(r"(OSMesa|EGL.*), (in software|on a GPU) \(.+\)", drawn_by or "")
    assert make_environment("walker_run", 1, 2, image=None).drawn_by() is None


@needs_renderer
def test_jaco_is_drawn_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    draw = Renderer.render
    monkeypatch.setattr(Renderer, "render", lambda self, data: drawn.append(data.time) or draw(self, data))
    play(make_environment("jaco_reach_top_left", 1, 2, image=TINY), 3)
    # Three steps of two frames of 0.04 s.
    np.testing.assert_allclose(drawn, [0, 0.08, 0.16, 0.24], atol=1e-9)


@needs_renderer
def test_jaco_keeps_its_renderer_from_episode_to_episode() -> None:
    environment = make_environment("jaco_reach_top_left", 1, 2, image=TINY)
    renderers, models = [], []
    for _ in range(2):
        environment.reset()
        renderers.append(environment._renderer)
        models.append(environment.physics.model.ptr)
    assert renderers[0] is renderers[1]
    assert models[0] is not models[1]


@needs_renderer
def test_a_stack_holds_the_latest_pictures_the_oldest_first() -> None:
    single = play(make_environment("walker_run", 1, 2, image=TINY), 4)
    stacked = play(make_environment("walker_run", 1, 2, image=ImageFormat(size=16, frame_stack=3)), 4)
    for step, timestep in enumerate(stacked):
        expected = [single[max(0, step - age)].observation for age in (2, 1, 0)]
        np.testing.assert_array_equal(timestep.observation, np.concatenate(expected))


@needs_renderer
def test_a_stack_forgets_the_last_episode() -> None:
    environment = make_environment("walker_run", 1, 2, image=ImageFormat(size=16, frame_stack=2))
    play(environment, 3)
    first, second = np.split(environment.reset().observation, 2)
    np.testing.assert_array_equal(first, second)


@needs_renderer
def test_two_environments_of_different_sizes_do_not_disturb_each_other() -> None:
    formats = TINY, ImageFormat(size=24)
    alone = [play(make_environment("walker_walk", 1, 2, image=image), 3) for image in formats]
    both = [make_environment("walker_walk", 1, 2, image=image) for image in formats]
    taken = [(one.reset(), other.reset()) for one, other in [both]]
    for action in actions(3, 6):
        taken.append((both[0].step(action), both[1].step(action)))
    for index in range(2):
        for expected, timestep in zip(alone[index], taken, strict=True):
            np.testing.assert_array_equal(expected.observation, timestep[index].observation)


@needs_renderer
@pytest.mark.parametrize("task", ["walker_walk", "jaco_reach_top_left"])
def test_pictures_come_back_with_random_state_and_actions(task: str) -> None:
    image = ImageFormat(size=16, frame_stack=2)
    original = make_environment(task, 1, 2, image=image)
    play(original, 2)
    saved = json.dumps(original.random_state())
    episode = play(original, 4)

    resumed = make_environment(task, 5, 2, image=image)
    resumed.set_random_state(json.loads(saved))
    for expected, timestep in zip(episode, play(resumed, 4), strict=True):
        np.testing.assert_array_equal(expected.observation, timestep.observation)


@needs_renderer
def test_pictures_are_contiguous_images_of_their_own() -> None:
    timesteps = play(make_environment("quadruped_walk", 1, 2, image=TINY), 2)
    for timestep in timesteps:
        assert timestep.observation.shape == (3, 16, 16)
        assert timestep.observation.dtype == np.uint8
        assert timestep.observation.flags.c_contiguous
    assert len({timestep.observation.tobytes() for timestep in timesteps}) == 3


# --- From the command line --------------------------------------------------------------------------


@pytest.mark.slow
@needs_renderer
def test_from_pretraining_to_the_report(tmp_path: Path) -> None:
    """Choreographer looks, random does not; a minute or two on two cores without a GPU."""
    what = ["--suite", "urlb-pixels", "--preset", "smoke", "--seeds", "1", "--tasks", "walker_walk"]
    output = urlbench(tmp_path, "run", *what, "--agent", "choreographer", "--agent", "random", "--device", "cpu")
    assert "3 of 3 jobs are done" in output
    urlbench(tmp_path, "report", *what, "--reps", "200", "--format", "md", "--out", "report")
    (report,) = (tmp_path / "report").rglob("*.md")
    assert "REDUCED BUDGET" in report.read_text()
    specs = [json.loads(path.read_text())["spec"] for path in sorted((tmp_path / "runs").rglob("spec.json"))]
    assert [spec["image"] for spec in specs] == [{"size": 64, "frame_stack": 1}] * 2 + [None]
