"""CPU seconds of urlbench's statistics against rliable's, on the same scores in the same run.

    python benchmarks/statistics_engine.py --output benchmarks/results/statistics_engine.json

12 agents x 10 runs x 12 tasks. Ours does all the work named; rliable, whose time is proportional to agents, pairs and
repetitions, does the share of it named `rliable_share`, and its seconds are divided by that. The two take turns; tables
show medians of the repetitions, and of the ratios within each. Seconds are the process's own on all cores (CPU time),
so that other processes on the machine count little; OMP_NUM_THREADS=1 keeps both at one thread.

Both draw from the same random stream where the work says "rliable's stream", and intervals of the same work must agree
to 1e-12. Memory is the largest resident set of the process before rliable is imported.

(The module cannot be called statistics: the standard library has one, and scripts find their neighbours first.)
"""

import argparse
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from urlbench.results.score_kinds import KINDS, Scale
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.runs.manifest import collect_manifest
from urlbench.statistics.aggregates import AGGREGATES, aggregate, domain_scores, task_scores
from urlbench.statistics.efficiency import efficiency_curve
from urlbench.statistics.improvement import probabilities_of_improvement, probability_of_improvement
from urlbench.statistics.profiles import performance_profile
from urlbench.statistics.resampling import LegacyStream

N_AGENTS, N_RUNS, N_TASKS, N_DOMAINS = 12, 10, 12, 3
REPS, FEW_REPS = 50_000, 2_000
THRESHOLDS = np.linspace(0, 2, 101)
CURVE_POINTS = 10
SEED = 7


@dataclass(frozen=True)
class Case:
    """One piece of work.

    Attributes:
        work: in words.
        ours: does all of it and returns the intervals [..., 2] that rliable's part gives as well, or None.
        rliables: does its share and returns its intervals, or None.
        rliable_share: of the work.
    """

    work: str
    ours: Callable[[], Any]
    rliables: Callable[[], Any]
    rliable_share: float


@dataclass(frozen=True)
class Measurement:
    """CPU seconds of one piece of work.

    Attributes:
        ours: in each repetition.
        rliables: of its share, in each repetition.
        ratios: rliable's seconds for all of the work / ours.
    """

    work: str
    rliable_share: float
    ours: list[float]
    rliables: list[float]
    ratios: list[float] = field(init=False)

    def __post_init__(self) -> None:
        """Compare repetitions that were next to each other, so that a machine's moods cancel."""
        pairs = zip(self.ours, self.rliables, strict=True)
        object.__setattr__(self, "ratios", [theirs / self.rliable_share / ours for ours, theirs in pairs])


def made_up_agents() -> list[ScoreMatrix]:
    """Skewed scores around 1."""
    rng = np.random.default_rng(SEED)
    return [
        ScoreMatrix(
            agent=f"agent {number}",
            config_hash="00000000",
            suite="toy@1",
            preset="paper",
            tasks=tuple(f"task {task}" for task in range(N_TASKS)),
            domains=tuple(f"domain {task * N_DOMAINS // N_TASKS}" for task in range(N_TASKS)),
            seeds=tuple(range(N_RUNS)),
            pretrains=True,
            measured=rng.gamma(4.0, 0.25, (N_RUNS, N_TASKS)),
            scale=Scale(KINDS["normalised_return"], np.zeros(N_TASKS), np.ones(N_TASKS)),
        )
        for number in range(N_AGENTS)
    ]


def cases(agents: Sequence[ScoreMatrix]) -> list[Case]:
    """What is measured."""
    first, others = agents[0], agents[1:]
    few, part = FEW_REPS / REPS, FEW_REPS // 10
    return [
        Case(
            f"four aggregates of {N_AGENTS} agents, {REPS:,} repetitions",
            lambda: _nothing([aggregate(agent, reps=REPS) for agent in agents]),
            lambda: _nothing(_rliable_aggregates(agents[:3], FEW_REPS)),
            few * 3 / N_AGENTS,
        ),
        Case(
            f"the same, drawn from rliable's stream, {REPS:,} repetitions",
            lambda: _nothing(_legacy_aggregates(agents, REPS)),
            lambda: _nothing(_rliable_aggregates(agents[:3], FEW_REPS)),
            few * 3 / N_AGENTS,
        ),
        Case(
            f"the same, drawn from rliable's stream, {FEW_REPS:,} repetitions of 3 agents: the same intervals",
            lambda: _legacy_aggregates(agents[:3], FEW_REPS),
            lambda: _rliable_aggregates(agents[:3], FEW_REPS),
            1.0,
        ),
        Case(
            f"probability of improvement of {len(others)} pairs, {FEW_REPS:,} repetitions",
            lambda: _nothing([probability_of_improvement(first, other, reps=FEW_REPS) for other in others]),
            lambda: _nothing(_rliable_pair(first, others[0], part)),
            part / FEW_REPS / len(others),
        ),
        Case(
            f"one pair, drawn from rliable's stream, {part:,} repetitions: the same interval",
            lambda: _legacy_pair(first, others[0], part),
            lambda: _rliable_pair(first, others[0], part),
            1.0,
        ),
        Case(
            f"profiles of {N_AGENTS} agents at {len(THRESHOLDS)} thresholds, {FEW_REPS:,} repetitions",
            lambda: _nothing([performance_profile(agent, THRESHOLDS, reps=FEW_REPS) for agent in agents]),
            lambda: _nothing(_rliable_profile(first, FEW_REPS)),
            1 / N_AGENTS,
        ),
        Case(
            f"one profile, drawn from rliable's stream, {FEW_REPS:,} repetitions: the same intervals",
            lambda: _legacy_profile(first, FEW_REPS),
            lambda: _rliable_profile(first, FEW_REPS),
            1.0,
        ),
    ]


def _nothing(_: object) -> None:
    """Drop a result that has no counterpart."""


def _legacy_aggregates(agents: Sequence[ScoreMatrix], reps: int) -> list[list[tuple[float | None, float | None]]]:
    stream = LegacyStream(np.random.RandomState(SEED))
    found = [aggregate(agent, stream, reps) for agent in agents]
    return [[(estimates[name].low, estimates[name].high) for name in AGGREGATES] for estimates in found]


def _legacy_pair(x: ScoreMatrix, y: ScoreMatrix, reps: int) -> tuple[float | None, float | None]:
    estimate = probability_of_improvement(x, y, LegacyStream(np.random.RandomState(SEED)), reps)
    return estimate.low, estimate.high


def _legacy_profile(agent: ScoreMatrix, reps: int) -> Any:
    profile = performance_profile(agent, THRESHOLDS, LegacyStream(np.random.RandomState(SEED)), reps)
    return np.stack([profile.lows, profile.highs], axis=1)


def _rliable_aggregates(agents: Sequence[ScoreMatrix], reps: int) -> Any:
    from rliable import library, metrics

    def four(scores: Any) -> Any:
        oracles = (metrics.aggregate_iqm, metrics.aggregate_median, metrics.aggregate_mean)
        return np.array([*(oracle(scores) for oracle in oracles), metrics.aggregate_optimality_gap(scores)])

    np.random.seed(SEED)  # noqa: NPY002 - what rliable draws from
    found = library.get_interval_estimates({agent.agent: agent.scores for agent in agents}, four, reps=reps)[1]
    return np.stack([intervals.T for intervals in found.values()])


def _rliable_pair(x: ScoreMatrix, y: ScoreMatrix, reps: int) -> Any:
    from rliable import library, metrics

    def improvement(*scores: Any) -> Any:
        return np.array([metrics.probability_of_improvement(*scores)])

    np.random.seed(SEED)  # noqa: NPY002 - what rliable draws from
    return library.get_interval_estimates({"x,y": (x.scores, y.scores)}, improvement, reps=reps)[1]["x,y"][:, 0]


def _rliable_profile(agent: ScoreMatrix, reps: int) -> Any:
    from rliable import library

    np.random.seed(SEED)  # noqa: NPY002 - what rliable draws from
    return library.create_performance_profile({"x": agent.scores}, THRESHOLDS, reps=reps)[1]["x"].T


def measure(case: Case, repetitions: int) -> Measurement:
    """Take turns, after one turn to warm up, whose intervals are compared."""
    ours, theirs = case.ours(), case.rliables()
    if ours is not None:
        np.testing.assert_allclose(np.asarray(ours, dtype=np.float64), theirs, rtol=0, atol=1e-12)
    seconds: list[tuple[float, float]] = [(_seconds(case.ours), _seconds(case.rliables)) for _ in range(repetitions)]
    return Measurement(case.work, case.rliable_share, [one for one, _ in seconds], [other for _, other in seconds])


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def whole_report(agents: Sequence[ScoreMatrix]) -> dict[str, float]:
    """CPU seconds of each statistic of a report with all of them, 50,000 repetitions each."""
    work: dict[str, Callable[[ScoreMatrix], object]] = {
        "aggregates": aggregate,
        "tasks": task_scores,
        "domains": domain_scores,
        "profiles": lambda agent: performance_profile(agent, THRESHOLDS),
        f"curves of {CURVE_POINTS} points": lambda agent: efficiency_curve(dict.fromkeys(range(CURVE_POINTS), agent)),
    }
    seconds = {name: _seconds(lambda each=each: [each(agent) for agent in agents]) for name, each in work.items()}  # type: ignore[misc]
    n_pairs = len(list(combinations(agents, 2)))
    by_name = {agent.agent: agent for agent in agents}
    return seconds | {f"{n_pairs} pairs": _seconds(lambda: probabilities_of_improvement(by_name))}


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Seconds of the statistics against rliable's.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--repetitions", type=int, default=5, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    agents = made_up_agents()
    memory = {"start_mib": _peak_mib()}
    begin = time.perf_counter()
    report = whole_report(agents)
    wall = time.perf_counter() - begin
    memory["after_a_whole_report_mib"] = _peak_mib()
    measurements = [measure(case, given.repetitions) for case in cases(agents)]
    for one in measurements:
        all_of_it = [seconds / one.rliable_share for seconds in one.rliables]
        print(
            f"{one.work}: ours {statistics.median(one.ours):.3f} s, rliable {statistics.median(all_of_it):.2f} s "
            f"(from {one.rliable_share:.3%} of it), ratio {statistics.median(one.ratios):.0f} "
            f"({min(one.ratios):.0f} to {max(one.ratios):.0f})"
        )
    print("a whole report:", ", ".join(f"{name} {seconds:.2f} s" for name, seconds in report.items()))
    peak = memory["after_a_whole_report_mib"]
    print(f"in all {sum(report.values()):.1f} s of CPU, {wall:.1f} s of time, peak {peak:.0f} MiB")
    if given.output is not None:
        found = {
            "machine": collect_manifest(device="cpu", threads=1, parent=None),
            "libraries": {name: version(name) for name in ("numpy", "scipy", "rliable", "arch")},
            "repetitions": given.repetitions,
            "warm_up_repetitions": 1,
            "memory": memory,
            "load_average": os.getloadavg(),
            "whole_report_cpu_seconds": report,
            "whole_report_wall_seconds": wall,
            "measurements": [asdict(measurement) for measurement in measurements],
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
