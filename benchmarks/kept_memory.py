"""Updates with freed memory kept (`training.assembly.keep_freed_memory`) against glibc as it comes, from states.

    python benchmarks/kept_memory.py --output benchmarks/results/kept_memory.json

What glibc was told holds for a whole process, so each measurement is a process of its own; the two kinds take turns.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import comparing
import reporting

from urlbench.core.types import Phase

LEARNERS: tuple[tuple[str, Phase], ...] = (("ddpg", "finetune"), ("dreamer", "finetune"))


def child(agent: str, phase: Phase, preset: str, kept: bool, updates: int) -> dict[str, float]:
    """CPU seconds and page faults of an update, mean of some after one to warm up, and the most memory taken in GiB."""
    import one_update
    from updates import Settings

    from urlbench.core import registry
    from urlbench.training import assembly

    with mock.patch.object(assembly, "keep_freed_memory", assembly.keep_freed_memory if kept else lambda: None):
        assembly.set_up_torch("cpu", 1)
    settings = Settings(preset=preset, observation="states", updates=updates, seconds=0, threads=1)
    learner = one_update.build(registry.load_agent(agent), phase, settings)
    batch = one_update.play(learner, learner.actor(evaluation=False, seed=1), learner.context)  # type: ignore[attr-defined]
    learner.update(batch)
    faults, begin = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    for _ in range(updates):
        learner.update(batch)
    return {
        "seconds": (time.process_time() - begin) / updates,
        "faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / updates,
        "gib": one_update.peak_memory() / 2**30,
    }


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Updates with freed memory kept against glibc as it comes.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--preset", choices=("paper", "small", "smoke"), default="paper", help="(%(default)s)")
    parser.add_argument("--updates", type=int, default=2, help="of a process, after one to warm up (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--child", nargs=3, metavar=("AGENT", "PHASE", "KEPT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        agent, phase, kept = given.child
        print(json.dumps(child(agent, phase, given.preset, kept == "kept", given.updates)))
        return
    machine, rows, details = reporting.describe_machine(threads=1), [], {}
    own = [sys.executable, __file__, "--preset", given.preset, "--updates", str(given.updates), "--child"]
    for agent, phase in LEARNERS:
        found: dict[str, list[dict[str, float]]] = {"kept": [], "freed": []}
        for _ in range(given.repetitions):
            for kind, several in found.items():
                done = subprocess.run([*own, agent, phase, kind], stdout=subprocess.PIPE, text=True, check=True)
                several.append(json.loads(done.stdout))
        what = f"update of {agent}, {given.preset}, {phase}: freed memory kept"
        fast, plain = ([one["seconds"] for one in found[kind]] for kind in ("kept", "freed"))
        rows.append(comparing.row(what, fast, plain, unit="updates/s", per_second=1))
        details[agent] = found
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(
            given.output, machine, rows, repetitions=given.repetitions, updates=given.updates, found=details
        )


if __name__ == "__main__":
    main()
