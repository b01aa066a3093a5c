"""Probability of improvement, differences, and how many seeds they need."""

import dataclasses

import numpy as np
import pytest
from rliable import library, metrics
from scipy.stats import binom
from synthetic_scores import lucky_scores, matrix, random_scores, summary

from urlbench.core.errors import UserError
from urlbench.statistics.aggregates import AGGREGATES, aggregate
from urlbench.statistics.differences import MOST_SEEDS, paired_difference, seeds_needed
from urlbench.statistics.improvement import probabilities_of_improvement, probability_of_improvement
from urlbench.statistics.resampling import LegacyStream, draws
from urlbench.statistics.runs import runs_of


def improvement(x, y):
    return np.array([metrics.probability_of_improvement(x, y)])


def test_u_statistics_with_ties_by_hand():
    x, y = matrix([[0.2, 0.7], [0.5, 0.7], [0.5, 0.7]]), matrix([[0.5, 0.1], [0.1, 0.7]], agent="cic")
    # First task: 0.2 beats 0.1; each 0.5 ties 0.5 and beats 0.1: 1 + 1.5 + 1.5 of 6 pairs. Second: 3 wins, 3 ties of 6.
    assert probability_of_improvement(x, y, reps=20).value == pytest.approx((4 / 6 + 4.5 / 6) / 2)
    assert probability_of_improvement(y, x, reps=20).value == pytest.approx((2 / 6 + 1.5 / 6) / 2)


@pytest.mark.parametrize("decimals", [1, 9])
@pytest.mark.parametrize("sizes", [(6, 6), (5, 7)])
def test_given_rliables_random_state_the_interval_is_rliables(decimals, sizes):
    x, y = (np.round(random_scores(size, 3, seed=size + place), decimals) for place, size in enumerate(sizes))
    np.random.seed(4)  # noqa: NPY002 - what rliable draws from
    points, intervals = library.get_interval_estimates({"x,y": (x, y)}, improvement, reps=60)
    legacy = LegacyStream(np.random.RandomState(4))
    estimate = probability_of_improvement(matrix(x), matrix(y, agent="cic"), legacy, reps=60)
    assert estimate.value == pytest.approx(points["x,y"][0], abs=1e-12)
    np.testing.assert_allclose([estimate.low, estimate.high], intervals["x,y"][:, 0], rtol=0, atol=1e-12)


def test_the_interval_equals_rliables_within_monte_carlo_error():
    x, y = random_scores(8, 3, seed=1), random_scores(8, 3, seed=2)
    _, intervals = library.get_interval_estimates({"x,y": (x, y)}, improvement, reps=400)
    estimate = probability_of_improvement(matrix(x), matrix(y, agent="cic"), reps=20_000)
    low, high = intervals["x,y"][:, 0]
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.15 * (high - low))


@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_counting_runs_gives_the_improvement_of_the_resamples_themselves(ci):
    x = matrix(np.round(random_scores(5, 4, seed=1), 1), domains=["a", "a", "b", "b"])
    y = matrix(np.round(random_scores(7, 4, seed=2), 1), agent="cic", domains=["a", "a", "b", "b"])
    pair = [runs_of(x), runs_of(y)]
    drawn = [
        np.stack([column[index] for column, index in zip(runs.columns, indices, strict=True)], axis=2)
        for runs, indices in zip(pair, draws(pair, ci)(40), strict=True)
    ]
    expected = [improvement(*scores)[0] for scores in zip(*drawn, strict=True)]
    estimate = probability_of_improvement(x, y, ci, reps=40)
    np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(expected, [2.5, 97.5]), rtol=1e-12)


def test_all_pairs_are_the_pairs_one_by_one_and_mirrored():
    agents = {name: matrix(random_scores(seed=number), agent=name) for number, name in enumerate(("a", "b", "c"))}
    found = probabilities_of_improvement(agents, reps=200)
    assert list(found) == [("a", "b"), ("a", "c"), ("b", "a"), ("b", "c"), ("c", "a"), ("c", "b")]
    for (x, y), estimate in found.items():
        alone = probability_of_improvement(agents[x], agents[y], reps=200)
        assert (estimate.value, estimate.n_runs) == (pytest.approx(alone.value), alone.n_runs)
        assert (estimate.low, estimate.high) == pytest.approx((alone.low, alone.high), abs=1e-12)
    assert probabilities_of_improvement({"a": agents["a"]}) == {}


def test_agents_that_cannot_be_resampled_leave_the_other_pairs_alone():
    agents = {
        "apt": matrix(random_scores(seed=1)),
        "one": matrix(random_scores(1, 4), agent="one"),
        "none": matrix(np.full((2, 4), np.nan), agent="none"),
        "cic": matrix(random_scores(seed=2), agent="cic"),
    }
    found = probabilities_of_improvement(agents, reps=100)
    assert found["apt", "cic"].low == probability_of_improvement(agents["apt"], agents["cic"], reps=100).low
    assert found["one", "apt"].value is not None
    assert (found["one", "apt"].low, found["one", "apt"].note) == (None, "one: one run per task: no interval")
    assert found["none", "apt"].value is None


def test_different_tasks_are_refused():
    x, y = matrix(random_scores(4, 2)), matrix(random_scores(4, 3), agent="cic")
    for compare in (probability_of_improvement, paired_difference, seeds_needed):
        with pytest.raises(UserError, match=r"apt and cic cannot be compared: .*select the tasks that both have"):
            compare(x, y)


@pytest.mark.parametrize("metric", AGGREGATES)
@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_differences_are_of_the_aggregates_and_turn_around_with_the_agents(metric, ci):
    x, y = matrix(random_scores(seed=1)), matrix(random_scores(seed=2), agent="cic")
    there, back = paired_difference(x, y, metric, ci, reps=200), paired_difference(y, x, metric, ci, reps=200)
    expected = aggregate(x, reps=5)[metric].value - aggregate(y, reps=5)[metric].value
    assert there.estimate.value == pytest.approx(expected)
    assert (there.estimate.low, there.estimate.high) == pytest.approx((-back.estimate.high, -back.estimate.low))
    assert there.paired
    assert there.estimate.n_runs == 64


def test_what_seeds_share_cancels_in_a_paired_difference():
    rng = np.random.default_rng(0)
    shared = rng.normal(0.5, 0.2, (8, 4))
    x, y = matrix(shared + rng.normal(0.05, 0.01, (8, 4))), matrix(shared, agent="cic")
    paired = paired_difference(x, y, "Mean", reps=2000)
    assert paired.resolved
    assert paired.estimate.high - paired.estimate.low < 0.01
    other_seeds = dataclasses.replace(y, seeds=tuple(range(8, 16)))
    apart = paired_difference(x, other_seeds, "Mean", reps=2000)
    assert (apart.paired, apart.resolved) == (False, False)
    assert apart.estimate.value == pytest.approx(paired.estimate.value)


def test_unequal_seeds_are_drawn_apart_and_none_is_left_out():
    x, y = matrix(random_scores(8, 2, seed=1)), matrix(random_scores(5, 2, seed=2), agent="cic")
    found = paired_difference(x, y, "Mean", reps=200)
    assert not found.paired
    assert found.estimate.n_runs == 26
    assert found.estimate.value == pytest.approx(x.scores.mean() - y.scores.mean())


@pytest.mark.parametrize("of_both", [True, False])
def test_missing_runs_are_drawn_apart(of_both):
    scores, partial = random_scores(5, 2, seed=1), random_scores(5, 2, seed=2)
    partial[0, 0] = np.nan
    x, y = matrix(partial if of_both else scores), matrix(partial, agent="cic")
    for pair in ((x, y), (y, x)):
        found = paired_difference(*pair, "Mean", reps=200)
        assert not found.paired
        assert found.estimate.low is not None
    assert found.estimate.n_runs == (18 if of_both else 19)


def test_equal_scores_are_no_difference_in_spite_of_rounding():
    x, y = matrix(np.full((3, 3), 0.1)), matrix(np.full((4, 3), 0.1), agent="cic")
    assert paired_difference(x, y, "IQM", reps=200).estimate.low > 0
    for metric in AGGREGATES:
        found = paired_difference(x, y, metric, reps=200)
        assert found.estimate.value == pytest.approx(0, abs=1e-12)
        assert not found.resolved
        assert seeds_needed(x, y, metric, reps=200).more_seeds is None
    assert paired_difference(x, matrix(np.full((4, 3), 0.2), agent="cic"), reps=200).resolved


def test_a_difference_from_one_run_has_no_interval():
    found = paired_difference(matrix(random_scores(1, 2)), matrix(random_scores(4, 2), agent="cic"))
    assert (found.estimate.low, found.resolved) == (None, False)
    assert found.estimate.note == "apt: one run per task: no interval"
    power = seeds_needed(matrix(random_scores(1, 2)), matrix(random_scores(4, 2), agent="cic"))
    assert (power.more_seeds, power.note) == (None, "apt: one run per task: no interval")


def test_the_cluster_difference_is_wider_where_either_agent_pretrains():
    rng = np.random.default_rng(1)
    x, y = (matrix(lucky_scores(rng, 10, 1), agent=agent) for agent in ("apt", "cic"))

    def width(ci, x, y):
        estimate = paired_difference(x, y, "Mean", ci, reps=3000).estimate
        return estimate.high - estimate.low

    assert width("cluster", x, y) > 1.3 * width("stratified", x, y)
    scratch = [dataclasses.replace(one, pretrains=False) for one in (x, y)]
    assert width("cluster", x, scratch[1]) == width("cluster", x, y)
    assert width("cluster", scratch[0], y) == width("cluster", x, y)
    assert width("cluster", *scratch) == width("stratified", *scratch)


def test_seeds_needed_follow_from_the_standard_error():
    rng = np.random.default_rng(2)
    x, y = (matrix(rng.normal(0.5, 0.2, (6, 4)), agent=agent, seeds=range(6)) for agent in ("apt", "cic"))
    y = dataclasses.replace(
        y, measured=y.measured - y.measured.mean() + x.measured.mean() - 4.0, seeds=tuple(range(6, 12))
    )
    assert not paired_difference(x, y, "Mean").resolved
    # The difference is 0.04. Of the mean of four means, each of n runs: the sum of the sample variances / (16 n).
    variance = sum(np.var(one.scores, axis=0, ddof=1).sum() / 16 for one in (x, y))
    expected = np.ceil(((1.959964 + 0.841621) / 0.04) ** 2 * variance)
    assert seeds_needed(x, y, "Mean").more_seeds == pytest.approx(expected - 6, rel=0.02)
    fewer = seeds_needed(x, y, "Mean", power=0.5).more_seeds
    assert fewer == pytest.approx(np.ceil((1.959964 / 0.04) ** 2 * variance) - 6, rel=0.04)


def test_no_more_seeds_for_what_is_resolved_by_luck():
    rng = np.random.default_rng(2)
    x, y = (matrix(rng.normal(0, 0.2, (6, 4)), agent=agent) for agent in ("apt", "cic"))
    spread = paired_difference(x, y, "Mean").estimate
    # Of the interval, 110 % of what reaches 0; for 80 % power it would have to be 143 %.
    shift = 1.1 * (spread.value - spread.low) - spread.value
    x = dataclasses.replace(x, measured=x.measured + 100 * shift)
    assert paired_difference(x, y, "Mean").resolved
    assert seeds_needed(x, y, "Mean").more_seeds == 0


def test_no_more_seeds_for_what_is_resolved_and_none_known_for_next_to_nothing():
    x = matrix(random_scores(seed=1))
    better = matrix(random_scores(seed=2) + 2, agent="cic")
    assert seeds_needed(better, x, reps=500).more_seeds == 0
    noise = np.random.default_rng(0).normal(0, 0.2, (8, 4))
    alike = matrix(x.scores + noise - noise.mean() + 1e-4, agent="cic")
    power = seeds_needed(x, alike, "Mean", reps=500)
    assert (power.more_seeds, power.note) == (
        None,
        f"so small a difference needs more than {MOST_SEEDS:,} further seeds",
    )


def test_published_scores_get_no_more_seeds():
    rng = np.random.default_rng(3)
    x = matrix(rng.normal(0.5, 0.2, (4, 4)))
    mean = x.scores.mean()
    blurred, sharp = (summary([mean - 0.1] * 4, error, 10) for error in (0.2, 0.01))
    assert seeds_needed(x, blurred, "Mean").more_seeds is None
    assert 0 < seeds_needed(x, sharp, "Mean").more_seeds < 20


def test_as_many_seeds_as_said_resolve_a_difference_as_often_as_said():
    rng = np.random.default_rng(4)
    noise, difference = 0.2, 0.09
    # Pilots whose means and sample variances are exactly those of the simulation below.
    pilots = rng.normal(0, 1, (2, 6, 4))
    pilots = noise * (pilots - pilots.mean(axis=1, keepdims=True)) / pilots.std(axis=1, ddof=1, keepdims=True)
    x, y = matrix(pilots[0] + difference), matrix(pilots[1], agent="cic", seeds=range(6, 12))
    n_seeds = 6 + seeds_needed(x, y, "Mean").more_seeds
    resolved = 0
    for number in range(400):
        x, y = (
            matrix(rng.normal(mean, noise, (n_seeds, 4)), agent=f"{agent} {number}")
            for agent, mean in (("x", difference), ("y", 0.0))
        )
        resolved += paired_difference(x, y, "Mean", reps=400).resolved
    # 99.8 % of all such simulations.
    assert binom.ppf(0.001, 400, 0.8) <= resolved <= binom.ppf(0.999, 400, 0.8)
