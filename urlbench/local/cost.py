"""What a plan will cost, from finished runs of the same kind on this machine; never guessed."""

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from urlbench.core.errors import UserError
from urlbench.core.jobs import Job
from urlbench.core.types import Phase, Spec
from urlbench.local.executor import JobView
from urlbench.runs.store import RunDirectory, RunStore, read_jsonl

_HOURS = {"cpu": "CPU hours", "gpu": "GPU hours", "mixed": "CPU or GPU hours", None: "hours"}


class Cost(Spec):
    """The jobs of one agent and phase that are still to be run.

    Attributes:
        measured_runs: finished runs that the numbers below come from; they are None if it is 0.
        device: `cpu` or `gpu`, what the finished runs used; `mixed` if both.
        seconds_per_job: median wall-clock time of a finished run, all its attempts together.
        bytes_per_job: median size of a finished run on disk.
    """

    agent: str
    phase: Phase
    jobs: int
    measured_runs: int
    device: Literal["cpu", "gpu", "mixed"] | None
    seconds_per_job: float | None
    bytes_per_job: float | None

    @property
    def hours(self) -> float | None:
        """Hours of one worker for all jobs, one after another."""
        return None if self.seconds_per_job is None else self.jobs * self.seconds_per_job / 3600


class Forecast(Spec):
    """What running the rest of a plan means.

    Attributes:
        waves: for each wave, the labels of its jobs; a wave needs nothing but the waves before it.
        costs: by agent and phase.
        skipped: a line for each job that will not be run, with the reason.
    """

    jobs: int
    waves: tuple[tuple[str, ...], ...]
    costs: tuple[Cost, ...]
    skipped: tuple[str, ...]

    @property
    def total_hours(self) -> float | None:
        """Hours of one worker for everything; None if one kind of job was never measured."""
        hours = [cost.hours for cost in self.costs if cost.hours is not None]
        return sum(hours) if len(hours) == len(self.costs) else None

    @property
    def total_bytes(self) -> float | None:
        """Bytes on disk of everything; None if one kind of job was never measured."""
        sizes = [cost.jobs * cost.bytes_per_job for cost in self.costs if cost.bytes_per_job is not None]
        return sum(sizes) if len(sizes) == len(self.costs) else None


def forecast(root: Path, views: Sequence[JobView]) -> Forecast:
    """The forecast of a plan whose jobs stand as in `views`."""
    waiting = [view.job for view in views if view.state == "waiting"]
    planned = {job.id for job in waiting}
    first = tuple(job.label for job in waiting if job.spec.parent not in planned)
    second = tuple(job.label for job in waiting if job.spec.parent in planned)
    skipped = tuple(
        f"{view.job.label}: {view.state}" + (f", {view.reason}" if view.reason else "")
        for view in views
        if view.state != "waiting"
    )
    return Forecast(
        jobs=len(waiting),
        waves=tuple(wave for wave in (first, second) if wave),
        costs=tuple(_costs(root, waiting)),
        skipped=skipped,
    )


class _Measurement(NamedTuple):
    kind: tuple[str, str, str, Phase]
    seconds: float
    size: int
    device: Literal["cpu", "gpu"]


def _costs(root: Path, waiting: Sequence[Job]) -> list[Cost]:
    wanted: dict[tuple[str, str, str, Phase], list[Job]] = defaultdict(list)
    for job in waiting:
        wanted[_kind(job)].append(job)
    measured: dict[tuple[str, str, str, Phase], list[_Measurement]] = defaultdict(list)
    for directory in RunStore(root).directories():
        measurement = _measure(directory, root)
        if measurement is not None:
            measured[measurement.kind].append(measurement)
    costs = []
    for kind, jobs in wanted.items():
        runs = measured[kind]
        devices = {run.device for run in runs}
        costs.append(
            Cost(
                agent=kind[2],
                phase=kind[3],
                jobs=len(jobs),
                measured_runs=len(runs),
                device="mixed" if len(devices) > 1 else next(iter(devices), None),
                seconds_per_job=statistics.median(run.seconds for run in runs) if runs else None,
                bytes_per_job=statistics.median(run.size for run in runs) if runs else None,
            )
        )
    return costs


def _kind(job: Job) -> tuple[str, str, str, Phase]:
    return job.spec.suite, job.spec.protocol.preset, job.spec.agent, job.spec.phase


def _measure(directory: RunDirectory, root: Path) -> _Measurement | None:
    """What a finished run took; None if it is not finished, or was once killed so that nobody knows."""
    if not directory.done_file.exists():
        return None
    try:
        job, rows = directory.read_job(root), read_jsonl(directory.attempts_file)
        manifest = json.loads(directory.manifest_file.read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError):
        # What is damaged is `urlbench validate`'s to name; here it is only not a measurement.
        return None
    started = [row["started"] for row in rows if "started" in row]
    ended = [row["ended"] for row in rows if row.get("ended") is not None]
    if not ended or len(ended) != len(started):
        return None
    size = sum(file.stat().st_size for file in directory.path.rglob("*") if file.is_file())
    return _Measurement(_kind(job), sum(ended) - sum(started), size, "gpu" if manifest["hardware"]["gpu"] else "cpu")


def format_forecast(forecast: Forecast, workers: int | None) -> str:
    """The text of `urlbench plan`; without a number of workers where a cluster decides that."""
    at_a_time = "" if workers is None else f", {workers} at a time"
    lines = [f"{forecast.jobs} jobs to run in {len(forecast.waves)} waves{at_a_time}"]
    for number, wave in enumerate(forecast.waves, start=1):
        lines.append(f"wave {number}: {len(wave)} jobs")
        lines += [f"  {label}" for label in wave]
    for cost in forecast.costs:
        if cost.hours is None or cost.bytes_per_job is None:
            lines.append(f"cost of {cost.jobs} x {cost.agent} {cost.phase}: unknown, no such run has finished here yet")
        else:
            lines.append(
                f"cost of {cost.jobs} x {cost.agent} {cost.phase}: {_digits(cost.hours)} {_HOURS[cost.device]} and "
                f"{_megabytes(cost.jobs * cost.bytes_per_job)}, from {cost.measured_runs} finished runs"
            )
    if forecast.costs:
        hours, size = forecast.total_hours, forecast.total_bytes
        total = (
            "unknown" if hours is None or size is None else f"{_digits(hours)} hours of a worker and {_megabytes(size)}"
        )
        lines.append(f"total cost: {total}")
    if forecast.skipped:
        lines.append(f"skipped: {len(forecast.skipped)} jobs")
        lines += [f"  {line}" for line in forecast.skipped]
    return "\n".join(lines)


def _digits(hours: float) -> str:
    """Two digits of a small number, whole hours of a large one."""
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.2g}"


def _megabytes(size: float) -> str:
    return f"{math.ceil(size / 2**20):,} MiB"
