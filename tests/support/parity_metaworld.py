"""Compares our reach task with recordings of Meta-World's own; run by `parity_traces` in its own process.

With the simulator of the recording every number came out the same, bit for bit; the tolerance is for other CPUs. With
other versions only which goals are found is compared, and how long an episode is.
"""

import hashlib
from typing import Any

import numpy as np
from parity_pixels import check_picture
from parity_traces import Comparison

from urlbench.suites.metaworld.reach_ceiling import proportional_action
from urlbench.suites.metaworld.reach_goals import goal_set
from urlbench.suites.metaworld.sawyer_reach import ReachEnvironment, make_pixels, make_states

_PACKAGES = ("metaworld", "mujoco")
_TOLERANCE = 1e-6
_SIZE = 64


def check(name: str, meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """Check the file `name` of the folder."""
    if name == "goals.npz":
        return _check_goals(meta, trace)
    comparison = Comparison(meta["versions"], "reach", _PACKAGES)
    return (_check_frames if name.startswith("frames") else _check_controller)(comparison, meta, trace)


def check_facts(facts: dict[str, Any]) -> dict[str, float]:
    """Sizes, and an episode of zero actions."""
    comparison = Comparison({}, "reach", ())
    environment = make_pixels("reach", 1, facts["action_repeat"], goal_set=1)
    comparison.equal("observation_shape", environment.observation_shape, tuple(facts["observation_shape"]))
    comparison.equal("observation_dtype", environment.observation_dtype.name, facts["observation_dtype"])
    comparison.equal("action_dim", environment.action_dim, facts["action_dim"])
    blind = environment.environment
    blind.reset()
    steps = [blind.step(np.zeros(4, np.float32)) for _ in range(facts["agent_steps"])]
    comparison.equal("steps with is_last", np.flatnonzero([step.is_last for step in steps]) + 1, [len(steps)])
    comparison.equal("the last step", facts["is_last_only_at_step"], len(steps))
    comparison.equal("env_steps", facts["env_steps"], len(steps) * facts["action_repeat"])
    comparison.equal("discounts", {step.discount for step in steps}, {facts["discount"]})
    return comparison.largest


def _check_goals(meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """The goal sets, bit for bit."""
    comparison = Comparison({}, "reach", ())
    for name, recorded in trace.items():
        ours = goal_set(int(name.removeprefix("set")))
        comparison.equal(name, ours, recorded)
        for kind, rows in (("50x6_little_endian_float64", ours), ("50x3_goal_block", ours[:, 3:])):
            digest = hashlib.sha256(np.ascontiguousarray(rows, "<f8")).hexdigest()
            comparison.equal(f"sha256 of {name}", digest, meta[f"sha256_of_{kind}"][name])
    return comparison.largest


def _check_controller(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """Play the recorded actions of a controller that is told the goal, one episode a goal."""
    environment = make_states("reach", 0, meta["action_repeat"], goal_set=meta["goal_set"])
    for row, goal in enumerate(trace["goal_id"]):
        comparison.equal("object_init", environment.goals[goal, :3], trace["object_init"][row])
        comparison.equal("goal", environment.goals[goal, 3:], trace["goal"][row])
        recorded = {name: values[row] for name, values in trace.items()}
        _check_episode(comparison, environment, int(goal), recorded)
    return comparison.largest


def _check_episode(comparison: Comparison, environment: ReachEnvironment, goal: int, recorded: dict[str, Any]) -> None:
    environment.set_goal(goal)
    timestep, simulation = environment.reset(), environment.simulation
    if comparison.same_versions:
        comparison.near("qpos", simulation.data.qpos, recorded["qpos0"], _TOLERANCE, f"goal {goal} at reset")
        comparison.near("qvel", simulation.data.qvel, recorded["qvel0"], _TOLERANCE, f"goal {goal} at reset")
    steps = len(recorded["action"])
    every = steps // (len(recorded["mw_state"]) - 1)
    rewards = []
    for step in range(steps + 1):
        where = f"goal {goal} after {step} steps"
        if step:
            timestep = environment.step(recorded["action"][step - 1])
            rewards.append(timestep.reward)
            comparison.equal("discount", timestep.discount, 1.0, where)
            comparison.equal("is_last", timestep.is_last, bool(recorded["is_last"][step - 1]), where)
        if not comparison.same_versions:
            continue
        if step:
            comparison.equal("reward", timestep.reward, recorded["reward"][step - 1], where)
            comparison.equal("success", min(timestep.reward, 1), recorded["success"][step - 1], where)
        comparison.near("tcp", np.float32(simulation.hand()), recorded["tcp"][step], _TOLERANCE, where)
        if step % every == 0:
            comparison.near("mw_state", timestep.observation, recorded["mw_state"][step // every], _TOLERANCE, where)
        if step < steps:
            action = proportional_action(simulation.hand(), simulation.goal)
            comparison.near("controller", action, recorded["action"][step], 10 * _TOLERANCE, where)
    comparison.equal("found", int(any(rewards)), recorded["found"], f"goal {goal}")
    if comparison.same_versions:
        comparison.equal("return", sum(rewards), recorded["env_return"], f"goal {goal}")


def _check_frames(comparison: Comparison, meta: dict[str, Any], trace: dict[str, Any]) -> dict[str, float]:
    """The pictures after some steps of recorded episodes; that of the reset shows whether the goal is in its place."""
    environment = make_pixels("reach", 0, 2, goal_set=meta["goal_set"])
    simulation = environment.environment.simulation
    comparison.equal("camera", simulation.camera, meta["camera_index"])
    comparison.equal("place of the camera", simulation.model.cam_pos[simulation.camera], trace["cam_pos"])
    comparison.equal("turn of the camera", simulation.model.cam_quat[simulation.camera], trace["cam_quat"])
    comparison.equal("field of view", simulation.model.cam_fovy[simulation.camera], meta["fovy"])
    for row, goal in enumerate(meta["goal_ids"]):
        comparison.equal("goal", environment.environment.goals[goal, 3:], trace["goal"][row])
        environment.set_goal(goal)
        observation, taken = environment.reset().observation, 0
        for column, steps in enumerate(meta["agent_steps"]):
            for action in trace["action"][row, taken:steps]:
                environment.environment.step(action)
            observation, taken = environment.look(_SIZE) if steps else observation, steps
            where = f"goal {goal} after {steps} steps"
            if comparison.same_versions:
                comparison.near("qpos", simulation.data.qpos, trace["qpos"][row, column], _TOLERANCE, where)
                comparison.near("tcp", simulation.hand(), trace["tcp"][row, column], _TOLERANCE, where)
            check_picture(comparison, observation, trace["frames"][row, column], where)
            topdown = observation.transpose(1, 2, 0)[::-1]
            check_picture(comparison, topdown, trace["topdown"][row, column], f"{where}, unflipped")
    return comparison.largest
