"""What an interval does not depend on, and what it does."""

import dataclasses
import inspect

import numpy as np
import pytest
from rliable import library, metrics
from synthetic_scores import matrix, random_scores, summary

from urlbench.statistics import resampling
from urlbench.statistics.aggregates import aggregate, domain_scores, task_scores
from urlbench.statistics.differences import paired_difference, seeds_needed
from urlbench.statistics.efficiency import efficiency_curve
from urlbench.statistics.improvement import probabilities_of_improvement, probability_of_improvement
from urlbench.statistics.profiles import performance_profile
from urlbench.statistics.resampling import LegacyStream, draws
from urlbench.statistics.runs import runs_of
from urlbench.statistics.simulation import simulated

X = matrix(random_scores(8, 4, seed=1), domains=["a", "a", "b", "b"])
Y = matrix(random_scores(8, 4, seed=2), agent="cic", domains=["a", "a", "b", "b"])
Z = matrix(random_scores(6, 4, seed=4), agent="rnd", domains=["a", "a", "b", "b"])
PUBLISHED = summary([0.4, 0.5, 0.6, 0.7], 0.1, 10)
TAUS = np.linspace(0, 2, 9)


def everything(x=X, y=Y, reps=700, ci="stratified"):
    """All statistics of x, and of x and y, as plain numbers."""
    profile, curve = performance_profile(x, TAUS, ci, reps), efficiency_curve({1: x, 2: x}, ci=ci, reps=reps)
    return (
        aggregate(x, ci, reps),
        profile.lows.tolist() + profile.highs.tolist(),
        curve.lows.tolist() + curve.highs.tolist(),
        probability_of_improvement(x, y, ci, reps),
        paired_difference(x, y, "IQM", ci, reps),
        seeds_needed(x, y, "IQM", ci, reps),
        simulated(PUBLISHED, reps),
        probability_of_improvement(x, PUBLISHED, ci, reps),
        paired_difference(x, PUBLISHED, "IQM", ci, reps),
    )


@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_rliable_bug_the_same_call_twice_gives_the_same_interval(ci):
    def theirs():
        state = np.random.RandomState(5)
        with pytest.warns(FutureWarning, match="random_state is deprecated"):
            found = library.get_interval_estimates(
                {"apt": X.scores},
                lambda values: np.array([metrics.aggregate_mean(values)]),
                reps=50,
                random_state=state,
            )
        return found[1]["apt"]

    assert not np.array_equal(theirs(), theirs())
    assert everything(ci=ci) == everything(ci=ci)


def test_the_global_state_is_neither_used_nor_changed():
    first = everything()
    np.random.seed(99)  # noqa: NPY002 - the point is that the global state does not matter
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    assert everything() == first
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_the_size_of_blocks_changes_nothing(monkeypatch):
    first = everything()
    monkeypatch.setattr(resampling, "_BLOCK_REPS", 33)
    assert everything() == first


@pytest.mark.parametrize("ci", ["stratified", "cluster"])
def test_openrlbenchmark_bug_the_order_of_rows_changes_nothing(ci):
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    mixed = dataclasses.replace(X, measured=X.measured[order], seeds=tuple(X.seeds[row] for row in order))
    assert everything(mixed, ci=ci) == everything(X, ci=ci)


def test_the_order_of_tasks_changes_nothing_but_rounding():
    order = [2, 0, 3, 1]
    mixed = dataclasses.replace(
        X,
        tasks=tuple(X.tasks[task] for task in order),
        domains=tuple(X.domains[task] for task in order),
        measured=X.measured[:, order],
    )
    for name, estimate in aggregate(X, "cluster", 300).items():
        other = aggregate(mixed, "cluster", 300)[name]
        assert (other.low, other.high) == pytest.approx((estimate.low, estimate.high), rel=1e-12)


def test_marl_eval_bug_other_agents_change_nothing():
    pair = probability_of_improvement(X, Y, reps=300)
    best = matrix(10 * random_scores(8, 4, seed=9), agent="best", domains=X.domains)
    among = probabilities_of_improvement({"z": Z, "y": Y, "x": X, "best": best}, reps=300)
    assert among["x", "y"].value == pytest.approx(pair.value)
    assert (among["x", "y"].low, among["x", "y"].high) == pytest.approx((pair.low, pair.high), abs=1e-12)


def test_a_domain_uses_the_same_draws_alone_and_among_others():
    alone = matrix(X.scores[:, :2], domains=["a", "a"])
    for ci in ("stratified", "cluster"):
        assert domain_scores(X, ci, 300)["a"] == aggregate(alone, ci, 300)["Mean"]


def test_other_agents_configurations_presets_and_suites_have_other_streams():
    first = aggregate(X, reps=300)
    for change in ({"agent": "cic"}, {"config_hash": "87654321"}, {"preset": "small"}, {"suite": "toy@2"}):
        assert aggregate(dataclasses.replace(X, **change), reps=300) != first


def test_the_same_agent_twice_is_drawn_twice():
    first, second = draws([runs_of(X), runs_of(X)], "stratified")(20)
    assert not np.array_equal(first[0], second[0])
    estimate = probability_of_improvement(X, X, reps=300)
    assert estimate.value == 0.5
    assert estimate.low < 0.45
    assert estimate.high > 0.55


def test_cluster_draws_are_shared_within_a_domain_and_not_beyond():
    drawn = draws([runs_of(X)], "cluster")(20)[0]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    drawn = draws([runs_of(dataclasses.replace(X, pretrains=False))], "cluster")(20)[0]
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.parametrize("sizes", [(5, 5), (5, 7)])
def test_the_legacy_stream_moves_on_as_rliables_does(sizes):
    pair = [runs_of(matrix(random_scores(size, 3))) for size in sizes]
    state = np.random.RandomState(3)
    draw = LegacyStream(state).draws(pair)
    ours = [draw(4), draw(2)]
    np.random.seed(3)  # noqa: NPY002 - what rliable draws from
    bootstrap = library.StratifiedIndependentBootstrap(*(runs.matrix.scores for runs in pair))
    for part, reps in zip(ours, (4, 2), strict=True):
        for rep in range(reps):
            theirs, _ = bootstrap.update_indices()
            for of_agent, (index, _) in zip(part, theirs, strict=True):
                np.testing.assert_array_equal(np.stack([task[rep] for task in of_agent], axis=1), index)
    assert state.randint(1 << 30) == np.random.randint(1 << 30)  # noqa: NPY002


def test_the_legacy_stream_refuses_missing_runs():
    scores = random_scores(4, 2)
    scores[0, 0] = np.nan
    with pytest.raises(AssertionError, match="no missing runs"):
        aggregate(matrix(scores), LegacyStream(np.random.RandomState(0)))


@pytest.mark.parametrize(
    "function",
    [
        *(aggregate, task_scores, domain_scores, performance_profile, efficiency_curve, simulated),
        *(probability_of_improvement, probabilities_of_improvement, paired_difference, seeds_needed),
    ],
)
def test_openrlbenchmark_bug_ten_repetitions_are_not_the_default(function):
    assert inspect.signature(function).parameters["reps"].default == 50_000
