"""Runs every agent on every suite that it takes, with the smallest budgets, and says what came of it.

One task of each suite and one seed: pretraining, snapshot, and the fine-tuning or search that starts from it. Offline
suites pretrain on data of random actions, collected here. The scores mean nothing. The same command runs what is not
done yet, what has failed included.

Usage: python benchmarks/every_agent.py FOLDER [--agents icm,dreamer] [--suites urlb-states] [--workers 2]
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import describe_machine, markdown_table

from urlbench import __version__
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.identity import config_hash
from urlbench.core.interfaces import AgentContext, AgentSpec
from urlbench.core.jobs import Job
from urlbench.core.types import Suite
from urlbench.reports.provenance import git_words, hardware_words
from urlbench.results.validation import validate
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, read_jsonl
from urlbench.training.checkpoint import snapshot_digest, snapshot_path

PRESET = "smoke"


@dataclass(frozen=True)
class Outcome:
    """What came of one agent on one suite.

    Attributes:
        seconds: that its jobs have run, see `seconds`.
        faults: what is wrong; empty if everything is as it should be.
    """

    agent: str
    suite: str
    seconds: float
    faults: tuple[str, ...]

    @property
    def words(self) -> str:
        """The cell of the table."""
        return "FAILED" if self.faults else f"ok {self.seconds:.0f} s"


def takers(suite: Suite, agents: Sequence[str]) -> list[str]:
    """The agents that take the observations of a suite, and its data if it has any."""
    return [name for name in agents if takes(registry.load_agent(name), suite)]


def takes(agent: AgentSpec, suite: Suite) -> bool:
    """Whether an agent runs on a suite; those whose skills must act to be learned refuse data."""
    if suite.observation not in agent.observations:
        return False
    if suite.collection is None or not agent.pretrains:
        return True
    context = AgentContext(suite.observation, (1,), action_dim=1, action_repeat=1, seed=0, collects=False)
    try:
        agent.build(context, resolve_config(agent, PRESET))
    except UserError:
        return False
    return True


def urlbench(*arguments: str) -> None:
    """Run a command and show what it prints; its failures are found in its files afterwards."""
    print(f"urlbench {' '.join(arguments)}", flush=True)
    subprocess.run([sys.executable, "-m", "urlbench", *arguments], check=False)


def run(suite: Suite, agents: Sequence[str], folder: Path, workers: int | None) -> None:
    """Run what is left of a suite, after collecting the data that it pretrains on."""
    task = suite.tasks[0]
    data = ["--data", str(folder / "data")]
    if suite.collection is not None:
        transitions = str(suite.protocols[PRESET].data_transitions)
        chosen = ["--domain", task.domain, "--collection", suite.collection, "--transitions", transitions]
        urlbench("data", "collect", "--agent", "random", *chosen, *data)
    chosen = ["--suite", suite.name, "--agent", ",".join(agents), "--tasks", task.name, "--seeds", "1"]
    options = [] if workers is None else ["--workers", str(workers)]
    places = ["--runs", str(folder / "runs"), *data]
    urlbench("run", *chosen, "--preset", PRESET, "--rerun", "failed", *places, *options)


def outcomes(suite: Suite, agents: Sequence[str], folder: Path) -> list[Outcome]:
    """What the files say of each agent on a suite: of its jobs, and what `urlbench validate` finds."""
    runs, data, task = folder / "runs", str(folder / "data"), suite.tasks[0].name
    jobs: dict[str, tuple[Job, ...]] = {}
    faults: dict[str, list[str]] = {}
    for name in agents:
        request = PlanRequest(suite=suite.name, agents=(name,), tasks=(task,), seeds=(0,), preset=PRESET, data=data)
        try:
            jobs[name] = make_plan(request).jobs
            faults[name] = [fault for job in jobs[name] for fault in job_faults(job, runs)]
        except UserError as error:
            jobs[name], faults[name] = (), [str(error)]
    labels = {name: f"{name}-{config_hash(jobs[name][-1].spec.agent_config)}" for name in agents if not faults[name]}
    if labels:
        for problem in validate(runs, suite.name, PRESET, tuple(labels.values()), tasks=[task], seeds=[0]):
            # What belongs to nobody is wrong for everybody.
            for name, label in labels.items():
                if problem.agent in (None, name, label):
                    faults[name].append(problem.message)
    return [Outcome(name, suite.name, seconds(jobs[name], runs), tuple(faults[name])) for name in agents]


def job_faults(job: Job, runs: Path) -> list[str]:
    """What keeps a job from being done, or from having started from its parent's snapshot."""
    directory = RunDirectory(runs / job.path)
    try:
        if not directory.is_done():
            status = directory.read_status()
            said = "was not prepared" if status is None else f"is {status.state}: {status.message or 'no reason given'}"
            return [f"{job.label} {said} (log: {directory.log_file})"]
        if job.parent_path is None:
            return []
        path = snapshot_path(runs / job.parent_path, job.spec.snapshot)
        parent = {"id": job.spec.parent, "path": job.parent_path, "snapshot_sha256": snapshot_digest(path)}
        started_from = json.loads(directory.manifest_file.read_text(encoding="utf-8"))["parent"]
    except (OSError, ValueError, KeyError, UserError) as error:
        return [f"{job.label}: {error}"]
    return [] if started_from == parent else [f"{job.label} started from {started_from} and not from {parent}"]


def seconds(jobs: Sequence[Job], runs: Path) -> float:
    """Wall-clock time of all attempts that ended in an orderly way, without the starts of their processes."""
    total = 0.0
    for job in jobs:
        rows = read_jsonl(RunDirectory(runs / job.path).attempts_file)
        started = {row["attempt"]: row["started"] for row in rows if "started" in row}
        total += sum(row["ended"] - started[row["attempt"]] for row in rows if row.get("ended") is not None)
    return total


def table(found: Mapping[tuple[str, str], Outcome], agents: Sequence[str], suites: Sequence[str]) -> str:
    """Agents by suites, the suites by number; `-` where an agent does not take a suite's observations or data."""
    rows = [
        [agent, *(found[agent, suite].words if (agent, suite) in found else "-" for suite in suites)]
        for agent in agents
    ]
    numbers = [str(number) for number in range(1, len(suites) + 1)]
    return "\n".join(
        [
            *(f"{number}: {suite}" for number, suite in zip(numbers, suites, strict=True)),
            "",
            markdown_table(["agent", *numbers], rows),
        ]
    )


def chosen(kind: str, text: str | None) -> list[str]:
    """The names in `text`, or all there are; UserError for unknown ones."""
    known = registry.names(kind)
    for name in text.split(",") if text else ():
        if name not in known:
            raise unknown_name(kind, name, known)
    return text.split(",") if text else list(known)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run everything, print the table and what failed; 1 if anything did."""
    parser = argparse.ArgumentParser(description="Run every agent on every suite with the smallest budgets.")
    parser.add_argument("folder", type=Path, help="where runs and data go; given again, it is continued")
    parser.add_argument("--agents", help="comma-separated; default: all")
    parser.add_argument("--suites", help="comma-separated; default: all")
    parser.add_argument("--workers", type=int, help="jobs at the same time; default: as `urlbench run`")
    options = parser.parse_args(arguments)
    try:
        agents, names = chosen("agent", options.agents), chosen("suite", options.suites)
    except UserError as error:
        parser.error(str(error))
    machine, folder = describe_machine(threads=1), options.folder.resolve()
    found: dict[tuple[str, str], Outcome] = {}
    for suite in map(registry.load_suite, names):
        if runners := takers(suite, agents):
            run(suite, runners, folder, options.workers)
            found |= {(one.agent, one.suite): one for one in outcomes(suite, runners, folder)}
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    print(f"\nurlbench {__version__}, git {git_words(machine['git'])}, preset {PRESET}, Python {machine['python']}")
    print(f"{packages}\n{hardware_words(machine['hardware'])}\n")
    print(table(found, agents, names))
    failed = [one for one in found.values() if one.faults]
    print(f"\n{len(found) - len(failed)} of {len(found)} are ok")
    for one in failed:
        print(f"\n{one.agent} on {one.suite}:", *(f"    {fault}" for fault in one.faults), sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
