"""What renders, which GPU does, and that pictures do not depend on either neighbours or order.

No GPU takes part: the lists of GPUs and of EGL's devices are made up.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from graphics import needs_renderer
from processes import run_program

from urlbench.core.errors import UserError
from urlbench.core.jobs import Plan
from urlbench.core.machine import visible_gpus
from urlbench.local.executor import Executor, ExecutorOptions
from urlbench.suites import rendering
from urlbench.suites.rendering import Backend, Renderer, choose_backend, imported_without_graphics

with imported_without_graphics():
    import mujoco

SCENE = """
<mujoco><worldbody>
<light pos="0 0 3"/>
<camera name="above" pos="0 0 2"/><camera name="upside_down" pos="0 0 2" xyaxes="-1 0 0 0 -1 0"/>
<geom type="plane" size="1 1 1" rgba="0 0 1 1"/>
<body pos="0 {y} 0.1"><geom type="sphere" size="0.2" rgba="1 0 0 1"/></body>
</worldbody></mujoco>
"""


def scene(y: float = 0.4) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE.format(y=y))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


# --- The choice of a backend ------------------------------------------------------------------------


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    gpus: Sequence[str] = (),
    egl: Sequence[int | None] = (),
    libraries: Sequence[str] = (),
) -> None:
    """Make up a machine: visible GPUs, the CUDA number of each EGL device, and installed libraries; no wishes."""
    for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rendering, "visible_gpus", lambda: tuple(gpus))
    monkeypatch.setattr(rendering, "egl_cuda_ordinals", lambda: tuple(egl))
    monkeypatch.setattr(rendering, "_is_installed", lambda library: library in libraries)


ALL = ("OSMesa", "EGL", "OpenGL")


def test_without_a_gpu_osmesa_comes_first_then_egl_in_software(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, egl=[None], libraries=ALL)
    assert choose_backend() == Backend("osmesa")
    machine(monkeypatch, egl=[None], libraries=["EGL", "OpenGL"])
    assert choose_backend() == Backend("egl")


@pytest.mark.parametrize("libraries", [(), ("EGL",)])
def test_without_anything_the_packages_are_named(libraries: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, libraries=libraries)
    with pytest.raises(UserError, match="apt-get install -y libosmesa6 libegl1 libgl1-mesa-dri libopengl0"):
        choose_backend()


@pytest.mark.parametrize(("gpu", "device"), [("0", 2), ("1", 0), ("2", 3)])
def test_a_worker_renders_on_its_own_gpu_whatever_order_egl_lists_them_in(
    gpu: str, device: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpus=[gpu], egl=[1, None, 0, 2], libraries=ALL)
    assert choose_backend() == Backend("egl", device, gpu)


def test_the_executors_slots_render_on_the_gpus_they_compute_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = ExecutorOptions(workers=2, gpus=("0", "1"))
    executor = Executor(Plan(jobs=()), tmp_path, options)
    machine(monkeypatch, egl=[1, 0, None], libraries=ALL)
    monkeypatch.setattr(rendering, "visible_gpus", visible_gpus)
    devices = []
    for slot in range(2):
        environment = executor._environment({}, slot)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", environment["CUDA_VISIBLE_DEVICES"])
        devices.append(choose_backend())
    assert devices == [Backend("egl", 1, "0"), Backend("egl", 0, "1")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose_backend() == Backend("osmesa")


def test_of_several_gpus_the_first_renders(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["2", "0"], egl=[0, 1, 2], libraries=ALL)
    assert choose_backend() == Backend("egl", 2, "2")


def test_a_gpu_that_egl_does_not_reach_leaves_rendering_to_software(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["0"], egl=[None], libraries=ALL)
    assert choose_backend() == Backend("osmesa")


def test_a_gpu_that_does_not_exist_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["7"], egl=[1, 0, None], libraries=ALL)
    with pytest.raises(UserError, match=r"GPU 7 of CUDA_VISIBLE_DEVICES is none that EGL can render on \(0, 1\)"):
        choose_backend()


def test_a_uuid_is_the_only_gpu_and_ambiguous_among_several(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["GPU-8932f937"], egl=[None, 0], libraries=ALL)
    assert choose_backend() == Backend("egl", 1, "GPU-8932f937")
    machine(monkeypatch, gpus=["GPU-8932f937"], egl=[1, 0], libraries=ALL)
    with pytest.raises(UserError, match=r"GPU-8932f937 .* MUJOCO_EGL_DEVICE_ID"):
        choose_backend()


def test_the_user_chooses_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["0"], egl=[0], libraries=ALL)
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    assert choose_backend() == Backend("osmesa")
    machine(monkeypatch, egl=[None], libraries=ALL)
    monkeypatch.setenv("MUJOCO_GL", "EGL")
    assert choose_backend() == Backend("egl")
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert choose_backend() == Backend("osmesa")


def test_egl_that_is_asked_for_and_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, libraries=ALL)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with pytest.raises(UserError, match="MUJOCO_GL=egl, but EGL finds no device"):
        choose_backend()


def test_the_user_chooses_the_egl_device(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, gpus=["0"], egl=[1, 0], libraries=ALL)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "0")
    assert choose_backend() == Backend("egl", 0)
    for wrong in ("2", "-1", "first"):
        monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", wrong)
        with pytest.raises(UserError, match=f"MUJOCO_EGL_DEVICE_ID={wrong} is none of EGL's devices 0 to 1"):
            choose_backend()


def test_egl_is_asked_with_all_gpus_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(options["env"])
        return subprocess.CompletedProcess(command, 0, "1\n-1\n0\n", "")

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setattr(subprocess, "run", run)
    assert rendering.egl_cuda_ordinals() == (1, None, 0)
    assert "CUDA_VISIBLE_DEVICES" not in asked[0]


def test_without_egl_there_are_no_egl_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_LIST_EGL_DEVICES", "import ctypes; ctypes.CDLL('libEGL_of_nobody.so.1')")
    assert rendering.egl_cuda_ordinals() == ()


def test_a_broken_library_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(backend: Backend) -> None:
        raise AttributeError("'NoneType' object has no attribute 'eglQueryString'")

    monkeypatch.setattr(rendering, "_context", None)
    monkeypatch.setattr(rendering, "_make_context", broken)
    machine(monkeypatch, libraries=ALL)
    with pytest.raises(UserError, match=r"rendering with OSMesa fails .*eglQueryString.*; choose another library"):
        Renderer(scene()[0], height=8, width=8, camera=0)


def test_the_import_leaves_the_users_choice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with imported_without_graphics():
        assert os.environ["MUJOCO_GL"] == "disabled"
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setenv("MUJOCO_GL", "egl")
    with imported_without_graphics():
        assert os.environ["MUJOCO_GL"] == "disabled"
    assert os.environ["MUJOCO_GL"] == "egl"


# --- Pictures ---------------------------------------------------------------------------------------


@needs_renderer
def test_the_top_row_comes_first_and_red_is_red() -> None:
    model, data = scene()
    upright = Renderer(model, height=20, width=30, camera=0).render(data)
    assert (upright.shape, upright.dtype) == ((20, 30, 3), np.uint8)
    red = upright[..., 0].astype(int) - upright[..., 2]
    rows, columns = np.nonzero(red > 50)
    assert rows.mean() < 9.5
    assert columns.mean() == pytest.approx(14.5, abs=1)
    turned = Renderer(model, height=20, width=30, camera=1).render(data)
    assert np.nonzero(turned[..., 0].astype(int) - turned[..., 2] > 50)[0].mean() > 9.5


@needs_renderer
def test_a_free_camera_can_be_given() -> None:
    model, data = scene()
    camera = mujoco.MjvCamera()
    camera.lookat[:], camera.distance, camera.elevation, camera.azimuth = (0, 0, 0), 2, -90, 90
    picture = Renderer(model, height=20, width=20, camera=camera).render(data)
    fixed = Renderer(model, height=20, width=20, camera=0).render(data)
    assert np.abs(picture.astype(int) - fixed).mean() < 3


@needs_renderer
def test_renderers_share_a_context_and_do_not_mix_up_their_pictures() -> None:
    (model, data), (other_model, other_data) = scene(), scene(y=-0.4)
    first = Renderer(model, height=16, width=16, camera=0)
    expected = first.render(data)
    second = Renderer(other_model, height=40, width=24, camera=0)
    other = second.render(other_data)
    np.testing.assert_array_equal(first.render(data), expected)
    np.testing.assert_array_equal(second.render(other_data), other)
    second.close()
    np.testing.assert_array_equal(first.render(data), expected)
    first.close()
    first.close()


@needs_renderer
def test_the_model_is_not_changed() -> None:
    model, _ = scene()
    sizes = model.vis.global_.offheight, model.vis.global_.offwidth
    Renderer(model, height=8, width=8, camera=0)
    assert (model.vis.global_.offheight, model.vis.global_.offwidth) == sizes


@needs_renderer
def test_an_equal_model_is_taken_over_and_another_is_not() -> None:
    (model, data), (same_model, same_data), (other_model, _) = scene(), scene(), scene(y=0.1)
    renderer = Renderer(model, height=16, width=16, camera=0)
    expected = renderer.render(data)
    assert renderer.take(model)
    assert renderer.take(same_model)
    np.testing.assert_array_equal(renderer.render(same_data), expected)
    assert not renderer.take(other_model)
    np.testing.assert_array_equal(renderer.render(same_data), expected)


@needs_renderer
def test_a_process_with_renderers_left_open_ends_quietly() -> None:
    code = (
        "from urlbench.suites.rendering import _RED_BALL, Renderer, mujoco\n"
        "model = mujoco.MjModel.from_xml_string(_RED_BALL)\n"
        "renderers = [Renderer(model, height=8, width=8, camera=0) for _ in range(3)]\n"
        "print(renderers[0].render(mujoco.MjData(model)).shape)\n"
        "renderers[1] = None"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = run_program(command)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 8, 3)\n", "")


@needs_renderer
def test_the_test_picture_names_what_has_drawn_it() -> None:
    done = run_program(
        [sys.executable, "-m", "urlbench.suites.rendering"], env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True
    )
    assert "in software" in done.stdout
    assert done.stderr == ""
