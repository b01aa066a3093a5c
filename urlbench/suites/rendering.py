"""Pictures of MuJoCo scenes without a window: on a GPU through EGL, or in software through OSMesa or Mesa's EGL.

Built on MuJoCo's own functions: dm_control and MuJoCo choose a graphics library when they are imported, which then has
to be there even if nothing is rendered. A process has one OpenGL context, made with its first renderer and shared by
all of them; use them from one thread.
"""

import atexit
import ctypes
import ctypes.util
import hashlib
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np

from urlbench.core.errors import UserError
from urlbench.core.interfaces import Array
from urlbench.core.machine import visible_gpus


@contextmanager
def imported_without_graphics() -> Iterator[None]:
    """Keep `mujoco` and `dm_control` from loading an OpenGL library, or warning that there is none, at their import.

    MUJOCO_GL is restored afterwards: it is the user's choice, and child processes read it again.
    """
    with _variable("MUJOCO_GL", "disabled"):
        yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


with imported_without_graphics():
    import mujoco

INSTALL = "apt-get install -y libosmesa6 libegl1 libgl1-mesa-dri libopengl0"
"""What installs everything that rendering in software needs, as root on Debian or Ubuntu."""


# --- The choice of a backend ------------------------------------------------------------------------


class Backend(NamedTuple):
    """What draws.

    Attributes:
        egl_device: number of the EGL device; None leaves the choice to EGL.
        gpu: the GPU that draws, as CUDA_VISIBLE_DEVICES names it; None if no particular one was looked for.
    """

    library: Literal["egl", "osmesa"]
    egl_device: int | None = None
    gpu: str | None = None

    def __str__(self) -> str:
        if self.library == "osmesa":
            return "OSMesa"
        if self.gpu is not None:
            return f"EGL on GPU {self.gpu}"
        return "EGL" if self.egl_device is None else f"EGL device {self.egl_device}"


def choose_backend() -> Backend:
    """What to render with in this process.

    In this order: the library that MUJOCO_GL names, `egl` or `osmesa`; EGL on the first visible GPU; OSMesa; EGL in
    software. MUJOCO_EGL_DEVICE_ID overrides the choice of EGL's device.

    Raises:
        UserError: if nothing can render, or if the GPU or the EGL device that is asked for is not there.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    if asked == "osmesa":
        return Backend("osmesa")
    # Other values are for other programs: `glfw` opens windows, `disabled` renders nothing.
    gpus = visible_gpus()
    ordinals = egl_cuda_ordinals() if asked == "egl" or gpus else ()
    if asked == "egl" and not ordinals:
        raise UserError(f"MUJOCO_GL=egl, but EGL finds no device here; unset it, or install EGL, as root: {INSTALL}")
    if asked == "egl" or any(ordinal is not None for ordinal in ordinals):
        return _egl_device(gpus, ordinals)
    if _is_installed("OSMesa"):
        return Backend("osmesa")
    if _is_installed("EGL") and _is_installed("OpenGL"):
        return Backend("egl")
    raise UserError(f"nothing here can render images, neither a GPU nor a software renderer; as root: {INSTALL}")


def _egl_device(gpus: Sequence[str], ordinals: Sequence[int | None]) -> Backend:
    """EGL on the first of `gpus`; its devices come in an order of their own (google-deepmind/mujoco issue 3245)."""
    asked = os.environ.get("MUJOCO_EGL_DEVICE_ID")
    if asked is not None:
        if asked not in map(str, range(len(ordinals))):
            raise UserError(
                f"MUJOCO_EGL_DEVICE_ID={asked} is none of EGL's devices 0 to {len(ordinals) - 1}; unset it."
            )
        return Backend("egl", int(asked))
    known = sorted(ordinal for ordinal in ordinals if ordinal is not None)
    if not gpus or not known:
        return Backend("egl")
    # A UUID is no number, but an only GPU is the one that is meant.
    number = gpus[0] if gpus[0].isdecimal() or len(known) > 1 else str(known[0])
    if number not in map(str, known):
        raise UserError(
            f"GPU {gpus[0]} of CUDA_VISIBLE_DEVICES is none that EGL can render on ({', '.join(map(str, known))}); "
            "correct it, give EGL's number with MUJOCO_EGL_DEVICE_ID, or render in software with MUJOCO_GL=osmesa."
        )
    return Backend("egl", ordinals.index(int(number)), gpus[0])


def _is_installed(library: str) -> bool:
    return ctypes.util.find_library(library) is not None


_LIST_EGL_DEVICES = """
import ctypes
egl = ctypes.CDLL("libEGL.so.1")
egl.eglGetProcAddress.restype = ctypes.c_void_p
def function(name, *arguments):
    return ctypes.CFUNCTYPE(ctypes.c_uint, *arguments)(egl.eglGetProcAddress(name))
query = function(b"eglQueryDevicesEXT", ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
attribute = function(b"eglQueryDeviceAttribEXT", ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int()
query(64, devices, ctypes.byref(count))
for device in devices[: count.value]:
    ordinal = ctypes.c_ssize_t(-1)
    known = attribute(device, 0x323A, ctypes.byref(ordinal))  # EGL_CUDA_DEVICE_NV
    print(ordinal.value if known else -1)
"""


def egl_cuda_ordinals() -> tuple[int | None, ...]:
    """CUDA's number of each EGL device, None for those that are no GPU of CUDA; empty without EGL.

    Asked in a process of its own without CUDA_VISIBLE_DEVICES: drivers may renumber the GPUs by it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-I", "-S", "-c", _LIST_EGL_DEVICES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        return ()
    return tuple(int(line) if int(line) >= 0 else None for line in done.stdout.split())


# --- Rendering --------------------------------------------------------------------------------------

_context: Any = None
_backend: Backend | None = None
_renderers: "weakref.WeakSet[Renderer]" = weakref.WeakSet()


def _gl_context() -> Any:
    """The OpenGL context of this process, made when it is first asked for.

    Raises:
        UserError: if there is none to be had.
    """
    global _context, _backend
    if _context is None:
        backend = choose_backend()
        try:
            _context, _backend = _make_context(backend), backend
        except Exception as error:  # PyOpenGL raises what it likes when a library is missing or broken
            raise UserError(
                f"rendering with {backend} fails ({type(error).__name__}: {str(error).strip()}); choose another "
                f"library with MUJOCO_GL=osmesa or egl, or install one, as root: {INSTALL}"
            ) from error
        atexit.register(_free_all)
    return _context


def _make_context(backend: Backend) -> Any:
    # Pictures are drawn into buffers of their own, so the context's own buffer is as small as can be.
    if backend.library == "osmesa":
        import mujoco.osmesa

        context = mujoco.osmesa.GLContext(1, 1)
    else:
        import mujoco.egl

        if backend.egl_device is None:
            context = mujoco.egl.GLContext(1, 1)
        else:
            with _variable("MUJOCO_EGL_DEVICE_ID", str(backend.egl_device)):
                context = mujoco.egl.GLContext(1, 1)
    context.make_current()
    return context


def drawn_by() -> str:
    """What draws in this process, in words: the library, and the name that its OpenGL gives itself.

    Raises:
        UserError: if nothing here can render.
    """
    _gl_context().make_current()
    from OpenGL import GL  # only here: which library it loads is settled by now

    name = GL.glGetString(GL.GL_RENDERER).decode()
    software = any(one in name.lower() for one in _SOFTWARE)
    return f"{_backend}, {'in software' if software else 'on a GPU'} ({name})"


_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")


def _free_all() -> None:
    """Free everything while its library is still loaded; what the interpreter frees at its end comes in any order."""
    global _context
    for renderer in list(_renderers):
        renderer.close()
    _context.free()
    _context = None


class Renderer:
    """Draws one camera's view of a model."""

    def __init__(self, model: mujoco.MjModel, *, height: int, width: int, camera: int | mujoco.MjvCamera) -> None:
        """Load the model's textures and meshes.

        Args:
            model: of the scene; not changed.
            height: of the picture, pixels.
            width: of the picture, pixels.
            camera: number of a camera of the model, or a free camera.

        Raises:
            UserError: if nothing here can render.
        """
        assert isinstance(camera, mujoco.MjvCamera) or 0 <= camera < model.ncam, (
            f"camera {camera}, but there are {model.ncam}"
        )
        gl = _gl_context()
        self._model = model
        self._digest = _digest(model)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._camera = _fixed_camera(camera) if isinstance(camera, int) else camera
        self._scene = mujoco.MjvScene(model, maxgeom=_MOST_GEOMS)
        self._option = mujoco.MjvOption()
        gl.make_current()
        self._context: mujoco.MjrContext | None = _drawing_context(model, height, width)
        _renderers.add(self)

    def render(self, data: mujoco.MjData) -> Array:
        """The view of the state `data`, uint8 [height, width, 3], the top row first."""
        assert self._context is not None, "the renderer is closed"
        mujoco.mjv_updateScene(
            self._model, data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene
        )
        _gl_context().make_current()
        # The buffer that is drawn into belongs to the OpenGL context, so another renderer may have set its own.
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        picture = np.empty((self._rect.height, self._rect.width, 3), np.uint8)
        mujoco.mjr_readPixels(picture, None, self._rect, self._context)
        return picture[::-1].copy()

    def take(self, model: mujoco.MjModel) -> bool:
        """Draw states of `model` from now on, if it equals the model so far; whether it does.

        Environments that compile their model for every episode mostly come out with the same one, and loading meshes
        and textures again costs as much as some pictures.
        """
        if model is not self._model:
            if _digest(model) != self._digest:
                return False
            self._model = model
        return True

    def close(self) -> None:
        """Free what the model needed; may be called again."""
        if self._context is not None:
            _gl_context().make_current()
            self._context.free()
            self._context = None


_MOST_GEOMS = 10_000


def _digest(model: mujoco.MjModel) -> bytes:
    """Of everything that makes up a model."""
    buffer = bytearray(mujoco.mj_sizeModel(model))
    mujoco.mj_saveModel(model, None, np.frombuffer(buffer, np.uint8))
    return hashlib.sha256(buffer).digest()


def _fixed_camera(number: int) -> mujoco.MjvCamera:
    camera = mujoco.MjvCamera()
    camera.type = mujoco.mjtCamera.mjCAMERA_FIXED.value
    camera.fixedcamid = number
    return camera


def _drawing_context(model: mujoco.MjModel, height: int, width: int) -> mujoco.MjrContext:
    """The model's textures and meshes with a buffer of the picture's size, which MuJoCo takes from the model."""
    settings = model.vis.global_
    size = settings.offheight, settings.offwidth
    settings.offheight, settings.offwidth = height, width
    try:
        return mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
    finally:
        settings.offheight, settings.offwidth = size


# --- A test picture, for `urlbench doctor` ----------------------------------------------------------

_RED_BALL = """
<mujoco><worldbody>
<light pos="0 0 3"/><camera pos="0 0 1"/><geom type="sphere" size="0.2" rgba="1 0 0 1"/>
</worldbody></mujoco>
"""


def draw_test_picture() -> str:
    """Draw a red ball; what has drawn it, in words.

    Raises:
        UserError: if nothing here can render, or if the picture is wrong.
    """
    model = mujoco.MjModel.from_xml_string(_RED_BALL)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = Renderer(model, height=8, width=8, camera=0)
    centre = renderer.render(data)[4, 4]
    if not centre[0] > 2 * centre[1:].max():
        raise UserError(f"{drawn_by()} draws wrong pictures: a red ball has the colour {centre.tolist()}.")
    return drawn_by()


def _main() -> int:
    try:
        print(draw_test_picture())
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
