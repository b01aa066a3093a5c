"""Which runs a single number of a report is made of, and what is known of each of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from urlbench.results.cells import Results
from urlbench.results.run_records import RunRecord
from urlbench.results.validation import Commands


@dataclass(frozen=True)
class Source:
    """The runs behind one cell of a table: those of all these agents on all these tasks.

    Attributes:
        agents: labels; several where agents are compared.
        tasks: in the suite's order.
        goal_set: None in suites without, and for all of them together.
        frame: fine-tuning frames before the evaluation that counts; None for the final one.
    """

    agents: tuple[str, ...]
    tasks: tuple[str, ...]
    goal_set: int | None = None
    frame: int | None = None


@dataclass(frozen=True)
class Origin:
    """One run that counts in a report.

    Attributes:
        agent: its label.
        values: what was measured at the end, by name; numbers, or counts such as `31/50`.
        curve: mean return by fine-tuning frames before the evaluation; empty in suites that do not fine-tune.
        run: the record; its path is relative to the folder of all runs.
    """

    agent: str
    values: Mapping[str, float | str]
    curve: Mapping[int, float]
    run: RunRecord


@dataclass(frozen=True)
class Origins:
    """What is known of the runs of a report.

    Attributes:
        domains: of each task, in the suite's order.
        commands: that make the runs, by agent label; agents without runs have none.
        runs: in the order of their cells.
    """

    domains: Mapping[str, str]
    commands: Mapping[str, str]
    runs: tuple[Origin, ...]


def origins_of(results: Results) -> Origins:
    """The runs that count in `results`."""
    # Without overrides: looking them up imports torch, and a report is made without it.
    commands = Commands(results, overrides=False)
    found = ((cell.agent, results.run(*cell)) for cell in results.expected())
    return Origins(
        domains={task: results.suite.task(task).domain for task in results.tasks},
        commands={
            agent.label: commands.run(agent, results.tasks, results.seeds)
            for agent in results.agents
            if agent.config_hash is not None
        },
        runs=tuple(_origin(results, agent, run) for agent, run in found if run is not None),
    )


def _origin(results: Results, agent: str, run: RunRecord) -> Origin:
    normaliser = results.suite.normaliser
    if normaliser is None:
        found: Mapping[str, float | str] = {
            "goals found": f"{run.goals_found}/{len(run.searches)}",
            "episodes found": f"{run.episodes_found}/{run.n_episodes}",
        }
        return Origin(agent, found, {}, run)
    final = run.evaluations[-1].mean
    reference = normaliser.references[run.spec.task]
    curve = {evaluation.frame: evaluation.mean for evaluation in run.evaluations}
    return Origin(agent, {"return": final, "score": final / reference}, curve, run)
