"""Point estimates and intervals: hand-worked numbers, rliable as the oracle, and what must not matter."""

import dataclasses

import numpy as np
import pytest
from rliable import library, metrics

import urlbench.statistics.aggregates as aggregates
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.aggregates import AGGREGATES, aggregate, bootstrap
from urlbench.statistics.estimates import task_mean


def matrix(scores, *, agent="apt", domains=None, pretrains=True) -> ScoreMatrix:
    scores = np.asarray(scores, dtype=np.float64)
    n_runs, n_tasks = scores.shape
    return ScoreMatrix(
        agent=agent,
        config_hash="12345678",
        suite="toy@1",
        preset="paper",
        tasks=tuple(f"task_{index}" for index in range(n_tasks)),
        domains=tuple(domains or ["body"] * n_tasks),
        seeds=tuple(range(n_runs)),
        pretrains=pretrains,
        returns=scores * 100.0,
        references=np.full(n_tasks, 100.0),
    )


def random_scores(n_runs=8, n_tasks=4):
    return np.random.default_rng(3).gamma(4.0, 0.25, size=(n_runs, n_tasks))


def test_point_estimates_of_hand_worked_scores():
    estimates = aggregate(matrix([[0.0, 0.2, 0.5, 2.0], [0.1, 0.4, 1.0, 3.0]]), reps=100)
    # Eight values: the middle four are 0.2, 0.4, 0.5, 1.0; task means 0.05, 0.3, 0.75, 2.5.
    assert estimates["IQM"].value == pytest.approx(2.1 / 4)
    assert estimates["Median"].value == pytest.approx((0.3 + 0.75) / 2)
    assert estimates["Mean"].value == pytest.approx(3.6 / 4)
    assert estimates["Optimality gap"].value == pytest.approx(1 - (0.0 + 0.2 + 0.5 + 1.0 + 0.1 + 0.4 + 1.0 + 1.0) / 8)


def test_replicates_equal_rliable_metrics_of_the_same_resamples(monkeypatch):
    scores = random_scores()
    sampled = []
    original = aggregates._aggregate_samples
    monkeypatch.setattr(aggregates, "_aggregate_samples", lambda samples: sampled.append(samples) or original(samples))
    replicates = bootstrap(matrix(scores), "stratified", 50)
    drawn = np.stack(sampled[0], axis=2)
    oracles = (
        metrics.aggregate_iqm,
        metrics.aggregate_median,
        metrics.aggregate_mean,
        metrics.aggregate_optimality_gap,
    )
    for name, oracle in zip(AGGREGATES, oracles, strict=True):
        np.testing.assert_allclose(replicates[name], [oracle(one) for one in drawn], rtol=1e-12)


def test_intervals_equal_rliables_within_monte_carlo_error():
    scores = random_scores()
    estimates = aggregate(matrix(scores), reps=20_000)

    def all_four(values):
        return np.array(
            [
                metrics.aggregate_iqm(values),
                metrics.aggregate_median(values),
                metrics.aggregate_mean(values),
                metrics.aggregate_optimality_gap(values),
            ]
        )

    points, intervals = library.get_interval_estimates({"apt": scores}, all_four, reps=4000)
    for index, name in enumerate(AGGREGATES):
        low, high = intervals["apt"][:, index]
        assert estimates[name].value == pytest.approx(points["apt"][index], abs=1e-12)
        assert estimates[name].low == pytest.approx(low, abs=0.06 * (high - low))
        assert estimates[name].high == pytest.approx(high, abs=0.06 * (high - low))


def test_the_same_interval_every_time_whatever_the_global_state_and_the_chunks(monkeypatch):
    first = aggregate(matrix(random_scores()), reps=1000)
    np.random.seed(99)  # noqa: NPY002 - the point is that the global state does not matter
    assert aggregate(matrix(random_scores()), reps=1000) == first
    monkeypatch.setattr(aggregates, "_CHUNK_VALUES", 32 * 7)
    assert aggregate(matrix(random_scores()), reps=1000) == first
    assert aggregate(matrix(random_scores(), agent="cic"), reps=1000) != first


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for index in range(200):
        estimate = aggregate(matrix(rng.normal(0.5, 0.2, size=(10, 4)), agent=f"agent {index}"), reps=400)["Mean"]
        hits += estimate.low <= 0.5 <= estimate.high
    assert 0.88 <= hits / 200 <= 0.98


def test_the_cluster_bootstrap_is_wider_where_pretrainings_are_lucky():
    rng = np.random.default_rng(1)
    luck = rng.normal(0, 0.2, size=(10, 1))
    scores = 0.5 + luck + rng.normal(0, 0.02, size=(10, 4))

    def width(ci, **kwargs):
        estimate = aggregate(matrix(scores, **kwargs), ci, reps=4000)["Mean"]
        return estimate.high - estimate.low

    assert width("cluster") == pytest.approx(2 * width("stratified"), rel=0.15)
    separate = width("cluster", domains=["a", "b", "c", "d"])
    assert separate == pytest.approx(width("stratified"), rel=0.1)
    assert width("cluster", pretrains=False) == width("stratified", pretrains=False)


def test_one_run_per_task_has_no_interval_and_says_so():
    estimate = aggregate(matrix([[0.4, 0.6]]), reps=100)["IQM"]
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.note == "one run per task: no interval"


def test_missing_runs_are_left_out_not_filled_in():
    scores = np.array([[0.2, 0.4], [0.6, np.nan], [0.7, 0.8]])
    estimate = aggregate(matrix(scores), reps=500)
    assert estimate["Mean"].value == pytest.approx((0.5 + 0.6) / 2)
    assert estimate["IQM"].n_runs == 5
    assert estimate["Mean"].low is not None
    assert aggregate(matrix(scores), "cluster", reps=500)["Mean"].note == "missing runs: no cluster interval"


def test_a_task_without_any_run_leaves_no_aggregate():
    estimate = aggregate(matrix([[0.2, np.nan], [0.3, np.nan]]), reps=100)["IQM"]
    assert estimate.value is None
    assert estimate.note == "no run on task_1"


def test_a_domain_uses_the_same_draws_alone_and_among_others():
    whole = matrix(random_scores(), domains=["a", "a", "b", "b"])
    alone = matrix(random_scores()[:, :2], domains=["a", "a"])
    assert aggregate(whole.select(["task_0", "task_1"]), reps=300) == aggregate(alone, reps=300)


def test_other_suites_and_configurations_have_other_streams():
    one = matrix(random_scores())
    other = dataclasses.replace(one, config_hash="87654321")
    assert aggregate(one, reps=300) != aggregate(other, reps=300)


def test_standard_error_is_of_runs():
    mean = task_mean(np.array([1.0, 2.0, np.nan, 6.0]))
    assert (mean.mean, mean.n) == (3.0, 3)
    assert mean.standard_error == pytest.approx(np.sqrt(7.0 / 3))
    assert task_mean(np.array([4.0])).standard_error is None
    assert task_mean(np.array([np.nan])).mean is None
