"""What can be compared, by name: an agent's runs, a frozen or imported baseline, or published scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from urlbench.baselines.catalogue import (
    PREFIX,
    PublishedBaseline,
    aggregates_of,
    comparable,
    find_published,
    fits,
    mean_scores,
    other_sources,
    source_names,
    source_of,
    summary_scores,
)
from urlbench.baselines.frozen import Frozen, FrozenAgent, freeze
from urlbench.baselines.library import FOLDER, find_frozen
from urlbench.core.errors import UserError
from urlbench.core.types import Protocol, Suite
from urlbench.results.cells import collect
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.scores import final_scores
from urlbench.results.selection import EVERYTHING, Selection, registered_suite, wanted_tasks
from urlbench.results.summary_scores import SummaryScores

Kind = Literal["runs", "frozen", "imported", "published"]


@dataclass(frozen=True)
class Side:
    """One agent of a comparison.

    Attributes:
        label: what it is called in tables.
        suite: `name@version` that the scores were measured on.
        pretrained_in: `name@version` of the suite whose protocol was followed; mostly `suite`.
        protocol: the budgets.
        snapshot: of the pretraining that the runs started from, 0 for none; None where it is not known.
        versions: of the packages that are part of a result's identity; empty where they are not known.
        data: fingerprints of the data that was pretrained on, by domain.
        run_ids: of its runs; empty where there are none.
        cautions: sentences that hold whatever it is compared with.
        origin: where the numbers come from, line by line.
    """

    label: str
    kind: Kind
    scores: ScoreMatrix | SummaryScores
    suite: str
    pretrained_in: str
    protocol: Protocol
    snapshot: int | None
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    run_ids: frozenset[str] = frozenset()
    cautions: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()

    @property
    def least_seeds(self) -> int | None:
        """The least number of runs behind a task; None where the source does not say."""
        if isinstance(self.scores, ScoreMatrix):
            return len(self.scores.seeds)
        return int(self.scores.n_seeds.min()) or None


def split_baselines(agents: Sequence[str]) -> tuple[list[str], list[str]]:
    """The agents that have runs, and the baselines, both in their order."""
    runs = [agent for agent in agents if not agent.startswith(PREFIX)]
    return runs, [agent for agent in agents if agent.startswith(PREFIX)]


def sides_of(
    name: str,
    suite: str,
    preset: str = "paper",
    runs: Path = Path("runs"),
    selection: Selection = EVERYTHING,
    folder: Path = FOLDER,
) -> list[Side]:
    """The agents that a name stands for: one, or all agents of a baseline that is named without an agent.

    Args:
        name: of an agent with runs, or `baseline:NAME` or `baseline:NAME/AGENT`.
        suite: `name` or `name@version` of the comparison.
        preset: of the runs.
        runs: folder that `urlbench run` wrote to.
        selection: which runs; its agents are not looked at, its tasks and domains hold for baselines, too.
        folder: of frozen and imported baselines.

    Raises:
        UserError: for unknown names, and what cannot stand beside results of the suite.
        IncompleteError: if the runs are not complete.
    """
    registered = registered_suite(suite)
    if not name.startswith(PREFIX):
        return [_of_runs(name, suite, preset, runs, selection)]
    bare = name.removeprefix(PREFIX)
    if bare.partition("/")[0] in source_names():
        found = find_published(bare)
        sides = [_published(one, registered) for one in ([one for one in found if fits(one, registered)] or found)]
    else:
        frozen, agents = find_frozen(bare, folder)
        _check_suite(frozen, registered)
        sides = [_frozen(frozen, agent) for agent in agents]
    if not (selection.tasks or selection.domains):
        return sides
    chosen = wanted_tasks(registered, [], selection)
    return [replace(side, scores=side.scores.select(chosen)) for side in sides]


def _of_runs(name: str, suite: str, preset: str, runs: Path, selection: Selection) -> Side:
    results = collect(runs, suite, preset, selection.model_copy(update={"agents": (name,)}))
    matrices = final_scores(results)
    if len(matrices) > 1:
        raise UserError(f"{name!r} has runs of several configurations; name one of them: {', '.join(matrices)}.")
    facts = freeze(results, name)
    ((label, matrix),) = matrices.items()
    return _side(label, "runs", matrix, facts, facts.agents[0])


def _frozen(frozen: Frozen, agent: FrozenAgent) -> Side:
    matrix = frozen.matrix(agent)
    kind: Kind = "frozen" if frozen.kind == "runs" else "imported"
    return _side(matrix.agent, kind, matrix, frozen, agent)


def _side(label: str, kind: Kind, matrix: ScoreMatrix, facts: Frozen, agent: FrozenAgent) -> Side:
    cautions = []
    if kind == "imported":
        cautions.append(
            f"made by other code ({facts.origin.get('file')}): no run can be checked; versions and settings are unknown"
        )
    git = sorted({_git(environment.git) for environment in facts.environments})
    if any("uncommitted" in state for state in git):
        cautions.append("made with uncommitted changes of the code")
    command = (agent.command,) if agent.command else ()
    versions = ", ".join(f"{name} {' and '.join(found)}" for name, found in sorted(agent.versions.items()))
    ids = sorted(run.run_id for run in agent.runs if run.run_id)
    return Side(
        label=label,
        kind=kind,
        scores=matrix,
        suite=facts.suite,
        pretrained_in=facts.suite,
        protocol=facts.protocol,
        snapshot=agent.snapshot,
        versions=agent.versions,
        data=agent.data,
        run_ids=frozenset(ids),
        cautions=tuple(cautions),
        origin=(
            *command,
            f"{facts.suite}, preset {facts.preset}, configuration {agent.config_hash or 'unknown'}, "
            f"{len(agent.runs)} {'results of other code' if kind == 'imported' else 'runs'}",
            *([f"versions: {versions}; git {', '.join(git)}"] if versions else []),
            *([f"run ids: {' '.join(ids)}"] if ids else []),
        ),
    )


def _git(state: Mapping[str, object] | None) -> str:
    if not state:
        return "unknown"
    return f"{str(state.get('commit'))[:12]}{' with uncommitted changes' if state.get('dirty') else ''}"


def _check_suite(frozen: Frozen, suite: Suite) -> None:
    """UserError unless the baseline's suite measures what `suite` does, in this version or another one."""
    own = registered_suite(frozen.suite.partition("@")[0])
    if not comparable(own, suite):
        raise UserError(
            f"baseline {frozen.name!r} is of suite {frozen.suite} and cannot stand beside results of "
            f"{suite.full_name!r}; choose one of that suite."
        )


def _published(baseline: PublishedBaseline, suite: Suite) -> Side:
    scores = summary_scores(baseline, suite)
    source = source_of(baseline.source)
    frames = {row.pretrain_frames for row in baseline.scores}
    snapshot = frames.pop() if len(frames) == 1 else None
    assert baseline.suite is not None
    own, protocol = registered_suite(baseline.suite), registered_suite(baseline.protocol or baseline.suite)
    cautions = [
        "summary only: the source gives means, not runs; intervals rest on normal scores around them",
        *_conflicts(baseline),
        *baseline.notes,
        f"reliability: {source.reliability}",
    ]
    return Side(
        label=scores.label,
        kind="published",
        scores=scores,
        suite=own.full_name,
        pretrained_in=protocol.full_name,
        protocol=protocol.protocols[scores.preset],
        # A data set is not pretrained on in frames.
        snapshot=snapshot if protocol.collection is None else None,
        cautions=tuple(cautions),
        origin=(*baseline.tables, source.what, f"{source.where_read} ({source.commit_or_index_id})"),
    )


def _conflicts(baseline: PublishedBaseline) -> list[str]:
    """Where other sources, or another place of the same source, give another mean score."""
    found = []
    others = other_sources(baseline)
    means, shared = mean_scores([baseline, *others])
    if others and means:
        words = ", ".join(f"{mean:.3f} in {name}" for name, mean in means.items())
        found.append(f"sources differ: mean score over {len(shared)} shared tasks {words}")
    own_means, tasks = mean_scores([baseline])
    mean = own_means[baseline.name]
    for aggregate in aggregates_of(baseline.source, baseline.agent):
        own = (aggregate.metric, aggregate.n_tasks, aggregate.suite) == ("mean", str(len(tasks)), baseline.suite)
        if own and abs(float(aggregate.value) - mean) > _READING_ERROR:
            found.append(
                f"the source differs from itself: mean score {mean:.3f} by its table, {aggregate.value} "
                f"{aggregate.value_kind}"
            )
    return found


# Values that were measured on figures are good to about 0.005.
_READING_ERROR = 0.01
