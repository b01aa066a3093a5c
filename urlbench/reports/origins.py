"""What a single number of a report is made of: runs, or the scores of a baseline; and what is known of each of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from urlbench.core.types import Suite
from urlbench.reports.report_baselines import Baseline
from urlbench.results.cells import Results
from urlbench.results.commands import Commands
from urlbench.results.run_records import RunRecord
from urlbench.results.score_kinds import kind_of, score_of
from urlbench.results.score_matrix import ScoreMatrix


@dataclass(frozen=True)
class Source:
    """What is behind one cell of a table: all that there is of all these agents on all these tasks.

    Attributes:
        agents: labels, of baselines too; several where agents are compared.
        tasks: in the suite's order.
        goal_set: None in suites without, and for all of them together.
        frame: fine-tuning frames before the evaluation that counts; None for the final one.
        snapshot: of the pretraining that the runs started from; None for that of the report.
    """

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    goal_set: int | None = None
    frame: int | None = None
    snapshot: int | None = None


@dataclass(frozen=True)
class Origin:
    """One run that counts in a report, or one score of a baseline.

    Attributes:
        agent: its label.
        snapshot: of the pretraining that it started from; None for what belongs to every snapshot.
        seeds: one for a run; for a published mean the number of seeds, or 0 if its source does not state it.
        values: what was measured at the end, by name; numbers, or texts such as `31/50` and `603 ± 12`.
        curve: what was measured by fine-tuning frames before the evaluation; empty where it is not known.
        run: the record, whose path is relative to the folder of all runs; None for a baseline.
    """

    agent: str
    task: str
    goal_set: int | None
    snapshot: int | None
    seed: int | None
    seeds: int
    values: Mapping[str, float | str]
    curve: Mapping[int, float]
    run: RunRecord | None


@dataclass(frozen=True)
class Origins:
    """All that the numbers of a report are made of.

    Attributes:
        domains: of each task, in the suite's order.
        commands: that make the runs, by agent label; agents without runs have none.
        baselines: where each comes from, by label.
        snapshot: that the runs of the report started from; None without runs.
        scores: runs in the order of their cells, those of other snapshots, baselines.
    """

    domains: Mapping[str, str]
    commands: Mapping[str, str]
    baselines: Mapping[str, str]
    snapshot: int | None
    scores: tuple[Origin, ...]


def origins_of(
    results: Results, baselines: Mapping[str, Baseline] | None = None, snapshots: Iterable[Results] = ()
) -> Origins:
    """All that the numbers of a report of runs are made of.

    Args:
        results: of the report.
        baselines: beside them, by the label that the report shows.
        snapshots: the same runs and those that started from other snapshots.
    """
    # Without overrides: looking them up imports torch, and a report is made without it.
    commands = Commands(results, overrides=False)
    others = [one for one in snapshots if one.snapshot != results.snapshot]
    runs = [*_runs(results), *(origin for one in others for origin in _runs(one) if origin.snapshot is not None)]
    of_baselines = baseline_origins(results.suite, results.tasks, baselines or {})
    return Origins(
        domains=of_baselines.domains,
        commands={
            agent.label: commands.run(agent, results.tasks, results.seeds)
            for agent in results.agents
            if agent.config_hash is not None
        },
        baselines=of_baselines.baselines,
        snapshot=results.snapshot,
        scores=(*runs, *of_baselines.scores),
    )


def baseline_origins(suite: Suite, tasks: Sequence[str], baselines: Mapping[str, Baseline]) -> Origins:
    """The scores of baselines, by the label that the report shows, on `tasks`."""
    return Origins(
        domains={task: suite.task(task).domain for task in tasks},
        commands={},
        baselines={label: "; ".join(_words(baseline)) for label, baseline in baselines.items()},
        snapshot=None,
        scores=tuple(score for label, baseline in baselines.items() for score in _baseline_scores(label, baseline)),
    )


def _words(baseline: Baseline) -> list[str]:
    """Where a baseline comes from, and what keeps it apart."""
    return list(dict.fromkeys((*baseline.side.origin, *([baseline.remark] if baseline.remark else []))))


def _runs(results: Results) -> Iterator[Origin]:
    for cell in results.expected():
        run = results.run(*cell)
        if run is not None:
            yield _run_origin(results, cell.agent, run)


def _run_origin(results: Results, agent: str, run: RunRecord) -> Origin:
    spec, kind = run.spec, kind_of(results.suite)
    curve: Mapping[int, float] = {}
    if not kind.resampled:
        values: Mapping[str, float | str] = {
            "goals found": f"{run.goals_found}/{len(run.searches)}",
            "episodes found": f"{run.episodes_found}/{run.n_episodes}",
        }
    else:
        curve = {evaluation.frame: kind.of_runs([run], evaluation.frame) for evaluation in run.evaluations}
        last = run.evaluations[-1].frame
        values = {kind.measured: curve[last], kind.short: score_of(results.suite, run, last)}
    return Origin(agent, spec.task, spec.goal_set, spec.snapshot or None, spec.seed, 1, values, curve, run)


def _baseline_scores(label: str, baseline: Baseline) -> Iterator[Origin]:
    scores, kind = baseline.scores, baseline.scores.scale.kind
    for column, task in enumerate(scores.tasks):
        if isinstance(scores, ScoreMatrix):
            columns = scores.measured[:, column].tolist(), scores.scores[:, column].tolist()
            for seed, value, score in zip(scores.seeds, *columns, strict=True):
                if not np.isnan(value):
                    values = {kind.measured: value, kind.short: score}
                    yield Origin(label, task, None, None, seed, 1, values, {}, None)
            continue
        mean, error = float(scores.means[column]), float(scores.standard_errors[column])
        if not np.isnan(mean):
            text = f"{mean:g}" + ("" if np.isnan(error) else f" ± {error:.3g}")
            published: Mapping[str, float | str] = {kind.measured: text, kind.short: float(scores.scores[column])}
            yield Origin(label, task, None, None, None, int(scores.n_seeds[column]), published, {}, None)
