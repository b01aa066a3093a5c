"""The long table of results: one row a value, for other programs."""

from collections.abc import Iterator

from urlbench.core.types import Spec, Suite
from urlbench.results.run_records import RunRecord
from urlbench.results.score_kinds import score_of


class ResultRow(Spec):
    """One value in the long table.

    Attributes:
        goal_set: its number; None in suites without.
        pretrain_frames: frames of pretraining before what was measured; 0 if there was none.
        pretrain_updates: updates of pretraining on a data set; 0 if there was none.
        frames: fine-tuning frames before the evaluation; 0 in a search for goals.
        metric: of the episodes of an evaluation `return`, the mean undiscounted return, and where the suite has them
            `success`, the fraction that succeeded, and `completed`, the mean number of completed sub-tasks; of a search
            `goals_found`, the fraction of the goals that at least one episode found, and `episodes_found`, the fraction
            of all episodes that found theirs; and `score`, what the suite's score makes of it.
        source: the run's eval.jsonl, relative to the runs root.
    """

    suite: str
    suite_version: int
    agent: str
    config_hash: str
    preset: str
    phase: str
    domain: str
    task: str
    goal_set: int | None = None
    seed: int
    pretrain_frames: int
    pretrain_updates: int
    frames: int
    metric: str
    value: float
    n_episodes: int
    run_id: str
    source: str


def rows_of(suite: Suite, run: RunRecord) -> Iterator[ResultRow]:
    """The values of one run of `suite`: every evaluation of a fine-tuning, or what a search for goals found."""
    spec = run.spec
    in_frames = spec.protocol.pretrain_unit == "frames"

    def row(metric: str, value: float, n_episodes: int, frames: int = 0) -> ResultRow:
        return ResultRow(
            suite=suite.name,
            suite_version=suite.version,
            agent=spec.agent,
            config_hash=run.config_hash,
            preset=spec.protocol.preset,
            phase=spec.phase,
            domain=spec.domain,
            task=spec.task,
            goal_set=spec.goal_set,
            seed=spec.seed,
            pretrain_frames=spec.snapshot if in_frames else 0,
            pretrain_updates=0 if in_frames else spec.snapshot,
            frames=frames,
            metric=metric,
            value=value,
            n_episodes=n_episodes,
            run_id=run.id,
            source=f"{run.path}/eval.jsonl",
        )

    for evaluation in run.evaluations:
        for metric, mean in evaluation.means.items():
            yield row(metric, mean, evaluation.n_episodes, evaluation.frame)
        yield row("score", score_of(suite, run, evaluation.frame), evaluation.n_episodes, evaluation.frame)
    if run.searches:
        yield row("goals_found", run.goals_found / len(run.searches), run.n_episodes)
        yield row("episodes_found", run.episodes_found / run.n_episodes, run.n_episodes)
        yield row("score", score_of(suite, run, 0), run.n_episodes)
