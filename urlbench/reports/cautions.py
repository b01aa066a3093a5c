"""What speaks against taking the numbers of a comparison at face value."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from urlbench.core.types import Protocol
from urlbench.reports.sides import Side
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.summary_scores import SummaryScores
from urlbench.runs.plan import format_frames

FEW_SEEDS, SOME_SEEDS = 5, 10


class Caution(NamedTuple):
    """One thing to be careful about.

    Attributes:
        rank: 0 for what makes the comparison unlike for unlike; the higher, the less grave.
        about: label of the agent, or of both.
    """

    rank: int
    about: str
    text: str


def cautions(new: Side, against: Side) -> list[Caution]:
    """All that a reader must know of a comparison, the gravest first."""
    both = f"{new.label}, {against.label}"
    found = [Caution(0, both, text) for text in _mixtures(new, against)]
    for side, other in ((new, against), (against, new)):
        found += [Caution(1, side.label, text) for text in (*_budget(side), *_few_seeds(side), *_gaps(side, other))]
        found += [Caution(rank, side.label, text) for rank, text in enumerate(side.cautions, start=2)]
    return sorted(found, key=lambda caution: caution.rank)


def _mixtures(new: Side, against: Side) -> Iterator[str]:
    """Where the two were not made alike."""
    common = len(new.run_ids & against.run_ids)
    if common:
        yield f"{common} runs are in both: to that part they are compared with themselves"
    sources = [side.scores.source for side in (new, against) if isinstance(side.scores, SummaryScores)]
    if len(set(sources)) == 2:
        yield f"of different sources, {sources[0]} and {sources[1]}: every paper runs its baselines anew"
    budgets = [_budgets(side.protocol) for side in (new, against)]
    if new.protocol.preset != against.protocol.preset:
        yield f"different presets, {new.protocol.preset} and {against.protocol.preset}"
    elif budgets[0] != budgets[1]:
        changed = sorted(key for key, value in budgets[0].items() if budgets[1][key] != value)
        yield f"different protocols: other {', '.join(changed)}"
    if new.suite != against.suite:
        yield f"measured on different suites, {new.suite} and {against.suite}"
    if new.pretrained_in != against.pretrained_in:
        yield f"pretrained differently, as in {new.pretrained_in} and as in {against.pretrained_in}"
    starts = [format_frames(side.snapshot) for side in (new, against) if side.snapshot]
    # An agent that does not pretrain is no other protocol.
    if len(set(starts)) == 2:
        yield f"different amounts of pretraining, {starts[0]} and {starts[1]} {new.protocol.pretrain_unit}"
    if new.versions and against.versions:
        for package in sorted(new.versions.keys() | against.versions.keys()):
            found = [" and ".join(side.versions.get(package, ("none",))) for side in (new, against)]
            if found[0] != found[1]:
                yield f"different versions of {package}, {found[0]} and {found[1]}"
    for domain in sorted(new.data.keys() & against.data.keys()):
        if new.data[domain] != against.data[domain]:
            yield f"pretrained on different data of {domain}"


def _budgets(protocol: Protocol) -> dict[str, object]:
    return protocol.model_dump(exclude={"description", "preset"})


def _budget(side: Side) -> Iterator[str]:
    if side.protocol.reduced:
        yield f"reduced budgets (preset {side.protocol.preset}): not comparable with published scores"


def _few_seeds(side: Side) -> Iterator[str]:
    least = side.least_seeds
    if least is None:
        yield "the number of seeds is not stated on every task"
    elif least < FEW_SEEDS:
        yield f"{least} {'seed' if least == 1 else 'seeds'}, fewer than {FEW_SEEDS}: do not trust the intervals"
    elif least < SOME_SEEDS:
        yield f"{least} seeds, fewer than {SOME_SEEDS}: intervals tend to be too narrow"


def _gaps(side: Side, other: Side) -> Iterator[str]:
    """Where there is less to compare than the other has, or nothing to tell an interval from."""
    absent = [task for task in other.scores.tasks if task not in side.scores.tasks]
    if absent:
        yield f"no score on {', '.join(absent)}: compared over the tasks that both have"
    if isinstance(side.scores, ScoreMatrix):
        alike = np.ptp(side.scores.measured, axis=0) == 0
        tasks = [task for task, same in zip(side.scores.tasks, alike, strict=True) if same]
        if tasks and len(side.scores.seeds) > 1:
            yield f"all runs end alike on {', '.join(tasks)}: without a spread, intervals are too narrow"
    elif np.isnan(side.scores.standard_errors).any():
        yield "the source gives no spread on every task: there is no interval"
