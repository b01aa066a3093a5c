"""How often intervals contain the truth, where the runs of a domain share their pretraining and where they do not.

Bounds hold 99.8 % of all such simulations, were the coverage the one that is named.
"""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom
from synthetic_scores import four_each, lucky_scores, matrix

from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.aggregates import aggregate
from urlbench.statistics.differences import paired_difference
from urlbench.statistics.estimates import Estimate
from urlbench.statistics.resampling import CiMethod

N_EXPERIMENTS, REPS, TRUTH = 400, 400, 0.5


def hits(ci: CiMethod, estimate_of: Callable[[list[ScoreMatrix], CiMethod], Estimate], truth: float, **kwargs) -> int:
    """In how many experiments the interval contains the truth."""
    rng, found = np.random.default_rng(0), 0
    for number in range(N_EXPERIMENTS):
        agents = [
            matrix(lucky_scores(rng, 20, 2, mean=TRUTH, **kwargs), agent=f"{name} {number}", domains=four_each(2))
            for name in ("x", "y")
        ]
        estimate = estimate_of(agents, ci)
        found += estimate.low <= truth <= estimate.high
    return found


def bounds(coverage: float) -> tuple[float, float]:
    return binom.ppf(0.001, N_EXPERIMENTS, coverage), binom.ppf(0.999, N_EXPERIMENTS, coverage)


def iqm(agents: list[ScoreMatrix], ci: CiMethod) -> Estimate:
    return aggregate(agents[0], ci, REPS, ["IQM"])["IQM"]


def mean(agents: list[ScoreMatrix], ci: CiMethod) -> Estimate:
    return aggregate(agents[0], ci, REPS, ["Mean"])["Mean"]


def difference(agents: list[ScoreMatrix], ci: CiMethod) -> Estimate:
    return paired_difference(*agents, "Mean", ci, REPS).estimate


@pytest.mark.parametrize(("estimate_of", "truth"), [(iqm, TRUTH), (mean, TRUTH), (difference, 0.0)])
def test_where_pretrainings_are_lucky_only_the_cluster_interval_covers_the_truth(estimate_of, truth):
    low, high = bounds(0.95)
    assert low <= hits("cluster", estimate_of, truth) <= high
    # The stratified interval takes the mean of four tasks to vary by (0.2^2 + 0.1^2) / 4, and it varies by
    # 0.2^2 + 0.1^2 / 4: with 54 % of the width, the normal distribution leaves 71 % inside.
    stratified = hits("stratified", estimate_of, truth)
    assert stratified < bounds(0.80)[0]
    assert stratified > bounds(0.60)[1]


@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_where_runs_share_nothing_both_intervals_cover_the_truth(ci):
    low, high = bounds(0.95)
    assert low <= hits(ci, mean, TRUTH, luck=0.0) <= high
