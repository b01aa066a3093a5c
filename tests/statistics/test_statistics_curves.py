"""Performance profiles and sample efficiency."""

import dataclasses

import numpy as np
import pytest
from rliable import library, metrics
from synthetic_scores import matrix, random_scores

from urlbench.statistics.aggregates import AGGREGATES, aggregate
from urlbench.statistics.efficiency import efficiency_curve
from urlbench.statistics.profiles import performance_profile
from urlbench.statistics.resampling import LegacyStream

TAUS = np.linspace(0, 2, 21)


def test_a_profile_at_known_points():
    profile = performance_profile(matrix([[0.1, 0.5], [0.3, 0.5], [0.3, 0.9]]), [-1, 0.1, 0.2, 0.3, 0.5, 0.9], reps=50)
    # Strictly above: the run that is at a threshold does not count.
    np.testing.assert_allclose(profile.values, np.array([6, 5, 5, 3, 1, 0]) / 6)
    assert (profile.lows[0], profile.highs[0]) == (1, 1)
    assert (profile.lows[-1], profile.highs[-1]) == (0, 0)
    assert profile.n_runs == 6


@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_given_rliables_random_state_profiles_are_rliables(values):
    scores = random_scores(6, 5) if values == "distinct" else np.round(random_scores(6, 5), 1)
    np.random.seed(2)  # noqa: NPY002 - what rliable draws from
    theirs, intervals = library.create_performance_profile({"apt": scores}, TAUS, reps=150)
    profile = performance_profile(matrix(scores), TAUS, LegacyStream(np.random.RandomState(2)), reps=150)
    np.testing.assert_allclose(profile.values, theirs["apt"], rtol=0, atol=1e-12)
    np.testing.assert_allclose([profile.lows, profile.highs], intervals["apt"], rtol=0, atol=1e-12)


def test_profiles_equal_rliables_within_monte_carlo_error():
    scores = random_scores(8, 4)
    theirs, intervals = library.create_performance_profile({"apt": scores}, TAUS[::4], reps=1000)
    profile = performance_profile(matrix(scores), TAUS[::4], reps=20_000)
    np.testing.assert_allclose(profile.values, theirs["apt"], atol=1e-12)
    # In steps of 1/32, of which percentiles of 1,000 repetitions can miss one.
    np.testing.assert_allclose([profile.lows, profile.highs], intervals["apt"], atol=1 / 32 + 1e-9)


def test_the_area_under_a_profile_is_the_mean():
    scores = random_scores(6, 3)
    taus = np.linspace(0, scores.max(), 20_001)
    profile = performance_profile(matrix(scores), taus, reps=20)
    assert np.sum(profile.values[:-1] * np.diff(taus)) == pytest.approx(scores.mean(), abs=1e-3)


@pytest.mark.parametrize(
    ("scores", "value", "note"),
    [
        ([[0.4, 0.6]], 0.5, "one run per task: no interval"),
        ([[0.4, np.nan], [0.5, np.nan]], np.nan, "no run on task_1"),
    ],
)
def test_a_profile_of_too_few_runs_says_so(scores, value, note):
    profile = performance_profile(matrix(scores), [0.5], reps=20)
    np.testing.assert_equal([profile.values, profile.lows, profile.highs], [[value], [np.nan], [np.nan]])
    assert profile.note == note


@pytest.mark.parametrize("metric", AGGREGATES)
@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_each_point_of_a_curve_is_the_aggregate_there(metric, ci):
    matrices = {frames: matrix(random_scores(seed=frames)) for frames in (300, 100, 200)}
    curve = efficiency_curve(matrices, metric, ci, reps=300)
    assert curve.frames == (100, 200, 300)
    for place, frames in enumerate(curve.frames):
        alone = aggregate(matrices[frames], ci, 300)[metric]
        assert (curve.values[place], curve.lows[place], curve.highs[place]) == (alone.value, alone.low, alone.high)
    assert curve.notes == ("", "", "")


def test_a_curve_equals_rliables_within_monte_carlo_error():
    steps = [random_scores(8, 4, seed=step, scale=0.1 * step) for step in (1, 2, 3)]

    def iqms(values):
        return np.array([metrics.aggregate_iqm(values[..., step]) for step in range(3)])

    theirs, intervals = library.get_interval_estimates({"apt": np.stack(steps, axis=2)}, iqms, reps=800)
    curve = efficiency_curve({step: matrix(scores) for step, scores in enumerate(steps)}, reps=20_000)
    np.testing.assert_allclose(curve.values, theirs["apt"], atol=1e-12)
    for ours, other in zip((curve.lows, curve.highs), intervals["apt"], strict=True):
        assert np.abs(ours - other).max() < 0.12 * np.diff(intervals["apt"], axis=0).max()


def test_a_point_of_a_curve_without_all_runs_says_so_and_leaves_the_others_alone():
    scores = random_scores(4, 2)
    partial, none = scores.copy(), scores.copy()
    partial[1, 0], none[:, 1] = np.nan, np.nan
    frames = {1: matrix(scores), 2: matrix(partial), 3: matrix(none)}
    stratified, cluster = (efficiency_curve(frames, "Mean", ci, reps=100) for ci in ("stratified", "cluster"))
    assert stratified.notes == ("", "", "no run on task_1")
    assert cluster.notes == ("", "missing runs: no cluster interval", "no run on task_1")
    assert stratified.lows[1] == aggregate(frames[2], reps=100)["Mean"].low
    np.testing.assert_equal(cluster.lows[1:], np.nan)
    np.testing.assert_equal(cluster.values[2], np.nan)
    assert cluster.lows[0] == aggregate(frames[1], "cluster", reps=100)["Mean"].low


def test_rows_of_another_order_share_the_draws_of_a_curve():
    one = matrix(random_scores(5, 2))
    mixed = dataclasses.replace(one, measured=one.measured[::-1], seeds=one.seeds[::-1])
    curve = efficiency_curve({1: one, 2: mixed}, reps=100)
    assert (curve.lows[0], curve.highs[0]) == (curve.lows[1], curve.highs[1])
