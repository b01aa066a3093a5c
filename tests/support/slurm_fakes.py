"""A Slurm that only remembers: sbatch, squeue, sacct, scancel, scontrol and srun as scripts, alone on PATH."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from registration import forgotten
from toy_runs import PLUGIN

from urlbench.core.jobs import Job, Plan
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory
from urlbench.slurm import run as run_command
from urlbench.slurm.profile import Profile, Resources
from urlbench.slurm.run import run_on_slurm

FIRST_ID = 101
CODE, DIGEST = Path("/code of a test"), "0123456789abcdef" * 4

# The first lines of every script: where its files are, what it was called with, and what it was told to answer.
_HEAD = """#!/bin/sh
PATH=/usr/bin:/bin
program=$(basename "$0")
cd {folder} || exit 1
echo "$program $*" >> calls
env > "environment of $program"
if [ -e "$program.refusal" ]; then cat "$program.refusal" >&2; exit 1; fi
"""
_SCRIPTS = {
    "sbatch": """
id=$(($(ls submitted | wc -l) + {first_id}))
if [ -e accepts ] && [ $id -ge $(cat accepts) ]; then echo 'sbatch: error: Job limit reached' >&2; exit 1; fi
if [ -e before ]; then . ./before; fi
cp "$1" submitted/$id.sh
name=$(sed -n 's/^#SBATCH --job-name=//p' "$1")
reason=Priority
if grep -q '^#SBATCH --dependency=' "$1"; then reason=Dependency; fi
array=$(sed -n 's/^#SBATCH --array=\\([0-9,-]*\\).*/\\1/p' "$1")
for index in $(for part in $(echo "${array:-N/A}" | tr , ' '); do
    if [ "$array" ]; then seq "${part%-*}" "${part#*-}"; else echo N/A; fi
done); do
    echo "$id|$index|PENDING|$reason|$name" >> queue
done
if [ -e after ]; then . ./after; fi
echo "Submitted batch job $id"
""",
    "squeue": "cat queue\n",
    "sacct": "cat accounting\n",
    "scancel": "",
    "scontrol": "cat config\n",
    "srun": "",
}


class FakeSlurm:
    """The scripts and what they wrote.

    Attributes:
        root: a runs folder with a space in its name.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self._folder = folder / "my runs", folder / "fake slurm"
        (self._folder / "submitted").mkdir(parents=True)
        (self._folder / "bin").mkdir()
        for name in ("queue", "calls"):
            self.write(name, "")
        self.write("config", "Configuration data as of today\nMaxArraySize            = 1001\nMaxJobCount = 10000\n")
        for program, body in _SCRIPTS.items():
            self.script(program, body)
        monkeypatch.setenv("PATH", str(self._folder / "bin"))
        # The copy of the package takes a second; test_code_snapshot.py has it.
        monkeypatch.setattr(run_command, "take_snapshot", lambda folder: (CODE, DIGEST))

    def write(self, name: str, text: str) -> None:
        """Say what a script answers: `queue`, `config`, `accounting`, or `PROGRAM.refusal` to fail with these words.

        `before` and `after` are shell lines of sbatch, before and after the array is in the queue.
        """
        (self._folder / name).write_text(text)

    def script(self, program: str, body: str) -> None:
        """Let a program be these shell lines."""
        script = self._folder / "bin" / program
        head = _HEAD.replace("{folder}", shlex.quote(str(self._folder)))
        script.write_text(head + body.replace("{first_id}", str(FIRST_ID)))
        script.chmod(0o755)

    def read(self, name: str) -> str:
        """What a script has written."""
        return (self._folder / name).read_text()

    def forget(self, name: str) -> None:
        """Remove what `write` wrote."""
        (self._folder / name).unlink()

    def without(self, program: str) -> None:
        """Let a program be missing."""
        (self._folder / "bin" / program).unlink()

    def accept(self, arrays: int) -> None:
        """Let sbatch refuse after so many arrays in all."""
        self.write("accepts", str(FIRST_ID + arrays))

    def calls(self, program: str) -> list[str]:
        """The arguments of each call of a program since the last question about it."""
        lines = (self._folder / "calls").read_text().splitlines()
        mine = [line for line in lines if line.partition(" ")[0] == program]
        self.write("calls", "".join(f"{line}\n" for line in lines if line not in mine))
        return [line.partition(" ")[2] for line in mine]

    def scripts(self) -> list[str]:
        """Everything that was submitted, in its order."""
        return [file.read_text() for file in sorted((self._folder / "submitted").iterdir())]

    def queue(self) -> list[list[str]]:
        """The queue's rows: id, index, state, reason, name."""
        return [line.split("|") for line in (self._folder / "queue").read_text().splitlines()]

    def change(self, job_id: str, state: str | None, reason: str = "None") -> None:
        """Give an element (`101_2`), or all of a job, another state; None takes it out of the queue."""
        rows = []
        for row in self.queue():
            if job_id not in (row[0], f"{row[0]}_{row[1]}"):
                rows.append(row)
            elif state is not None:
                rows.append([*row[:2], state, reason, row[4]])
        self.write("queue", "".join("|".join(row) + "\n" for row in rows))

    def run(self, plan: Plan, *, retry_failed: bool = False, **changes: Any) -> int:
        """`urlbench run --executor slurm`; the exit code."""
        return run_on_slurm(plan, self.root, profile(**changes), retry_failed=retry_failed)


@pytest.fixture
def fake_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """For files of tests that import it."""
    return FakeSlurm(tmp_path, monkeypatch)


def profile(**changes: Any) -> Profile:
    """A profile whose elements run for an hour; `changes` are of the profile."""
    resources = Resources(slot_minutes=60)
    phases = {"resources": resources, "pretrain": resources, "finetune": resources, "search": resources}
    return Profile(**{**phases, "device": "cpu", **changes})


def toy_plan(**changes: Any) -> Plan:
    """Two seeds of a pretraining and two fine-tunings, unless `changes` ask for others."""
    choices = {"domains": ("ball",), "seeds": (0, 1), "preset": "smoke", "plugins": (str(PLUGIN),), **changes}
    with forgotten():  # files of tests make plans when they are imported, too
        return make_plan(PlanRequest(**{"suite": "toy-states", "agents": ("toy",), **choices}))


def put(root: Path, job: Job, state: str, **changes: Any) -> RunDirectory:
    """Make a run directory look like a run in that state."""
    directory = RunDirectory(root / job.path)
    directory.prepare(job)
    status = directory.read_status()
    assert status is not None
    directory.write_status(status.model_copy(update={"state": state, **changes}))
    if state == "done":
        directory.eval_file.write_text("")
        directory.finish(status.budget)
    return directory
