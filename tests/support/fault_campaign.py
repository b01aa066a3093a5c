"""Random faults over runs on this machine and on a real Slurm; at the end every result must be the undisturbed run's.

    python tests/support/fault_campaign.py --faults 60 --executor slurm --executor local --out FILE.json

Faults: kill -9 of a worker, of the command itself, of any other process of a job, of a node with all that runs on it,
of the controller; preemption, cancellation; a full disk (a small tmpfs, which only root can mount); a file cut short,
also such as a run cannot do without: then it has to refuse, and goes on when the file is restored. The runs are those
of the toy suite, slowed down so that faults meet them, with checkpoints three times a second.
"""

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from processes import HANG_SECONDS, run_program, started
from slurm_cluster import NODES, SlurmCluster, processes
from toy_runs import PLUGIN, assert_same_run

from urlbench.core.errors import UserError
from urlbench.runs.manifest import collect_manifest
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training.checkpoint import SnapshotHeader, load_snapshot

_PAUSE_SECONDS = 0.02
_TMPFS_MIB = 96
_SEEDS_AT_A_TIME = 4
_DAMAGE = re.compile(r"damaged|truncated|cannot be read|does not exist|not of this version|was edited|is gone")


class _Cut(NamedTuple):
    """A file that was cut short: what it held, and what is left of that."""

    content: bytes
    left: bytes


class Campaign:
    """Faults over the runs of one folder.

    Attributes:
        root: the folder.
        counts: faults so far, by kind.
        refusals: how often a damaged file had to be restored.
    """

    def __init__(self, root: Path, rng: random.Random, faults: int, environment: dict[str, str]) -> None:
        self.root, self._rng, self._left = root, rng, faults
        self._environment = environment | {"URLBENCH_CHECKPOINT_SECONDS": "0.3"}
        self.counts: Counter[str] = Counter()
        self.refusals = 0
        self._cuts: dict[Path, _Cut] = {}
        self._kinds: dict[str, Callable[[], bool]] = {
            "worker killed": lambda: self._kill("urlbench.training.worker"),
            "file cut short": self._cut_a_file,
            **({"disk full": self._fill_the_disk} if root.is_mount() else {}),
        }

    @property
    def over(self) -> bool:
        """True once all faults have been."""
        return self._left <= 0

    def command(self, seeds: Sequence[int], root: Path | None = None) -> list[str]:
        """`urlbench run` for these seeds."""
        return [
            *(sys.executable, "-m", "urlbench", "run", "--suite", "toy-states", "--agent", "toy", "--preset", "smoke"),
            *("--seeds", f"{min(seeds)}-{max(seeds)}", "--plugin", str(PLUGIN), "--runs", str(root or self.root)),
            *("-o", f"agent.pause_seconds={_PAUSE_SECONDS}"),
        ]

    def fault(self) -> None:
        """One fault of a random kind; none if that kind finds nothing to hit."""
        kind = self._rng.choice(sorted(self._kinds))
        if not self.over and self._kinds[kind]():
            self.counts[kind] += 1
            self._left -= 1
            print(f"{sum(self.counts.values())}: {kind}", flush=True)

    def _ours(self, word: str) -> list[int]:
        """Processes of these runs whose command line has `word` in it."""
        found = []
        for pid, _ in processes():
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if word in line and str(self.root) in line:
                    found.append(pid)
        return found

    def _kill(self, word: str) -> bool:
        found = self._ours(word)
        if not found:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._rng.choice(found), signal.SIGKILL)
        return True

    def _cut_a_file(self) -> bool:
        """Cut a file of a run that no process holds; its content is kept for the case that the run refuses."""
        directories = list(RunStore(self.root).directories()) if self.root.exists() else []
        self._rng.shuffle(directories)
        for directory in directories:
            done = directory.done_file.exists()
            with contextlib.suppress(UserError), directory.lock():
                # Once it is done, a run's snapshots are what others start from.
                files = [
                    file
                    for file in (directory.snapshots if done else directory.path).rglob("*")
                    if file.is_file() and file.name != "lock" and file.stat().st_size and file not in self._cuts
                ]
                if files:
                    file = self._rng.choice(sorted(files))
                    content = file.read_bytes()
                    self._cuts[file] = _Cut(content, content[: self._rng.randrange(len(content))])
                    os.truncate(file, len(self._cuts[file].left))
                    return True
        return False

    def restore_what_was_refused(self) -> None:
        """Put files back without which runs say that they cannot go on."""
        self._forget_what_was_written_again()
        for file, cut in list(self._cuts.items()):
            if self._refused(file):
                self.refusals += 1
                file.write_bytes(cut.content)
                del self._cuts[file]

    def _forget_what_was_written_again(self) -> None:
        """Runs that have done without a file have removed it or written it anew."""
        self._cuts = {file: cut for file, cut in self._cuts.items() if file.exists() and file.read_bytes() == cut.left}

    def _refused(self, file: Path) -> bool:
        """True if a run that needs the file, its own or one that starts from it, says so."""
        run = next(folder for folder in file.parents if (folder / "lock").exists())
        try:
            states = [directory.read_status() for directory in RunStore(self.root).directories()]
        except UserError:  # a spec.json that cannot be read
            return True
        messages = " ".join(status.message for status in states if status is not None and status.state == "failed")
        return file.name == "spec.json" or (str(run) in messages and bool(_DAMAGE.search(messages)))

    def restore_what_nobody_read(self) -> None:
        """Put back what is still cut short; who asks for such a snapshot has to notice."""
        self._forget_what_was_written_again()
        for file, cut in self._cuts.items():
            if "snapshots" in file.parts:
                with pytest.raises(UserError, match=r"damaged|does not describe"):
                    load_snapshot(file.with_suffix(".pt"), self._header(file))
            file.write_bytes(cut.content)
        self._cuts.clear()

    def _header(self, file: Path) -> SnapshotHeader:
        """What a snapshot should be."""
        spec = RunDirectory(file.parent.parent).read_job(self.root).spec
        return SnapshotHeader.of(spec, int(file.stem.partition("_")[2] or spec.protocol.finetune_frames))

    def _fill_the_disk(self) -> bool:
        ballast = self.root / ".ballast"
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0")
        time.sleep(self._rng.uniform(0.5, 2.0))
        ballast.unlink()
        return True

    def pause(self) -> None:
        """Until the next fault."""
        time.sleep(self._rng.uniform(0.7, 3.0))

    def done(self, seeds: Sequence[int]) -> bool:
        """True once all runs of these seeds are done."""
        found = [one for one in self.root.rglob("seed_*") if int(one.name.removeprefix("seed_")) in seeds]
        return len(found) == 6 * len(seeds) and all((one / "DONE").exists() for one in found)


class LocalCampaign(Campaign):
    """Runs of `urlbench run` on this machine."""

    def __init__(self, root: Path, rng: random.Random, faults: int) -> None:
        super().__init__(root, rng, faults, dict(os.environ))
        self._kinds["command killed"] = lambda: self._kill("urlbench run")

    def run(self, seeds: Sequence[int]) -> None:
        """Run these seeds through faults until all are done."""
        deadline = time.monotonic() + HANG_SECONDS
        while not self.done(seeds):
            assert time.monotonic() < deadline, f"{self.root} does not get to its end"
            self.restore_what_was_refused()
            command = [*self.command(seeds), "--workers", "4", "--rerun", "failed"]
            with started(command, env=self._environment, stdout=subprocess.DEVNULL, stderr=None) as process:
                while process.poll() is None:
                    self.pause() if not self.over else time.sleep(0.2)
                    self.fault()
            assert process.returncode in (0, 1, 2, 3, -signal.SIGKILL), process.returncode


class SlurmCampaign(Campaign):
    """Runs of `urlbench run --executor slurm` on a cluster of its own."""

    def __init__(self, root: Path, rng: random.Random, faults: int, cluster: SlurmCluster, profile: Path) -> None:
        super().__init__(root, rng, faults, cluster.environment())
        self._cluster, self._profile = cluster, profile
        self._kinds |= {
            "process of a job killed": lambda: self._kill(self._rng.choice(["slurm.element", "submitit", "srun"])),
            "node lost": self._lose_a_node,
            "controller restarted": self._restart_the_controller,
            "preempted": self._preempt,
            "element cancelled": self._cancel,
        }

    def run(self, seeds: Sequence[int]) -> None:
        """Run these seeds through faults until all are done."""
        deadline = time.monotonic() + HANG_SECONDS
        while not self.done(seeds):
            assert time.monotonic() < deadline, f"{self.root} does not get to its end"
            self.restore_what_was_refused()
            self._submit(seeds)
            while self._queue():
                assert time.monotonic() < deadline, f"{self.root} does not get to its end"
                self.pause() if not self.over else time.sleep(1)
                self.fault()

    def _submit(self, seeds: Sequence[int]) -> None:
        command = [*self.command(seeds), "--executor", "slurm", "--cluster", str(self._profile), "--rerun", "failed"]
        with started(command, env=self._environment, stdout=subprocess.DEVNULL, stderr=None) as process:
            if not self.over and self._rng.random() < 0.4:
                time.sleep(self._rng.uniform(1.0, 6.0))
                if process.poll() is None:
                    process.kill()
                    self.counts["submitting command killed"] += 1
                    self._left -= 1
            process.wait()

    def _queue(self) -> list[str]:
        """Ids of the elements that are in the queue."""
        ended = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
        return [job for job, state in self._cluster.squeue().items() if state not in ended]

    def _lose_a_node(self) -> bool:
        node = self._rng.choice(NODES)
        self._cluster.kill_node(node)
        time.sleep(self._rng.uniform(0.0, 2.0))
        self._cluster.start_node(node)
        return True

    def _restart_the_controller(self) -> bool:
        self._cluster.restart_controller(kill=self._rng.random() < 0.5)
        return True

    def _preempt(self) -> bool:
        self._cluster.run("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")
        return True

    def _cancel(self) -> bool:
        self._cluster.run("scancel", self._rng.choice(sorted(self._queue()) or ["0"]))
        return True


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of its own where that can be had, which is as root; else a plain one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_MIB}m", "tmpfs", str(folder)]
    mounted = run_program(mount).returncode == 0
    if not mounted:
        print("no small disk can be mounted here, so there are no faults of a full disk", flush=True)
    try:
        yield folder
    finally:
        if mounted:
            run_program(["umount", "--lazy", str(folder)], check=True)


def run_campaign(campaign: LocalCampaign | SlurmCampaign, undisturbed: Path, seeds_at_a_time: int) -> int:
    """Run ever more seeds until all faults have been; the number of runs, all of them as they are without faults."""
    seeds: list[int] = []
    while not campaign.over:
        batch = range(len(seeds), len(seeds) + seeds_at_a_time)
        seeds += batch
        run_program([*campaign.command(batch, undisturbed), "--workers", "6"], check=True)
        campaign.run(batch)
    campaign.restore_what_nobody_read()
    return compare(campaign.root, undisturbed)


def compare(root: Path, undisturbed: Path) -> int:
    """The number of runs; AssertionError if one differs from the undisturbed one."""
    runs = [directory.path for directory in RunStore(undisturbed).directories()]
    for path in runs:
        mine = RunDirectory(root / path.relative_to(undisturbed))
        assert mine.is_done(), f"{mine.path} is not done"
        assert_same_run(mine, RunDirectory(path))
    return len(runs)


def main() -> None:
    """Run campaigns and write how many faults of which kind there were."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100, help="of each executor")
    parser.add_argument("--executor", action="append", choices=["local", "slurm"], required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the faults; when they strike depends on the machine")
    parser.add_argument("--out", type=Path, help="a JSON file")
    options = parser.parse_args()
    manifest = collect_manifest(device="cpu", threads=1, parent=None)
    result = {
        key: manifest[key] for key in ("urlbench", "git", "packages", "python", "platform", "hardware", "command")
    }
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    profile = folder / "cluster.yaml"
    profile.write_text("resources: {slot: 10m, partition: main}\n")
    for executor in options.executor:
        began = time.monotonic()
        rng = random.Random(options.seed)
        with small_disk(folder / executor) as disk, contextlib.ExitStack() as stack:
            campaign: LocalCampaign | SlurmCampaign
            if executor == "local":
                campaign = LocalCampaign(disk, rng, options.faults)
            else:
                cluster = SlurmCluster()
                stack.callback(cluster.stop)
                cluster.start()
                campaign = SlurmCampaign(disk, rng, options.faults, cluster, profile)
            runs = run_campaign(campaign, folder / f"undisturbed {executor}", _SEEDS_AT_A_TIME)
        result[executor] = {
            "faults": sum(campaign.counts.values()),
            "by_kind": dict(sorted(campaign.counts.items())),
            "files_restored_after_a_refusal": campaign.refusals,
            "runs": runs,
            "equal_to_the_undisturbed": runs,
            "seconds": round(time.monotonic() - began),
        }
        print(json.dumps(result[executor], indent=2), flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
