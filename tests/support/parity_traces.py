"""Compares our environments with recorded traces of the original ones, file by file.

The layout of a folder of traces: `states/` (trajectories), `resets/`, `probes/` (states set by hand), `pixels/`
(pictures), `metaworld/` (goal sets, trajectories and pictures of reach), `facts.json` (sizes, bounds, episode lengths)
and `manifest.json` (checksums). Tolerances are those that the recorder measured and suggested, once for the simulator
versions of the recording and once for others.

This module runs in a process of its own, see `checking_process`: Jaco's resets solve small linear systems, whose last
bits depend on OpenBLAS's kernel, that is on the CPU, and contacts amplify them to 0.05 within an episode.
"""

import hashlib
import importlib.metadata
import json
import multiprocessing
import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

PIXELS, METAWORLD = "pixels", "metaworld"
COVERED_FOLDERS = ("states", "resets", "probes", PIXELS, METAWORLD)
_DOCUMENTATION = ("README.md",)
_FACTS_BY_TASK = ("urlb", "exorl_jaco")
_FACTS_OF_PIXELS = "pixels_ar2"
_VERSIONS = ("versions", "versions_metaworld")
_ZERO_ACTIONS = "quadruped_jump_zero_action_return_env_seed1"
# The recordings were made on a CPU for which OpenBLAS picks these kernels; every x86-64 CPU with AVX2 can run them.
_OPENBLAS_KERNELS = "Haswell"


# --- What there is to check -------------------------------------------------------------------------


def trace_folder(default: Path) -> Path:
    """The folder named by URLBENCH_TRACES, or `default`; FileNotFoundError if it holds no trace that we can check."""
    folder = Path(os.environ.get("URLBENCH_TRACES") or default)
    if not folder.is_dir():
        raise FileNotFoundError(f"the folder of traces {str(folder)!r} does not exist; set URLBENCH_TRACES to one.")
    if not checks(folder):
        raise FileNotFoundError(f"the folder {str(folder)!r} holds no trace to check; set URLBENCH_TRACES to another.")
    return folder


def checks(folder: Path) -> list[str]:
    """Every check of the folder: a file's relative path, or `facts.json:section/task`."""
    found = sorted(
        path.relative_to(folder).as_posix() for name in COVERED_FOLDERS for path in (folder / name).rglob("*.npz")
    )
    if (folder / "facts.json").is_file():
        facts = json.loads((folder / "facts.json").read_text())
        found += [f"facts.json:{section}/{task}" for section in _FACTS_BY_TASK for task in facts.get(section, {})]
        found += [f"facts.json:{_ZERO_ACTIONS}"] if _ZERO_ACTIONS in facts else []
        found += [f"facts.json:{_FACTS_OF_PIXELS}/{task}" for task in facts.get(_FACTS_OF_PIXELS, {})]
        found += [f"facts.json:{METAWORLD}"] if METAWORLD in facts else []
    if (folder / "manifest.json").is_file():
        found.append("manifest.json")
    return found


def not_covered(folder: Path) -> list[str]:
    """Files of the folder, and sections of its facts, that no check reads: mostly of suites that do not exist yet."""
    read = {check.partition(":")[0] for check in checks(folder)} | {*_DOCUMENTATION, "facts.json"}
    # Pictures that go with the recordings are for people.
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    files = {name for name in files if not name.endswith(".png")}
    facts = json.loads((folder / "facts.json").read_text()) if "facts.json" in files else {}
    sections = set(facts) - {*_FACTS_BY_TASK, _FACTS_OF_PIXELS, METAWORLD, _ZERO_ACTIONS, *_VERSIONS}
    return sorted(files - read) + [f"facts.json:{section}" for section in sorted(sections)]


def needs_renderer(name: str) -> bool:
    """Whether the check `name` has to draw pictures."""
    return name.startswith((f"{PIXELS}/", f"facts.json:{_FACTS_OF_PIXELS}/", f"{METAWORLD}/frames_"))


def listed_but_absent(folder: Path) -> list[str]:
    """Files that the manifest lists and the folder does not hold."""
    manifest = folder / "manifest.json"
    listed = json.loads(manifest.read_text()) if manifest.is_file() else {}
    return sorted(name for name in listed if not (folder / name).is_file())


@contextmanager
def checking_process() -> Iterator[ProcessPoolExecutor]:
    """A process for `check` whose BLAS rounds like the recorder's; submit to it."""
    before = os.environ.get("OPENBLAS_CORETYPE")
    os.environ["OPENBLAS_CORETYPE"] = _OPENBLAS_KERNELS
    try:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=spawn, initializer=warnings.simplefilter, initargs=("error",)) as pool:
            pool.submit(os.getpid).result()
            yield pool
    finally:
        if before is None:
            del os.environ["OPENBLAS_CORETYPE"]
        else:
            os.environ["OPENBLAS_CORETYPE"] = before


def check(folder: Path, name: str) -> dict[str, float]:
    """Run one of `checks`.

    Returns:
        The largest difference of each quantity that was compared.

    Raises:
        AssertionError: naming the quantity, the row and the difference, if one is beyond its tolerance.
    """
    if name == "manifest.json":
        return _check_manifest(folder)
    if name.startswith("facts.json:"):
        facts = json.loads((folder / "facts.json").read_text())
        section, _, task = name.removeprefix("facts.json:").partition("/")
        if section == _FACTS_OF_PIXELS:
            from parity_pixels import check_facts

            return check_facts(Comparison(facts["versions"], task), task, facts[section][task])
        if section == METAWORLD:
            import parity_metaworld

            return parity_metaworld.check_facts(facts[section])
        if task:
            return _check_facts(Comparison(facts["versions"], task), task, facts[section][task])
        return _check_zero_actions(Comparison(facts["versions"], "quadruped_jump"), facts[section])
    with np.load(folder / name, allow_pickle=False) as file:
        trace: dict[str, Any] = {key: file[key] for key in file.files}
    meta = json.loads(str(trace.pop("meta_json")))
    kind, _, file_name = name.partition("/")
    if kind == METAWORLD:
        import parity_metaworld

        return parity_metaworld.check(file_name, meta, trace)
    comparison = Comparison(meta["versions"], meta["task"])
    if kind == PIXELS:
        from parity_pixels import check_pictures

        return check_pictures(comparison, meta, trace)
    if kind == "resets":
        return _check_resets(comparison, Path(name).stem, trace)
    if kind == "probes":
        return _check_probes(comparison, meta, trace)
    _check_open_loop(comparison, meta, trace)
    if meta["full_precision_state"] and (comparison.same_versions or not comparison.is_jaco):
        _check_single_steps(comparison, meta, trace)
    return comparison.largest


class Comparison:
    """Compares quantities and remembers how far apart they were.

    Attributes:
        same_versions: the simulator is the one of the recording.
        largest: largest difference so far, by quantity.
    """

    def __init__(
        self, versions: dict[str, str], task: str, packages: tuple[str, ...] = ("dm_control", "mujoco")
    ) -> None:
        self.same_versions = all(importlib.metadata.version(name) == versions[name] for name in packages)
        self.is_jaco = task.startswith("jaco")
        self.largest: dict[str, float] = {}

    def near(self, what: str, ours: Any, recorded: Any, tolerance: float, where: str = "") -> None:
        """AssertionError unless both have one shape and differ by at most `tolerance` everywhere."""
        ours, recorded = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
        assert ours.shape == recorded.shape, f"{what} {where}: shape {ours.shape}, recorded {recorded.shape}"
        if not ours.size:
            return
        difference = np.abs(ours - recorded)
        worst = float(difference.max())
        self.largest[what] = max(self.largest.get(what, 0.0), worst)
        if not worst <= tolerance:
            index = np.unravel_index(int(np.nanargmax(difference)), difference.shape) if difference.shape else ()
            raise AssertionError(
                f"{what} {where}: off by {worst:.3g} at index {tuple(map(int, index))} "
                f"(ours {ours[index]:.9g}, recorded {recorded[index]:.9g}, tolerance {tolerance:g})"
            )

    def equal(self, what: str, ours: Any, recorded: Any, where: str = "") -> None:
        """AssertionError unless both are the same."""
        assert np.array_equal(ours, recorded), f"{what} {where}: ours {ours}, recorded {recorded}"
        self.largest.setdefault(what, 0.0)


# --- The checks -------------------------------------------------------------------------------------


def _make(task: str, seed: int, action_repeat: int, variant: str) -> Any:
    # Imported here, so that the parent process, whose BLAS is another, needs no simulator.
    from urlbench.suites.dmc.environment import make_environment

    return make_environment(task, seed, action_repeat, variant=variant)  # type: ignore[arg-type]


def _step_type(timestep: Any) -> int:
    return 0 if timestep.is_first else 2 if timestep.is_last else 1


def _check_open_loop(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> None:
    """Play the recorded actions from a fresh environment's first reset."""
    environment = _make(meta["task"], meta["env_seed"], meta["action_repeat"], meta["variant"])
    exact_rows = comparable_rows = len(trace["observation"])
    if not comparison.same_versions:
        exact_rows, comparable_rows = 10, 10 if comparison.is_jaco else 50
    timestep = environment.reset()
    for row in range(len(trace["observation"])):
        where = f"after {row} steps"
        if row:
            timestep = environment.step(trace["action"][row - 1])
            control = trace["ctrl"][row - 1].astype(np.float64)
            comparison.equal("ctrl", environment.physics.data.ctrl, control, where)
        comparison.equal("step_type", _step_type(timestep), int(trace["step_type"][row]), where)
        comparison.equal("discount", timestep.discount, float(trace["discount"][row]), where)
        if row >= comparable_rows:
            continue
        tolerance = 1e-4 if row < exact_rows else 1e-2
        comparison.near("observation", timestep.observation, trace["observation"][row], tolerance, where)
        comparison.near("reward", timestep.reward, trace["reward"][row], tolerance, where)
        for name in ("qpos", "qvel", "act"):
            comparison.near(name, getattr(environment.physics.data, name), trace[name][row], tolerance, where)
        if "time" in trace:
            comparison.near("time", environment.physics.time(), trace["time"][row], 1e-9, where)
    assert environment.observation_dtype == timestep.observation.dtype == np.float32


def _check_single_steps(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> None:
    """Start each recorded step from the recorded state, so that nothing can add up."""
    environment = _make(meta["task"], meta["env_seed"], meta["action_repeat"], meta["variant"])
    environment.reset()
    tolerance = 1e-6 if comparison.is_jaco else 1e-8
    for row, action in enumerate(trace["action"]):
        where = f"one step from row {row}"
        _set_state(environment.physics, trace, row)
        if comparison.is_jaco:
            _warm_start(environment.physics, trace, row)
        timestep = environment.step(action)
        for name in ("qpos", "qvel", "act"):
            ours = getattr(environment.physics.data, name)
            comparison.near(f"one-step {name}", ours, trace[name][row + 1], tolerance, where)
        comparison.near("one-step reward", timestep.reward, trace["reward"][row + 1], tolerance * 10, where)
        comparison.near("one-step observation", timestep.observation, trace["observation"][row + 1], 1e-4, where)


def _set_state(physics: Any, trace: dict[str, Any], row: int) -> None:
    with physics.reset_context():
        physics.set_state(np.concatenate([trace["qpos"][row], trace["qvel"][row], trace["act"][row]]))


def _warm_start(physics: Any, trace: dict[str, Any], row: int) -> None:
    """Restore what a state does not hold: without it contact forces, and velocities by up to 0.7, come out others."""
    import mujoco

    physics.data.time = trace["time"][row]
    physics.data.qacc_warmstart[:] = trace["qacc_warmstart"][row]
    if row:
        physics.data.ctrl[:] = trace["ctrl"][row - 1]
    mujoco.mj_step1(physics.model.ptr, physics.data.ptr)


def _check_resets(comparison: Comparison, stem: str, trace: dict[str, Any]) -> dict[str, float]:
    """Reset one environment a seed again and again: the order of its random draws."""
    task, _, variant = stem.partition("_exorl")
    variant = "exorl" + variant if stem != task else "urlb"
    for seed in sorted({int(key.removeprefix("seed").partition("_")[0]) for key in trace}):
        environment = _make(task, seed, 1, variant)
        for row in range(len(trace[f"seed{seed}_observation"])):
            where = f"seed {seed} reset {row}"
            timestep = environment.reset()
            comparison.near("observation", timestep.observation, trace[f"seed{seed}_observation"][row], 1e-5, where)
            for name in ("qpos", "qvel"):
                recorded = trace[f"seed{seed}_{name}"][row]
                comparison.near(name, getattr(environment.physics.data, name), recorded, 1e-5, where)
    return comparison.largest


def _check_probes(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """Set a state, read the reward, and again after one step from it."""
    environment = _make(meta["task"], meta["env_seed"], meta["action_repeat"], meta["variant"])
    for _ in range(meta["resets_before_probing"]):
        environment.reset()
    static_tolerance = 1e-6 if meta["variant"] == "exorl" else 1e-9
    after_tolerance = 1e-7
    if comparison.is_jaco:
        after_tolerance = 1e-6 if comparison.same_versions else 1e-3
    for row, action in enumerate(trace["action"]):
        where = f"probe {row} ({trace['category'][row]})"
        physics = environment.physics
        _set_state(physics, trace, row)
        reward = environment.environment.task.get_reward(physics)
        comparison.near("reward static", reward, trace["reward_static"][row], static_tolerance, where)
        _set_state(physics, trace, row)
        timestep = environment.step(action)
        comparison.near("reward after step", timestep.reward, trace["reward_after_step"][row], after_tolerance, where)
        if comparison.same_versions or not comparison.is_jaco:
            for name in ("qpos", "qvel", "act"):
                comparison.near(f"next {name}", getattr(physics.data, name), trace[f"next_{name}"][row], 1e-6, where)
            comparison.near("next observation", timestep.observation, trace["next_observation"][row], 1e-4, where)
    return comparison.largest


def _check_facts(comparison: Comparison, name: str, facts: dict[str, Any]) -> dict[str, float]:
    """Sizes, bounds, time steps, and three episodes of zero actions at action repeat 1 and 2."""
    task, variant = name.removesuffix("_exorl"), "exorl" if name.endswith("_exorl") else "urlb"
    environment = _make(task, 1, 1, variant)
    inner, physics = environment.environment, environment.physics
    comparison.equal("observation_shape", environment.observation_shape, tuple(facts["observation_shape"]))
    comparison.equal("observation_dtype", environment.observation_dtype.name, facts["observation_dtype"])
    comparison.equal("action_dim", environment.action_dim, facts["action_dim"])
    layout, start = [], 0
    for key, spec in inner.observation_spec().items():
        end = start + int(np.prod(spec.shape, dtype=int))
        layout.append([key, start, end])
        start = end
    comparison.equal("observation_layout", json.dumps(layout), json.dumps(facts["observation_layout"]))
    comparison.equal("native_action_minimum", inner.action_spec().minimum, facts["native_action_minimum"])
    comparison.equal("native_action_maximum", inner.action_spec().maximum, facts["native_action_maximum"])
    low, high = facts["scaled_action_bounds"]
    for bound, native in ((low, facts["native_action_minimum"]), (high, facts["native_action_maximum"])):
        control = environment.control(np.full(environment.action_dim, bound, np.float32))
        comparison.near("bounds of the control", control, native, 1e-6)
    for size in ("nq", "nv", "na", "nmocap"):
        comparison.equal(size, getattr(physics.model, size), facts[size])
    comparison.equal("physics_state_size", physics.get_state().size, facts["physics_state_size"])
    comparison.near("control_timestep", inner.control_timestep(), facts["control_timestep"], 1e-12)
    comparison.near("physics_timestep", physics.timestep(), facts["physics_timestep"], 1e-12)
    for kind, names in (("actuator", "actuator_names"), ("joint", "joint_names")):
        count = {"actuator": physics.model.nu, "joint": physics.model.njnt}[kind]
        ours = [physics.model.id2name(i, kind) for i in range(count)]
        comparison.equal(names, ours, facts[names])
    for action_repeat in (1, 2):
        _check_episodes(comparison, _make(task, 1, action_repeat, variant), facts[f"ar{action_repeat}"])
    return comparison.largest


def _check_episodes(comparison: Comparison, environment: Any, facts: dict[str, Any]) -> None:
    action = np.zeros(environment.action_dim, np.float32)
    for episode, steps in enumerate(facts["agent_steps_until_last"]):
        where = f"episode {episode} at action repeat {environment.action_repeat}"
        timestep = environment.reset()
        if "reset" in facts and not episode:
            comparison.equal("reward at reset", timestep.reward, facts["reset"]["reward"])
            comparison.equal("discount at reset", timestep.discount, facts["reset"]["discount"])
            comparison.equal("step_type at reset", _step_type(timestep), facts["reset"]["step_type"])
        total, taken, discounts = 0.0, 0, set()
        while not timestep.is_last:
            timestep = environment.step(action)
            total, taken = total + timestep.reward, taken + 1
            discounts.add(timestep.discount)
        comparison.equal("steps until the last", taken, steps, where)
        comparison.equal("discounts", sorted(discounts), facts["all_discounts"][episode], where)
        comparison.equal("discount at the last step", timestep.discount, facts["last"][episode]["discount"], where)
        comparison.near("time at the last step", environment.physics.time(), facts["last"][episode]["time"], 1e-9)
        if comparison.same_versions:
            recorded = facts["zero_action_return_env_seed1_episodes1to3"][episode]
            comparison.near("return of zero actions", total, recorded, 1e-4, where)


def _check_zero_actions(comparison: Comparison, facts: dict[str, float]) -> dict[str, float]:
    """An episode of quadruped jump with zero actions; the lift range is asymmetric, so there are two zeros."""
    environment = _make("quadruped_jump", 1, 1, "urlb")
    spec = environment.environment.action_spec()
    scaled = np.zeros(environment.action_dim, np.float32)
    native = (-1 - 2 * spec.minimum / (spec.maximum - spec.minimum)).astype(np.float32)
    for name, action in (("scaled_zero(action=0 in [-1,1])", scaled), ("native_zero(ctrl=0)", native)):
        environment = _make("quadruped_jump", 1, 1, "urlb")
        environment.reset()
        total = sum(environment.step(action).reward for _ in range(1000))
        comparison.near(name, total, facts[name], 1e-2)
    return comparison.largest


def _check_manifest(folder: Path) -> dict[str, float]:
    """Every listed file that is there is the one that was recorded."""
    for name, entry in json.loads((folder / "manifest.json").read_text()).items():
        path = folder / name
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert digest == entry["sha256"], f"{name} is not the file that manifest.json lists (sha256 {digest})"
    return {}
