"""What a publication tells of one agent: a mean a task, perhaps with a standard error, and never the runs."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from urlbench.results.score_kinds import Floats, Scale


@dataclass(frozen=True)
class SummaryScores:
    """Published scores of one agent from one source: summary only, so no run can be resampled.

    Attributes:
        agent: as the source calls it.
        source: the publication; scores of two sources are never pooled.
        suite: `name@version` of the suite whose tasks and references these are.
        preset: whose budgets the source used.
        tasks: those the source gives, in the suite's order; a source may lack some.
        domains: the domain of each task.
        means: of what was measured, mostly returns, [tasks].
        standard_errors: of the means, [tasks]; NaN where the source gives no spread, or one that cannot be
            converted because the number of seeds is not stated.
        n_seeds: runs behind each mean, [tasks]; 0 where the source does not say.
        scale: how scores follow from the means.
        label: what tables and figures call it, such as `choreographer-2023/CIC`.
    """

    agent: str
    source: str
    suite: str
    preset: str
    tasks: tuple[str, ...]
    domains: tuple[str, ...]
    means: Floats
    standard_errors: Floats
    n_seeds: npt.NDArray[np.int64]
    scale: Scale
    label: str

    @property
    def scores(self) -> Floats:
        """The scores of the means, [tasks]."""
        return self.scale.scores(self.means)

    @property
    def score_errors(self) -> Floats:
        """Standard errors of the scores, [tasks]; NaN where there is none."""
        return self.scale.errors(self.standard_errors)

    def select(self, tasks: Iterable[str]) -> "SummaryScores":
        """The same source on some of the tasks."""
        chosen = set(tasks)
        keep = [index for index, task in enumerate(self.tasks) if task in chosen]
        return SummaryScores(
            agent=self.agent,
            source=self.source,
            suite=self.suite,
            preset=self.preset,
            tasks=tuple(self.tasks[index] for index in keep),
            domains=tuple(self.domains[index] for index in keep),
            means=self.means[keep],
            standard_errors=self.standard_errors[keep],
            n_seeds=self.n_seeds[keep],
            scale=self.scale.select(keep),
            label=self.label,
        )
