"""Where a report's numbers come from: the commands, versions, git states, hardware, seeds and run ids.

Everything is taken from the runs and the installed packages, never from the clock, so the same runs give
the same bytes.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import urlbench
from urlbench.core.types import Suite
from urlbench.reports.report_baselines import Baseline, baseline_lines
from urlbench.results.cells import Results
from urlbench.results.commands import Commands, number_words, seeds_flag
from urlbench.results.run_records import RunRecord
from urlbench.results.score_kinds import kind_of, scale_of
from urlbench.results.selection import Selection
from urlbench.runs.plan import format_frames

_REPORT_PACKAGES = ("numpy", "scipy", "matplotlib")


@dataclass(frozen=True)
class Provenance:
    """What is said about the origin of a report.

    Attributes:
        short: one line for the foot of every table and figure.
        entries: (name, values) pairs; the full account.
    """

    short: str
    entries: tuple[tuple[str, tuple[str, ...]], ...]

    def lines(self) -> list[str]:
        """The full account, one line a value."""
        return [f"{name}: {value}" for name, values in self.entries for value in values]


def report_command(
    root: Path,
    suite: str,
    preset: str,
    selection: Selection,
    agents: Sequence[str] | None = None,
    plugins: Sequence[str] = (),
) -> list[str]:
    """The words of the command line that makes the same report, up to the options about its intervals.

    Args:
        root: the folder of all runs.
        suite: as it was asked for.
        preset: of the runs.
        selection: of the runs.
        agents: as they were asked for, baselines among them.
        plugins: as they were asked for.
    """
    words = ["urlbench", "report", "--suite", suite, "--preset", preset]
    if root != Path("runs"):
        words += ["--runs", str(root)]
    choices = (("--agents", agents), ("--domains", selection.domains), ("--tasks", selection.tasks))
    for flag, names in choices:
        if names:
            words += [flag, ",".join(names)]
    if selection.seeds:
        words += ["--seeds", seeds_flag(selection.seeds)]
    if selection.snapshot is not None:
        words += ["--snapshot", format_frames(selection.snapshot)]
    if selection.goal_sets:
        words += ["--goal-sets", seeds_flag(selection.goal_sets)]
    return words + [word for plugin in plugins for word in ("--plugin", plugin)]


def baselines_provenance(suite: Suite, preset: str, baselines: Sequence[Baseline], command: str) -> Provenance:
    """The origin of a report without runs."""
    sources = ", ".join(dict.fromkeys(baseline.label.partition("/")[0] for baseline in baselines))
    short = f"urlbench {urlbench.__version__} · {suite.full_name}, preset {preset} · baselines {sources} · {command}"
    entries = [
        ("Report", [command]),
        ("Made with", [made_with()]),
        ("Suite", [f"{suite.full_name}, preset {preset}"]),
        *_score(suite),
        ("Baselines", baseline_lines(baselines)),
    ]
    return Provenance(short, tuple((name, tuple(values)) for name, values in entries))


def provenance(results: Results, command: str, baselines: Sequence[Baseline] = ()) -> Provenance:
    """The origin of the runs that count in `results`, and of the baselines beside them."""
    runs = results.usable_runs()
    # Without overrides: looking them up imports torch, and a report is made without it.
    commands = Commands(results, overrides=False)
    versions = package_versions(runs)
    git = _distinct(git_words(run.manifest.get("git")) for run in runs)
    ids = sorted(run.id for run in runs)
    fingerprint = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:8]
    seeds = seeds_flag(run.spec.seed for run in runs)
    environment = ", ".join(versions_of(run.spec.versions for run in runs))
    short = (
        f"urlbench {urlbench.__version__} · {results.suite.full_name}, preset {results.preset} · "
        f"{len(runs)} runs [{fingerprint}], seeds {seeds} · {environment} · git {', '.join(git)} · {command}"
    )
    entries = [
        ("Report", [command]),
        ("Made with", [made_with()]),
        (
            "To make the runs",
            [
                f"{commands.run(agent, results.tasks, results.seeds)}  # configuration {agent.config_hash}"
                for agent in results.agents
                if agent.config_hash is not None
            ],
        ),
        ("Suite", [f"{results.suite.full_name}, preset {results.preset}"]),
        *_measure(results),
        ("Agents", [_agent_line(results, agent.label) for agent in results.agents]),
        *([("Baselines", baseline_lines(baselines))] if baselines else []),
        ("Versions of the runs", [", ".join(versions)]),
        ("Git state of the runs", git),
        ("Hardware of the runs", _distinct(hardware_words(run.manifest.get("hardware")) for run in runs)),
        ("Runs ended", _dates(runs)),
        ("Run ids", [f"{len(ids)} runs, fingerprint {fingerprint}", *_wrapped(ids)]),
    ]
    return Provenance(short, tuple((name, tuple(values)) for name, values in entries))


def _measure(results: Results) -> list[tuple[str, list[str]]]:
    """What scores are made of, and what was pretrained on."""
    suite, protocol = results.suite, results.suite.protocols[results.preset]
    entries = _score(suite)
    if protocol.search is not None:
        entries.append(("Search", [protocol.search.words(protocol.eval_episodes)]))
    if suite.goal_sets is not None:
        which = "the one with the number of the seed" if results.goal_sets is None else number_words(results.goal_sets)
        ceilings = ", ".join(f"set {number}: {count}" for number, count in sorted(suite.goal_sets.reachable.items()))
        entries.append(("Goal sets", [which, f"reachable of {suite.goal_sets.goals}: {ceilings}"]))
        entries.append(("Reachable goals measured with", [suite.goal_sets.source]))
    if transfers := [f"{task.name} {task.transfer.words}" for task in suite.tasks if task.transfer is not None]:
        entries.append(("Transfer", transfers))
    if suite.pretrained_in is not None:
        entries.append(("Pretrained in", [suite.pretrained_in]))
    if suite.collection is not None:
        used = {run.spec.parent for run in results.usable_runs()}
        data = {
            f"{run.spec.domain}, collected by {suite.collection}: first {protocol.data_transitions} transitions, "
            f"fingerprint {run.spec.data}"
            for run in results.pretrainings.values()
            if run.id in used
        }
        entries.append(("Data", _distinct(data)))
    return entries


def _score(suite: Suite) -> list[tuple[str, list[str]]]:
    """What scores are made of; of a search its own entry says that."""
    one, formula = suite.normaliser, scale_of(suite, [task.name for task in suite.tasks]).formula
    if one is None:
        return [("Score", [formula])] if kind_of(suite).resampled else []
    floors = [formula] if one.floors else []
    return [("Normaliser", [f"{one.name} version {one.version} ({one.source})", *floors])]


def versions_of(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    """`name version` for every package of the tables, all versions of a package in one entry."""
    found: dict[str, set[str]] = defaultdict(set)
    for table in tables:
        for name, version in table.items():
            found[name].add(str(version))
    return [f"{name} {' and '.join(sorted(versions))}" for name, versions in sorted(found.items())]


def package_versions(runs: Sequence[RunRecord]) -> list[str]:
    """The versions of all packages that the runs were made with, of urlbench and of Python."""
    tables: list[Mapping[str, Any]] = []
    for run in runs:
        recorded = run.manifest.get("packages", run.manifest.get("versions"))
        others = {name: run.manifest[name] for name in ("urlbench", "python") if name in run.manifest}
        tables.append({**(recorded if isinstance(recorded, Mapping) else {}), **run.spec.versions, **others})
    return versions_of(tables)


def made_with() -> str:
    """The versions of everything that numbers and figures of a report depend on."""
    packages = ", ".join(f"{package} {metadata.version(package)}" for package in _REPORT_PACKAGES)
    return f"urlbench {urlbench.__version__}, {packages}"


def _agent_line(results: Results, label: str) -> str:
    agent = next(agent for agent in results.agents if agent.label == label)
    runs = [run for cell in results.expected() if cell.agent == label and (run := results.run(*cell))]
    if agent.config_hash is None:
        return f"{label}: no runs"
    unit = results.suite.protocols[results.preset].pretrain_unit
    start = f"from the snapshot at {results.snapshot} {unit}" if agent.pretrains else "without pretraining"
    return (
        f"{label}: configuration {agent.config_hash}, {start}, {len(runs)} runs, "
        f"seeds {seeds_flag(run.spec.seed for run in runs) or 'none'}"
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return sorted(set(texts)) or ["unknown"]


def git_words(state: Any) -> str:
    """The commit of a run's code in few words, from its manifest."""
    if not isinstance(state, Mapping):
        return str(state) if state else "unknown"
    commit = str(state.get("commit") or "unknown")
    return commit[:12] + (" with uncommitted changes" if state.get("dirty") else "")


def hardware_words(hardware: Any) -> str:
    """The machine of a run on one line, from its manifest."""
    if not isinstance(hardware, Mapping):
        return str(hardware) if hardware else "unknown"
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(hardware.items()) if value is not None)


def _dates(runs: Sequence[RunRecord]) -> list[str]:
    days = sorted({run.finished[:10] for run in runs})
    return [" to ".join(dict.fromkeys((days[0], days[-1])))] if days else ["unknown"]


def _wrapped(ids: Sequence[str], per_line: int = 6) -> list[str]:
    return [" ".join(ids[start : start + per_line]) for start in range(0, len(ids), per_line)]
