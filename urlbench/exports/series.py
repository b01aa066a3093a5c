"""What each run measured over time, as programs that track runs show it."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from urlbench.core.durable import read_jsonl
from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json
from urlbench.results.cells import Results
from urlbench.results.run_records import RunRecord
from urlbench.results.score_kinds import score_of
from urlbench.runs.store import RunDirectory

_STEPS = ("frame", "updates")


@dataclass(frozen=True)
class Series:
    """One run over time.

    Attributes:
        steps: values by name at each step, ascending: frames, or updates of a pretraining on a data set. Names begin
            with `evaluation/` or `train/`.
    """

    run: RunRecord
    steps: tuple[tuple[int, Mapping[str, float]], ...]

    @property
    def settings(self) -> dict[str, Any]:
        """The specification of the run and what it ran on, as plain JSON values."""
        about = {"id": self.run.id, "finished": self.run.finished, "manifest": dict(self.run.manifest)}
        settings: dict[str, Any] = json.loads(canonical_json(self.run.spec.model_dump(mode="json") | about))
        return settings


def series_of(results: Results) -> Iterator[Series]:
    """The runs that count, and before them the pretrainings that they started from, by path."""
    runs = results.usable_runs()
    used = {run.spec.parent for run in runs}
    pretrainings = [run for run in results.pretrainings.values() if run.id in used and run.usable]
    for run in (*sorted(pretrainings, key=lambda run: run.path), *runs):
        yield _series(results, run)


def _series(results: Results, run: RunRecord) -> Series:
    steps: dict[int, dict[str, float]] = defaultdict(dict)
    file = RunDirectory(results.root / run.path).train_file
    for number, row in enumerate(read_jsonl(file), start=1):
        unit = next((name for name in _STEPS if name in row), None)
        if unit is None:
            raise UserError(f"{file} line {number} says neither frame nor updates; restore it or remove the run.")
        values = {f"train/{name}": value for name, value in row.items() if name != unit}
        steps[int(row[unit])].update(values)
    for evaluation in run.evaluations:
        steps[evaluation.frame] |= {f"evaluation/{metric}": mean for metric, mean in evaluation.means.items()}
        steps[evaluation.frame]["evaluation/score"] = score_of(results.suite, run, evaluation.frame)
    if run.searches:
        steps[0]["evaluation/goals_found"] = run.goals_found / len(run.searches)
        steps[0]["evaluation/episodes_found"] = run.episodes_found / run.n_episodes
        steps[0]["evaluation/score"] = score_of(results.suite, run, 0)
    return Series(run, tuple(sorted(steps.items())))
