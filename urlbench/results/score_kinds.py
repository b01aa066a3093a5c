"""What scores are made of: one entry for each value of `Suite.score`, and nothing else asks which one a suite has."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol as TypingProtocol

import numpy as np
import numpy.typing as npt

from urlbench.core.types import Normaliser, Protocol, Score, Suite
from urlbench.results.problems import Fault
from urlbench.results.run_records import RunRecord

Floats = npt.NDArray[np.float64]
WITH_FLOORS = "Score = (return − floor) / (reference − floor)."


class Scored(TypingProtocol):
    """What says how something is scored: a suite, or a frozen baseline."""

    @property
    def score(self) -> Score:
        """See `Suite`."""

    @property
    def normaliser(self) -> Normaliser | None:
        """See `Suite`."""

    @property
    def subtasks(self) -> int | None:
        """See `Suite`."""


@dataclass(frozen=True)
class ScoreKind:
    """One thing that scores are made of, and what people call it.

    Attributes:
        metric: what is measured, as evaluations, frozen baselines and CSV files of other code call it.
        measured: the same in a report.
        of_task: what is measured on one task, as the first words of a sentence.
        score: what a score is called.
        short: the same where it is clear what is normalised.
        formula: how a score follows from what is measured, as a sentence, with `whole` for the reference of all tasks;
            `WITH_FLOORS` where there are floors.
        by_task: each task has a reference of its own, which tables show.
        decimals: of what is measured, in tables.
        aggregates: the metrics over all tasks that comparisons show.
        headline: the one that the answer is about, where runs are known; else it is the mean.
        mean: what the mean over all tasks is called in an answer.
        largest: what can be measured at the most on one task; None for no limit, and then there is none below, either.
        of_other_code: what a row of other code gives, and only whole numbers of it if `is_count`.
        resampled: intervals come from resampling runs; otherwise goals and episodes are counted.
        of_runs: what the runs of one seed on one task measured after so many fine-tuning frames.
    """

    name: Score
    metric: str
    measured: str
    of_task: str
    score: str
    short: str
    formula: str
    by_task: bool
    decimals: int
    aggregates: tuple[str, ...]
    headline: str
    mean: str
    largest: Callable[[Scored, Protocol], int | None]
    of_other_code: str
    is_count: bool
    resampled: bool
    of_runs: Callable[[Sequence[RunRecord], int], float]


def _mean_of(metric: str) -> Callable[[Sequence[RunRecord], int], float]:
    def of_runs(runs: Sequence[RunRecord], frame: int) -> float:
        (run,) = runs
        return run.evaluation_at(frame).means[metric]

    return of_runs


def _goals_found(runs: Sequence[RunRecord], frame: int) -> float:
    """All searches of a seed together: its goal sets are searched by the same pretrained agent."""
    return fraction_found((run.goals_found, len(run.searches)) for run in runs)


def fraction_found(counts: Iterable[tuple[int, int]]) -> float:
    """Goals found of goals looked for, over all searches of one seed on one task."""
    found, goals = map(sum, zip(*counts, strict=True))
    return found / goals


def _goals(scored: Scored, protocol: Protocol) -> int:
    assert protocol.search is not None, "goals are found by a search"
    return protocol.search.goals


_RESAMPLED = ("IQM", "Median", "Mean", "Optimality gap")
KINDS: Mapping[Score, ScoreKind] = {
    kind.name: kind
    for kind in (
        ScoreKind(
            name="normalised_return",
            metric="return",
            measured="return",
            of_task="Mean undiscounted return",
            score="normalised score",
            short="score",
            formula="Score = return / reference.",
            by_task=True,
            decimals=1,
            aggregates=_RESAMPLED,
            headline="IQM",
            mean="Mean",
            largest=lambda scored, protocol: None,
            of_other_code="return",
            is_count=False,
            resampled=True,
            of_runs=_mean_of("return"),
        ),
        ScoreKind(
            name="success_rate",
            metric="success",
            measured="success rate",
            of_task="Fraction of successful episodes",
            score="success rate",
            short="success rate",
            formula="Score = fraction of the evaluation's episodes that succeed.",
            by_task=False,
            decimals=3,
            aggregates=_RESAMPLED,
            headline="Mean",
            mean="success rate",
            largest=lambda scored, protocol: 1,
            of_other_code="mean success rate",
            is_count=False,
            resampled=True,
            of_runs=_mean_of("success"),
        ),
        ScoreKind(
            name="subtasks",
            metric="completed",
            measured="completed sub-tasks",
            of_task="Mean number of completed sub-tasks",
            score="fraction of sub-tasks",
            short="fraction of sub-tasks",
            formula="Score = mean number of completed sub-tasks / {whole:g}.",
            by_task=False,
            decimals=2,
            aggregates=_RESAMPLED,
            headline="Mean",
            mean="fraction of sub-tasks",
            largest=lambda scored, protocol: scored.subtasks,
            of_other_code="mean number of completed sub-tasks",
            is_count=False,
            resampled=True,
            of_runs=_mean_of("completed"),
        ),
        ScoreKind(
            name="goals_found",
            metric="found",
            measured="fraction of goals found",
            of_task="Fraction of goals found",
            score="fraction of goals found",
            short="fraction of goals found",
            formula="Score = fraction of goals found.",
            by_task=False,
            decimals=3,
            aggregates=("Mean",),
            headline="Mean",
            mean="fraction of goals found",
            largest=_goals,
            of_other_code="number of goals found",
            is_count=True,
            resampled=False,
            of_runs=_goals_found,
        ),
    )
}


def kind_of(scored: Scored) -> ScoreKind:
    """What the scores of a suite, or of a frozen baseline, are made of."""
    return KINDS[scored.score]


@dataclass(frozen=True)
class Scale:
    """How scores on each task follow from what was measured: (measured - floor) / (reference - floor).

    Attributes:
        kind: what was measured.
        floors: what scores 0, [tasks].
        references: what scores 1, [tasks].
    """

    kind: ScoreKind
    floors: Floats
    references: Floats

    def scores(self, measured: Floats) -> Floats:
        """The scores [..., tasks] of what was measured [..., tasks]."""
        return (measured - self.floors) / (self.references - self.floors)

    def errors(self, standard_errors: Floats) -> Floats:
        """Standard errors of scores [tasks], from those of what was measured [tasks]."""
        return standard_errors / (self.references - self.floors)

    @property
    def formula(self) -> str:
        """How a score follows from what is measured, as a sentence."""
        return WITH_FLOORS if self.floors.any() else self.kind.formula.format(whole=self.references.max())

    @property
    def ends(self) -> dict[str, Floats]:
        """What tables show beside the tasks: what scores 0, if that is not 0, and what scores 1; [tasks] each."""
        if not self.kind.by_task:
            return {}
        return ({"floor": self.floors} if self.floors.any() else {}) | {"reference": self.references}

    def select(self, places: Sequence[int]) -> "Scale":
        """The tasks at these places."""
        keep = list(places)
        return Scale(self.kind, self.floors[keep], self.references[keep])

    def equals(self, other: "Scale") -> bool:
        """Whether scores of both mean the same."""
        return self.kind == other.kind and all(
            np.array_equal(own, its) for own, its in ((self.floors, other.floors), (self.references, other.references))
        )


def scale_of(scored: Scored, tasks: Sequence[str]) -> Scale:
    """The scale of these tasks of a suite, or of a frozen baseline."""
    normaliser = scored.normaliser
    if normaliser is None:
        # A fraction is a score already.
        whole = float(scored.subtasks or 1)
        return Scale(kind_of(scored), np.zeros(len(tasks)), np.full(len(tasks), whole))
    floors = np.array([normaliser.floors.get(task, 0.0) for task in tasks])
    return Scale(kind_of(scored), floors, np.array([normaliser.references[task] for task in tasks]))


def score_of(suite: Suite, run: RunRecord, frame: int) -> float:
    """The score of one run after `frame` fine-tuning frames; of a search the frames do not matter."""
    return float(scale_of(suite, [run.spec.task]).scores(np.array([kind_of(suite).of_runs([run], frame)]))[0])


def score_faults(suite: Suite, run: RunRecord) -> Iterator[Fault]:
    """What a run's evaluations lack for the score of its suite, or have too much of."""
    kind = kind_of(suite)
    for evaluation in run.evaluations:
        where = f"{run.path}/eval.jsonl (frame {evaluation.frame})"
        if kind.metric not in evaluation.episodes:
            yield "outcome", f"{where} does not say {kind.metric!r} of its episodes, which {suite.full_name} scores"
        elif suite.subtasks is not None and max(evaluation.episodes["completed"]) > suite.subtasks:
            most = max(evaluation.episodes["completed"])
            yield "outcome", f"{where} holds an episode with {most:g} of {suite.subtasks} sub-tasks completed"
