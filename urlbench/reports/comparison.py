"""Is an agent better than another one, by how much, how sure is that, and where?

The numbers are those of `urlbench.statistics`; here they are put side by side, with everything that speaks against
taking them at face value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from urlbench.core.errors import UserError
from urlbench.reports.cautions import Caution, cautions
from urlbench.reports.scores import Scores, estimates, task_means
from urlbench.reports.sides import Side
from urlbench.results.score_kinds import ScoreKind
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.statistics.differences import Difference, Power, paired_difference, seeds_needed
from urlbench.statistics.estimates import REPS, Estimate, TaskMean
from urlbench.statistics.improvement import probability_of_improvement
from urlbench.statistics.resampling import CiMethod

Verdict = Literal["better", "worse", "not resolved", "no interval"]


@dataclass(frozen=True)
class TaskRow:
    """One task.

    Attributes:
        new: of what is measured, returns say.
        difference: of scores.
    """

    task: str
    domain: str
    new: TaskMean
    against: TaskMean
    difference: Difference


@dataclass(frozen=True)
class ScoreRow:
    """One metric over all tasks, or the mean score of a domain."""

    name: str
    new: Estimate
    against: Estimate
    difference: Difference

    @property
    def verdict(self) -> Verdict:
        """Of the new agent; a smaller optimality gap is the better one."""
        return verdict(self.difference, lower_is_better=self.name == "Optimality gap")


@dataclass(frozen=True)
class Comparison:
    """A new agent and one that it is compared with, over the tasks that both have.

    Attributes:
        headline: the metric that the answer is about.
        improvement: probability that a run of the new agent is better than one of the other.
        cautions: the gravest first.
    """

    new: Side
    against: Side
    tasks: tuple[TaskRow, ...]
    domains: tuple[ScoreRow, ...]
    aggregates: tuple[ScoreRow, ...]
    headline: str
    improvement: Estimate
    power: Power
    cautions: tuple[Caution, ...]

    @property
    def kind(self) -> ScoreKind:
        """What scores are made of."""
        return self.new.scores.scale.kind

    def metric_words(self, metric: str) -> str:
        """What a metric over all tasks is called."""
        return self.kind.mean if metric == "Mean" else metric

    @property
    def headline_words(self) -> str:
        """What the metric that the answer is about is called."""
        return self.metric_words(self.headline)

    @property
    def answer(self) -> ScoreRow:
        """The headline metric."""
        return next(row for row in self.aggregates if row.name == self.headline)


def verdict(difference: Difference, *, lower_is_better: bool = False) -> Verdict:
    """What a difference says of the new agent."""
    estimate = difference.estimate
    if estimate.value is None or estimate.low is None:
        return "no interval"
    if not difference.resolved:
        return "not resolved"
    return "better" if (estimate.value > 0) != lower_is_better else "worse"


def compare(new: Side, against: Side, ci: CiMethod = "stratified", reps: int = REPS) -> Comparison:
    """Compare two agents over the tasks that both have.

    Args:
        new: the agent that the question is about.
        against: the one it is compared with.
        ci: how runs are resampled.
        reps: repetitions.

    Raises:
        UserError: if they share no task, or their scores mean different things.
    """
    shared = [task for task in new.scores.tasks if task in against.scores.tasks]
    if not shared:
        raise UserError(
            f"{new.label} and {against.label} share no task ({', '.join(new.scores.tasks)} and "
            f"{', '.join(against.scores.tasks)}); choose others with --tasks, or another --against."
        )
    x, y = new.scores.select(shared), against.scores.select(shared)
    if x.tasks != y.tasks or not x.scale.equals(y.scale):
        raise UserError(
            f"{new.label} is of {new.suite} and {against.label} of {against.suite}, which measure different things or "
            "normalise them by different references: their scores cannot be compared."
        )
    of_x, of_y = estimates(x, ci, reps), estimates(y, ci, reps)
    kind = x.scale.kind
    headline = kind.headline if isinstance(x, ScoreMatrix) and isinstance(y, ScoreMatrix) else "Mean"
    return Comparison(
        new=new,
        against=against,
        tasks=tuple(
            TaskRow(task, domain, own, other, _difference(x, y, [task], ci, reps))
            for task, domain, own, other in zip(x.tasks, x.domains, task_means(x), task_means(y), strict=True)
        ),
        domains=tuple(_domain_row(x, y, domain, ci, reps) for domain in dict.fromkeys(x.domains)),
        aggregates=tuple(
            ScoreRow(metric, of_x[metric], of_y[metric], paired_difference(x, y, metric, ci, reps))
            for metric in kind.aggregates
        ),
        headline=headline,
        improvement=probability_of_improvement(x, y, ci, reps),
        power=seeds_needed(x, y, headline, ci, reps),
        cautions=tuple(cautions(new, against)),
    )


def _domain_row(x: Scores, y: Scores, domain: str, ci: CiMethod, reps: int) -> ScoreRow:
    tasks = [task for task, its in zip(x.tasks, x.domains, strict=True) if its == domain]
    means = [estimates(scores.select(tasks), ci, reps)["Mean"] for scores in (x, y)]
    return ScoreRow(domain, means[0], means[1], _difference(x, y, tasks, ci, reps))


def _difference(x: Scores, y: Scores, tasks: Sequence[str], ci: CiMethod, reps: int) -> Difference:
    return paired_difference(x.select(tasks), y.select(tasks), "Mean", ci, reps)
