"""The scores of results that are complete enough for a table."""

import numpy as np

from urlbench.results.cells import Results
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.validation import check


def final_scores(results: Results, *, allow_partial: bool = False) -> dict[str, ScoreMatrix]:
    """The final scores of every agent of a suite that fine-tunes, by label.

    Raises:
        IncompleteError: as `check` does.
    """
    check(results, allow_partial=allow_partial)
    return scores_at(results, results.suite.protocols[results.preset].finetune_frames)


def scores_at(results: Results, frame: int) -> dict[str, ScoreMatrix]:
    """The scores of every agent after `frame` fine-tuning frames, of results that `check` lets through."""
    suite = results.suite
    assert suite.normaliser is not None, f"{suite.name} gives fractions of goals found, not returns"
    references = np.array([suite.normaliser.references[task] for task in results.tasks])
    domains = tuple(suite.task(task).domain for task in results.tasks)
    matrices = {}
    for agent in results.agents:
        runs = [[results.run(agent.label, task, seed) for task in results.tasks] for seed in results.seeds]
        matrices[agent.label] = ScoreMatrix(
            agent=agent.name,
            config_hash=agent.config_hash or "",
            suite=suite.full_name,
            preset=results.preset,
            tasks=results.tasks,
            domains=domains,
            seeds=results.seeds,
            pretrains=agent.pretrains,
            returns=np.array([[run.return_at(frame) if run else np.nan for run in row] for row in runs]),
            references=references,
        )
    return matrices
