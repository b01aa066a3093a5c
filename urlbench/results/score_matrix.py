"""The final scores of one agent, as the statistics take them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from urlbench.results.score_kinds import Floats, Scale


@dataclass(frozen=True)
class ScoreMatrix:
    """Final scores of one agent.

    Attributes:
        domains: the domain of each task.
        pretrains: whether the tasks of a domain share one pretraining run a seed.
        measured: at the end, [runs, tasks]: mean returns, say, or fractions of goals found. Row i is seed `seeds[i]`;
            NaN marks a missing cell, which only a partial report lets through.
        scale: how scores follow from that.
    """

    agent: str
    config_hash: str
    suite: str
    preset: str
    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    seeds: tuple[int, ...]
    pretrains: bool
    measured: Floats
    scale: Scale

    @property
    def scores(self) -> Floats:
        """The scores, [runs, tasks]."""
        return self.scale.scores(self.measured)

    @property
    def complete(self) -> bool:
        """True if no cell is missing."""
        return not bool(np.isnan(self.measured).any())

    def select(self, tasks: Iterable[str]) -> "ScoreMatrix":
        """The same runs on some of the tasks."""
        chosen = set(tasks)
        keep = [index for index, task in enumerate(self.tasks) if task in chosen]
        return ScoreMatrix(
            agent=self.agent,
            config_hash=self.config_hash,
            suite=self.suite,
            preset=self.preset,
            tasks=tuple(self.tasks[index] for index in keep),
            domains=tuple(self.domains[index] for index in keep),
            seeds=self.seeds,
            pretrains=self.pretrains,
            measured=self.measured[:, keep],
            scale=self.scale.select(keep),
        )
