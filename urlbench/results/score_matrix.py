"""The final scores of one agent, as the statistics take them."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoreMatrix:
    """Final scores of one agent.

    Attributes:
        domains: the domain of each task.
        pretrains: whether the tasks of a domain share one pretraining run a seed.
        returns: final mean returns, [runs, tasks]; row i is seed `seeds[i]`. NaN marks a missing cell,
            which only a partial report lets through.
        references: what a return is divided by, [tasks].
    """

    agent: str
    config_hash: str
    suite: str
    preset: str
    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    seeds: tuple[int, ...]
    pretrains: bool
    returns: Floats
    references: Floats

    @property
    def scores(self) -> Floats:
        """Normalised scores, [runs, tasks]: return / reference."""
        return self.returns / self.references

    @property
    def complete(self) -> bool:
        """True if no cell is missing."""
        return not bool(np.isnan(self.returns).any())

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
            returns=self.returns[:, keep],
            references=self.references[keep],
        )
