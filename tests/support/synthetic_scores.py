"""Scores of made-up agents, for the tests of the statistics."""

from collections.abc import Sequence

import numpy as np

from urlbench.results.score_kinds import KINDS, Scale
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.summary_scores import SummaryScores


def hundred(n_tasks: int) -> Scale:
    """Returns divided by 100 on every task."""
    return Scale(KINDS["normalised_return"], np.zeros(n_tasks), np.full(n_tasks, 100.0))


def matrix(scores, *, agent="apt", domains: Sequence[str] | None = None, pretrains=True, seeds=None) -> ScoreMatrix:
    """Scores [runs, tasks]; all tasks are of one domain unless told."""
    scores = np.asarray(scores, dtype=np.float64)
    n_runs, n_tasks = scores.shape
    return ScoreMatrix(
        agent=agent,
        config_hash="12345678",
        suite="toy@1",
        preset="paper",
        tasks=tuple(f"task_{index}" for index in range(n_tasks)),
        domains=tuple(domains or ["body"] * n_tasks),
        seeds=tuple(range(n_runs) if seeds is None else seeds),
        pretrains=pretrains,
        measured=scores * 100.0,
        scale=hundred(n_tasks),
    )


def random_scores(n_runs=8, n_tasks=4, *, seed=3, scale=0.25):
    return np.random.default_rng(seed).gamma(4.0, scale, size=(n_runs, n_tasks))


def summary(scores, errors, n_seeds, *, agent="APT", source="someone-2023") -> SummaryScores:
    """Published normalised means [tasks] with their standard errors and numbers of seeds."""
    means = np.asarray(scores, dtype=np.float64)
    return SummaryScores(
        agent=agent,
        source=source,
        suite="toy@1",
        preset="paper",
        tasks=tuple(f"task_{index}" for index in range(len(means))),
        domains=("body",) * len(means),
        means=means * 100.0,
        standard_errors=np.broadcast_to(np.asarray(errors, dtype=np.float64) * 100.0, means.shape),
        n_seeds=np.broadcast_to(np.asarray(n_seeds, dtype=np.int64), means.shape),
        scale=hundred(len(means)),
        label=f"{source}/{agent}",
    )


def lucky_scores(rng: np.random.Generator, n_seeds: int, n_domains: int, *, luck=0.2, noise=0.1, mean=0.5):
    """Normal scores, four tasks a domain, whose runs share the luck of a domain's pretraining: [seeds, tasks]."""
    shared = np.repeat(rng.normal(0, luck, (n_seeds, n_domains)), 4, axis=1)
    return mean + shared + rng.normal(0, noise, (n_seeds, 4 * n_domains))


def four_each(n_domains: int) -> list[str]:
    """The domains of `lucky_scores`."""
    return [f"body_{number}" for number in range(n_domains) for _ in range(4)]
