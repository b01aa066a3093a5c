"""Aggregates: hand-worked numbers, rliable as the oracle, and what cannot be said."""

import tracemalloc

import numpy as np
import pytest
from rliable import library, metrics
from synthetic_scores import hundred, matrix, random_scores

from urlbench.core.errors import UserError
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.aggregates import AGGREGATES, aggregate, domain_scores, metric_replicates, task_scores
from urlbench.statistics.estimates import task_mean
from urlbench.statistics.resampling import LegacyStream, draws
from urlbench.statistics.runs import runs_of

ORACLES = (
    metrics.aggregate_iqm,
    metrics.aggregate_median,
    metrics.aggregate_mean,
    metrics.aggregate_optimality_gap,
)


def all_four(values):
    return np.array([oracle(values) for oracle in ORACLES])


def replicates_of(scores: ScoreMatrix, ci, reps):
    runs = runs_of(scores)
    return metric_replicates([runs], draws([runs], ci), reps, AGGREGATES)[0]


def resampled_scores(scores: ScoreMatrix, ci, reps):
    """The same resamples one by one, as matrices [runs, tasks] that rliable takes."""
    runs = runs_of(scores)
    columns = [column[index] for column, index in zip(runs.columns, draws([runs], ci)(reps)[0], strict=True)]
    return np.stack(columns, axis=2)


def test_point_estimates_of_hand_worked_scores():
    estimates = aggregate(matrix([[0.0, 0.2, 0.5, 2.0], [0.1, 0.4, 1.0, 3.0]]), reps=100)
    # Eight values: the middle four are 0.2, 0.4, 0.5, 1.0; task means 0.05, 0.3, 0.75, 2.5.
    assert estimates["IQM"].value == pytest.approx(2.1 / 4)
    assert estimates["Median"].value == pytest.approx((0.3 + 0.75) / 2)
    assert estimates["Mean"].value == pytest.approx(3.6 / 4)
    assert estimates["Optimality gap"].value == pytest.approx(1 - (0.0 + 0.2 + 0.5 + 1.0 + 0.1 + 0.4 + 1.0 + 1.0) / 8)


@pytest.mark.parametrize("shape", [(2, 1), (3, 3), (8, 4), (10, 12), (5, 7)])
def test_point_estimates_are_rliables(shape):
    scores = random_scores(*shape)
    estimates = aggregate(matrix(scores), reps=10)
    np.testing.assert_allclose([estimates[name].value for name in AGGREGATES], all_four(scores), rtol=1e-13)


@pytest.mark.parametrize("ci", ["stratified", "cluster"])
@pytest.mark.parametrize("values", ["distinct", "tied"])
def test_counting_runs_gives_the_metrics_of_the_resamples_themselves(ci, values):
    scores = random_scores(7, 5) if values == "distinct" else np.round(random_scores(7, 5), 1)
    one = matrix(scores, domains=["a", "a", "b", "b", "b"])
    replicates = replicates_of(one, ci, 60)
    for name, oracle in zip(AGGREGATES, ORACLES, strict=True):
        expected = [oracle(drawn) for drawn in resampled_scores(one, ci, 60)]
        np.testing.assert_allclose(replicates[name], expected, rtol=1e-13)


def test_intervals_equal_rliables_within_monte_carlo_error():
    scores = random_scores()
    estimates = aggregate(matrix(scores), reps=20_000)
    points, intervals = library.get_interval_estimates({"apt": scores}, all_four, reps=4000)
    for index, name in enumerate(AGGREGATES):
        low, high = intervals["apt"][:, index]
        assert estimates[name].value == pytest.approx(points["apt"][index], abs=1e-12)
        assert estimates[name].low == pytest.approx(low, abs=0.06 * (high - low))
        assert estimates[name].high == pytest.approx(high, abs=0.06 * (high - low))


def test_given_rliables_random_state_intervals_are_rliables():
    agents = {"apt": random_scores(10, 12, seed=1), "cic": random_scores(6, 12, seed=2)}
    np.random.seed(11)  # noqa: NPY002 - what rliable draws from
    _, intervals = library.get_interval_estimates(agents, all_four, reps=300)
    legacy = LegacyStream(np.random.RandomState(11))
    for label, scores in agents.items():
        estimates = aggregate(matrix(scores, agent=label), legacy, reps=300)
        ours = np.array([[estimates[name].low, estimates[name].high] for name in AGGREGATES]).T
        np.testing.assert_allclose(ours, intervals[label], rtol=0, atol=1e-12)


def test_memory_does_not_grow_with_repetitions():
    one = matrix(random_scores(10, 12))

    def peak(reps):
        tracemalloc.start()
        aggregate(one, reps=reps)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    # Beyond the blocks there are four replicates of 8 bytes a repetition, and one copy of the one being ordered.
    assert peak(20_000) - peak(5_000) < 15_000 * 8 * 8


def test_a_single_task_is_its_mean_whatever_the_median_or_cut():
    scores = random_scores(8, 1)
    estimates = aggregate(matrix(scores), reps=500)
    assert estimates["Mean"].value == pytest.approx(scores.mean())
    assert estimates["Median"] == estimates["Mean"]
    assert estimates["IQM"].value == pytest.approx(np.sort(scores[:, 0])[2:6].mean())


def test_scores_without_variance_have_an_interval_of_no_width():
    for name, estimate in aggregate(matrix(np.full((6, 3), 0.3)), reps=200).items():
        expected = 0.7 if name == "Optimality gap" else 0.3
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((expected,) * 3, abs=1e-12)


def test_rliable_bug_one_seed_has_no_interval_of_width_zero():
    estimate = aggregate(matrix([[0.4, 0.6]]), reps=100)["IQM"]
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.low, estimate.high) == (None, None)
    assert estimate.note == "one run per task: no interval"
    few = aggregate(matrix([[0.4, 0.6], [np.nan, 0.8]]), reps=100)["Mean"]
    assert (few.low, few.note) == (None, "a task with a single run: no interval")


def test_rliable_bug_a_missing_run_does_not_make_everything_nan():
    scores = np.array([[0.2, 0.4], [0.6, np.nan], [0.7, 0.8]])
    assert np.isnan(metrics.aggregate_mean(scores))
    estimate = aggregate(matrix(scores), reps=500)
    assert estimate["Mean"].value == pytest.approx((0.5 + 0.6) / 2)
    assert estimate["IQM"].n_runs == 5
    assert estimate["Mean"].low is not None
    assert aggregate(matrix(scores), "cluster", reps=500)["Mean"].note == "missing runs: no cluster interval"


def test_inspect_ai_bug_a_missing_run_does_not_score_zero():
    estimates = aggregate(matrix([[0.4, 0.6], [np.nan, 0.6], [0.4, 0.6]]), reps=50)
    assert estimates["Mean"].value == pytest.approx(0.5)
    assert estimates["Optimality gap"].value == pytest.approx(1 - (2 * 0.4 + 3 * 0.6) / 5)


def test_rl_zoo_bug_unequal_seeds_are_not_cut_to_the_fewest():
    scores = np.array([[0.1, 0.9], [0.2, 0.8], [0.6, np.nan], [0.7, np.nan]])
    estimate = aggregate(matrix(scores), reps=50)["Mean"]
    assert estimate.value == pytest.approx((0.4 + 0.85) / 2)
    assert estimate.n_runs == 6


def test_marl_eval_bug_a_seed_that_is_there_twice_is_not_counted_twice():
    with pytest.raises(UserError, match=r"seed 1 of apt occurs twice"):
        aggregate(matrix(random_scores(3, 2), seeds=[0, 1, 1]))


def test_infinite_scores_are_refused():
    with pytest.raises(UserError, match=r"apt has an infinite score on task_1"):
        aggregate(matrix([[0.1, 0.2], [0.3, np.inf]]))


def test_rliable_bug_mixed_up_axes_are_refused():
    one = matrix(random_scores(8, 4))
    turned = ScoreMatrix(**{**vars(one), "measured": one.measured.T, "scale": hundred(8)})
    with pytest.raises(AssertionError, match="seeds x tasks"):
        aggregate(turned)


def test_a_task_without_any_run_leaves_no_aggregate():
    estimate = aggregate(matrix([[0.2, np.nan], [0.3, np.nan]]), reps=100)["IQM"]
    assert estimate.value is None
    assert estimate.note == "no run on task_1"


def test_scores_of_tasks_and_domains_are_aggregates_of_what_belongs_to_them():
    one = matrix(random_scores(8, 4), domains=["a", "a", "b", "b"])
    tasks, domains = task_scores(one, reps=300), domain_scores(one, "cluster", reps=300)
    assert list(tasks) == list(one.tasks)
    for index, task in enumerate(one.tasks):
        assert tasks[task].value == pytest.approx(one.scores[:, index].mean())
    assert list(domains) == ["a", "b"]
    assert domains["b"] == aggregate(one.select(["task_2", "task_3"]), "cluster", reps=300)["Mean"]
    assert domains["a"].value == pytest.approx(one.scores[:, :2].mean())


def test_marl_eval_bug_the_standard_error_is_of_the_runs_there_are():
    mean = task_mean(np.array([1.0, 2.0, np.nan, 6.0]))
    assert (mean.mean, mean.n) == (3.0, 3)
    assert mean.standard_error == pytest.approx(np.sqrt(7.0 / 3))
    assert task_mean(np.array([4.0])).standard_error is None
    assert task_mean(np.array([np.nan])).mean is None


def test_many_runs_are_counted_in_wider_integers():
    one = matrix(random_scores(9000, 4))
    expected = [metrics.aggregate_iqm(drawn) for drawn in resampled_scores(one, "stratified", 3)]
    np.testing.assert_allclose(replicates_of(one, "stratified", 3)["IQM"], expected, rtol=1e-12)
