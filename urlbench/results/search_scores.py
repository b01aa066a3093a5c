"""Searches for goals as scores: the fraction of its goals that a seed found on a task."""

from collections.abc import Sequence

import numpy as np

from urlbench.results.cells import Results
from urlbench.results.score_matrix import ScoreMatrix


def search_scores(results: Results, *, allow_partial: bool = False) -> dict[str, ScoreMatrix]:
    """The fraction of goals found of every agent of a suite without fine-tuning, by label.

    A row is a seed: its goal sets are searched by the same pretrained agent, so they count together. References are 1.

    Raises:
        IncompleteError: as `Results.check` does.
    """
    results.check(allow_partial=allow_partial)
    assert results.suite.measured_phase == "search", f"{results.suite.name} fine-tunes"
    matrices = {}
    for agent in results.agents:
        fractions = np.full((len(results.seeds), len(results.tasks)), np.nan)
        for row, seed in enumerate(results.seeds):
            for column, task in enumerate(results.tasks):
                runs = [results.run(agent.label, task, seed, number) for number in results.goal_sets_of(seed)]
                if None not in runs:
                    fractions[row, column] = fraction_found(
                        [(run.goals_found, len(run.searches)) for run in runs if run]
                    )
        matrices[agent.label] = ScoreMatrix(
            agent=agent.name,
            config_hash=agent.config_hash or "",
            suite=results.suite.full_name,
            preset=results.preset,
            tasks=results.tasks,
            domains=tuple(results.suite.task(task).domain for task in results.tasks),
            seeds=results.seeds,
            pretrains=agent.pretrains,
            returns=fractions,
            references=np.ones(len(results.tasks)),
        )
    return matrices


def fraction_found(counts: Sequence[tuple[int, int]]) -> float:
    """Goals found of goals looked for, over all searches of one seed on one task."""
    return sum(found for found, _ in counts) / sum(goals for _, goals in counts)
