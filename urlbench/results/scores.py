"""The scores of results that are complete enough for a table, whatever the suite scores."""

import numpy as np

from urlbench.results.cells import Results
from urlbench.results.score_kinds import kind_of, scale_of
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.validation import check


def final_scores(results: Results, *, allow_partial: bool = False) -> dict[str, ScoreMatrix]:
    """The final scores of every agent, by label.

    Raises:
        IncompleteError: as `check` does.
    """
    check(results, allow_partial=allow_partial)
    return scores_at(results, results.suite.protocols[results.preset].finetune_frames)


def scores_at(results: Results, frame: int) -> dict[str, ScoreMatrix]:
    """The scores of every agent after `frame` fine-tuning frames, of results that `check` lets through.

    A row is a seed; its goal sets, where a suite has any, count together.
    """
    suite = results.suite
    scale, of_runs = scale_of(suite, results.tasks), kind_of(suite).of_runs
    matrices = {}
    for agent in results.agents:
        measured = np.full((len(results.seeds), len(results.tasks)), np.nan)
        for row, seed in enumerate(results.seeds):
            for column, task in enumerate(results.tasks):
                runs = [results.run(agent.label, task, seed, goal_set) for goal_set in results.goal_sets_of(seed)]
                there = [run for run in runs if run is not None]
                if len(there) == len(runs):
                    measured[row, column] = of_runs(there, frame)
        matrices[agent.label] = ScoreMatrix(
            agent=agent.name,
            config_hash=agent.config_hash or "",
            suite=suite.full_name,
            preset=results.preset,
            tasks=results.tasks,
            domains=tuple(suite.task(task).domain for task in results.tasks),
            seeds=results.seeds,
            pretrains=agent.pretrains,
            measured=measured,
            scale=scale,
        )
    return matrices
