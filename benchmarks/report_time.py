"""Times a whole report of made-up results: 12 agents, 10 seeds, the 12 tasks of urlb-states, all formats.

Usage: python benchmarks/report_time.py [--repetitions 50000] [--output FILE.json]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import comparing
import numpy as np
from reporting import describe_machine

from urlbench.core.identity import config_hash, job_id
from urlbench.core.jobs import Job, JobSpec
from urlbench.runs.store import RunStore
from urlbench.suites.dmc.urlb_states import SUITE

AGENTS = ("choreographer", "random", "ddpg", "icm", "disagreement", "rnd", "apt", "proto", "smm", "diayn", "aps", "cic")
SEEDS = 10


def write_runs(root: Path) -> None:
    """Finished fine-tunings with learning curves that approach a level of each agent."""
    rng, protocol, store = np.random.default_rng(0), SUITE.protocols["paper"], RunStore(root)
    assert SUITE.normaliser is not None
    for agent, task, seed in ((a, t, s) for a in AGENTS for t in SUITE.tasks for s in range(SEEDS)):
        snapshot = 0 if agent in ("random", "ddpg") else protocol.snapshots[-1]
        spec = JobSpec(
            suite=SUITE.full_name,
            observation="states",
            action_repeat=SUITE.action_repeat,
            agent=agent,
            agent_config={},
            protocol=protocol,
            phase="finetune",
            domain=task.domain,
            task=task.name,
            seed=seed,
            snapshot=snapshot,
            versions={},
        )
        start = f"snapshot_{snapshot}/" if snapshot else ""
        place = f"{agent}-{config_hash({})}/paper/finetune/{task.name}/{start}seed_{seed}"
        job = Job(id=job_id(spec), path=f"{SUITE.full_name}/{place}", spec=spec)
        directory = store.run_dir(job)
        directory.prepare(job)
        level = SUITE.normaliser.references[task.name] * (0.2 + 0.05 * AGENTS.index(agent) + 0.05 * rng.random())
        frames = range(protocol.eval_every_frames, protocol.finetune_frames + 1, protocol.eval_every_frames)
        rows = [(frame, level * (1 - np.exp(-4 * frame / protocol.finetune_frames))) for frame in frames]
        directory.eval_file.write_text(
            "".join(
                json.dumps(
                    {"frame": frame, "task": task.name, "returns": [mean] * protocol.eval_episodes, "mean": mean}
                )
                + "\n"
                for frame, mean in rows
            ),
            encoding="utf-8",
        )
        directory.finish(protocol.finetune_frames)


def main() -> None:
    """Write the runs, then time the command from its start to its end."""
    parser = argparse.ArgumentParser(description="Time a whole report of made-up results.")
    parser.add_argument("--repetitions", type=int, default=50_000, help="of the bootstrap")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    machine = describe_machine(threads=1)
    with tempfile.TemporaryDirectory() as folder:
        write_runs(Path(folder))
        command = ["report", "--suite", SUITE.name, "--runs", folder, "--reps", str(options.repetitions)]
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "urlbench", *command], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
    what = f"report of {len(AGENTS) * SEEDS * len(SUITE.tasks)} runs, {options.repetitions} resamples, by the clock"
    rows = [comparing.Row(what, None, seconds, "s", None)._asdict()]
    result = {"machine": machine, "repetitions": options.repetitions, "seconds": seconds, "rows": rows}
    if options.output is not None:
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{len(AGENTS)} agents, {SEEDS} seeds, {len(SUITE.tasks)} tasks, all formats: {seconds:.1f} s")


if __name__ == "__main__":
    main()
