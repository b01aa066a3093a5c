"""Measures what a checkpoint costs at paper scale, with a short and with a full replay, and what a kill loses.

Usage: python benchmarks/checkpoint_cost.py [--frames 2000000] [--kills 5] [--output FILE.json]

The replay is filled with made-up episodes of walker from states. The checkpoint is the one that a run writes when it is
asked to stop; starting is `run_job` up to the first step. For the loss, a worker with cic at paper settings is ended by
SIGKILL or SIGTERM at random times, with a checkpoint every 15 s in place of the usual 120.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import describe_machine, markdown_table

from urlbench.core.interfaces import Environment, TimeStep
from urlbench.core.jobs import Job
from urlbench.episodes.replay import Replay
from urlbench.runs.heartbeat import Heartbeat
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, queued_status, read_jsonl
from urlbench.training.assembly import build_agent, build_environment, set_up_torch
from urlbench.training.job import run_job
from urlbench.training.learning import Interrupted, Surroundings
from urlbench.training.loop import TrainingLoop

AGENTS = ("choreographer", "dreamer-lbs", "cic")
EPISODE_STEPS = 1000
FEW_FRAMES = 5000
_CHECKPOINT_SECONDS = 15.0
_STEPS_BEFORE_THE_STOP = 500


class _Clock:
    """Asks to stop after some questions; remembers when it first did."""

    def __init__(self, questions: int) -> None:
        self._left, self.asked_at = questions, 0.0

    def __call__(self) -> str:
        self._left -= 1
        if self._left >= 0:
            return ""
        self.asked_at = self.asked_at or time.perf_counter()
        return "stopped by the benchmark"


def prepared(root: Path, agent: str) -> tuple[Job, RunDirectory]:
    """The paper's pretraining of walker from states, prepared in `root`."""
    request = PlanRequest(suite="urlb-states", agents=(agent,), domains=("walker",), seeds=(0,), phase="pretrain")
    job = make_plan(request).jobs[0]
    directory = RunDirectory(root / job.path)
    directory.prepare(job)
    return job, directory


def filled_replay(folder: Path, environment: Environment, capacity: int, frames: int, recorded: Any) -> Replay:
    """A replay of made-up episodes, on disk and in memory."""
    replay = Replay(
        folder, environment.observation_shape, environment.observation_dtype, environment.action_dim, capacity, recorded
    )
    rng = np.random.default_rng(0)
    for _ in range(frames // EPISODE_STEPS):
        observations = rng.standard_normal((EPISODE_STEPS + 1, *environment.observation_shape), np.float32)
        actions = rng.uniform(-1, 1, (EPISODE_STEPS + 1, environment.action_dim)).astype(np.float32)
        kept = {name: np.zeros(shape, np.float32) for name, shape in (recorded or {}).items()}
        for step, observation in enumerate(observations):
            timestep = TimeStep(observation, 0.0, 1.0, step == 0, step == EPISODE_STEPS)
            replay.add(timestep, actions[step] if step else None, kept)
    return replay


def measure(agent_name: str, frames: int) -> dict[str, Any]:
    """Seconds and bytes of a checkpoint and of a start, with `frames` in the replay."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        job, directory = prepared(root, agent_name)
        environment = build_environment(job.spec)
        agent, _ = build_agent(job, environment, root, "cpu")
        replay = filled_replay(
            directory.replay, environment, agent.schedule.replay_capacity_steps, frames, agent.recorded
        )
        # Only then there is all that a checkpoint has to hold: optimisers get their state with the first update.
        schedule, rng = agent.schedule, np.random.default_rng(0)
        agent.update(replay.sample(rng, schedule.sampled[""]))
        clock = _Clock(_STEPS_BEFORE_THE_STOP)
        surroundings = Surroundings(directory, Heartbeat(directory, queued_status(job.spec)), clock, float("inf"))
        directory.cut_back(dict.fromkeys(directory.lengths(), 0))
        try:
            TrainingLoop(job.id, job.spec, agent, environment, None, replay, surroundings).run()
        except Interrupted:
            saved = time.perf_counter() - clock.asked_at
        size = sum(file.stat().st_size for file in directory.checkpoints.iterdir())
        on_disk = sum(file.stat().st_size for file in directory.replay.iterdir()) if directory.replay.exists() else 0
        began = time.perf_counter()
        with directory.lock():
            run_job(job, directory, runs_root=root, stop=lambda: "stopped by the benchmark")
        started = time.perf_counter() - began
    return {
        "agent": agent_name,
        "replay_frames": frames,
        "checkpoint_seconds": saved,
        "checkpoint_bytes": size,
        "replay_bytes": on_disk,
        "start_seconds": started,
    }


def losses(ending: signal.Signals, kills: int, rng: random.Random) -> list[dict[str, float]]:
    """Frames and seconds of work lost at each of several ends of a worker."""
    rows = []
    reached, speed = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        _, directory = prepared(Path(folder), "cic")
        command = [sys.executable, "-m", "urlbench.training.worker", str(directory.path), "--runs", folder]
        command += ["--checkpoint-seconds", str(_CHECKPOINT_SECONDS)]
        for start in range(kills + 1):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            while len(starts := _starts(directory)) <= start:
                time.sleep(0.05)
            if start:
                lost = reached - starts[-1]
                rows.append({"frames": lost, "seconds": lost / speed if speed else 0.0})
            if start < kills:
                time.sleep(rng.uniform(1.0, 3.0) * _CHECKPOINT_SECONDS)
            process.send_signal(ending if start < kills else signal.SIGKILL)
            process.wait()
            status = directory.read_status()
            assert status is not None
            reached, speed = status.progress, status.per_second or 0.0
    return rows


def _starts(directory: RunDirectory) -> list[int]:
    """Where each start so far began, in frames."""
    return [row["from_progress"] for row in read_jsonl(directory.attempts_file) if "started" in row]


def main() -> None:
    """Measure, print tables, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description="Measure checkpoints at paper scale and what a kill loses.")
    parser.add_argument("--frames", type=int, default=2_000_000, help="in the full replay")
    parser.add_argument("--kills", type=int, default=5, help="of each kind")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    machine = describe_machine(threads=1)
    set_up_torch("cpu", 1)
    costs = [measure(agent, frames) for agent in AGENTS for frames in (FEW_FRAMES, options.frames)]
    rng = random.Random(0)
    lost = {ending.name: losses(ending, options.kills, rng) for ending in (signal.SIGKILL, signal.SIGTERM)}
    rows = [
        [
            cost["agent"],
            f"{cost['replay_frames']:,}",
            f"{cost['checkpoint_seconds']:.2f}",
            f"{cost['checkpoint_bytes'] / 2**20:.0f}",
            f"{cost['replay_bytes'] / 2**20:.0f}",
            f"{cost['start_seconds']:.1f}",
        ]
        for cost in costs
    ]
    print(markdown_table(["agent", "frames in replay", "save s", "save MiB", "replay MiB", "start s"], rows))
    for name, values in lost.items():
        print(f"{name}: lost " + ", ".join(f"{one['frames']:.0f} frames ({one['seconds']:.1f} s)" for one in values))
    if options.output is not None:
        result = {"machine": machine, "checkpoint_seconds_setting": _CHECKPOINT_SECONDS, "costs": costs, "lost": lost}
        options.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
