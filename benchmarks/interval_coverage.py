"""How often 95 % intervals contain the truth, for made-up runs that share the luck of their pretraining.

    python benchmarks/interval_coverage.py --output benchmarks/results/interval_coverage.json

Scores are normal: 0.5, plus the luck of the pretraining of a (domain, seed), which four tasks share, plus noise of each
run. The truth of IQM and mean is 0.5. Each experiment is one agent with runs of its own.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np

from urlbench.results.score_kinds import KINDS, Scale
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.runs.manifest import collect_manifest
from urlbench.statistics.aggregates import aggregate
from urlbench.statistics.resampling import CiMethod

METRICS = ("IQM", "Mean")
N_TASKS, TRUTH, NOISE = 4, 0.5, 0.1


@dataclass(frozen=True)
class Coverage:
    """What came of the experiments of one kind.

    Attributes:
        luck: standard deviation that the tasks of a domain share; each run's own is 0.1.
        covered: fraction of the intervals that contain the truth.
        standard_error: of that fraction.
        width: of the intervals, on average.
    """

    n_seeds: int
    n_domains: int
    luck: float
    ci: CiMethod
    metric: str
    covered: float
    standard_error: float
    width: float


def simulate(n_seeds: int, n_domains: int, luck: float, experiments: int, reps: int) -> Iterator[Coverage]:
    """The coverage of both intervals for one kind of experiment."""
    rng = np.random.default_rng([n_seeds, n_domains, round(100 * luck)])
    ends: dict[tuple[CiMethod, str], list[tuple[float, float]]] = {
        key: [] for key in product(get_args(CiMethod), METRICS)
    }
    for number in range(experiments):
        matrix = _experiment(rng, number, n_seeds, n_domains, luck)
        for ci in get_args(CiMethod):
            for metric, estimate in aggregate(matrix, ci, reps, METRICS).items():
                assert estimate.low is not None
                assert estimate.high is not None
                ends[ci, metric].append((estimate.low, estimate.high))
    for (ci, metric), intervals in ends.items():
        lows, highs = np.array(intervals).T
        covered = float(np.mean((lows <= TRUTH) & (highs >= TRUTH)))
        error = float(np.sqrt(covered * (1 - covered) / experiments))
        yield Coverage(n_seeds, n_domains, luck, ci, metric, covered, error, float(np.mean(highs - lows)))


def _experiment(rng: np.random.Generator, number: int, n_seeds: int, n_domains: int, luck: float) -> ScoreMatrix:
    shared = np.repeat(rng.normal(0, luck, (n_seeds, n_domains)), N_TASKS, axis=1)
    return ScoreMatrix(
        agent=f"experiment {number}",
        config_hash="00000000",
        suite="toy@1",
        preset="paper",
        tasks=tuple(f"task {task}" for task in range(shared.shape[1])),
        domains=tuple(f"domain {task // N_TASKS}" for task in range(shared.shape[1])),
        seeds=tuple(range(n_seeds)),
        pretrains=True,
        measured=TRUTH + shared + rng.normal(0, NOISE, shared.shape),
        scale=Scale(KINDS["normalised_return"], np.zeros(shared.shape[1]), np.ones(shared.shape[1])),
    )


def main() -> None:
    """Simulate, print a table, write the numbers with what they were made with."""
    parser = argparse.ArgumentParser(description="How often intervals contain the truth.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--experiments", type=int, default=1000, help="of each kind (%(default)s)")
    parser.add_argument("--reps", type=int, default=400, help="of each bootstrap (%(default)s)")
    given = parser.parse_args()
    found = []
    for luck, n_domains, n_seeds in product((0.0, 0.2), (1, 3), (3, 5, 10, 30)):
        for one in simulate(n_seeds, n_domains, luck, given.experiments, given.reps):
            found.append(one)
            print(
                f"luck {luck:.1f}, {n_domains} domains, {n_seeds:2d} seeds, {one.ci:10s} {one.metric:4s}: "
                f"{one.covered:.1%} ± {one.standard_error:.1%}, width {one.width:.3f}"
            )
    if given.output is not None:
        content = {
            "machine": collect_manifest(device="cpu", threads=1, parent=None),
            "experiments": given.experiments,
            "reps": given.reps,
            "coverage": [asdict(one) for one in found],
        }
        given.output.parent.mkdir(parents=True, exist_ok=True)
        given.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
