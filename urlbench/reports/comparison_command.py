"""What `urlbench compare` does: finds the agents by the names a user writes, and compares them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from urlbench.baselines.library import FOLDER
from urlbench.core.errors import UserError
from urlbench.core.types import Suite
from urlbench.reports.comparison import Comparison, compare
from urlbench.reports.provenance import report_command
from urlbench.reports.sides import Side, sides_of
from urlbench.results.selection import EVERYTHING, Selection, registered_suite
from urlbench.statistics.estimates import REPS
from urlbench.statistics.resampling import CiMethod


def compare_all(
    new: str,
    against: Sequence[str],
    suite: str,
    preset: str = "paper",
    runs: Path = Path("runs"),
    selection: Selection = EVERYTHING,
    folder: Path = FOLDER,
    *,
    ci: CiMethod = "stratified",
    reps: int | None = None,
    plugins: Sequence[str] = (),
) -> tuple[list[Comparison], Suite, str]:
    """Compare one agent with each of others.

    Args:
        new: an agent with runs, or `baseline:NAME/AGENT`.
        against: at least one agent with runs, `baseline:NAME` for all its agents, or `baseline:NAME/AGENT`.
        suite: `name` or `name@version`.
        preset: of the runs.
        runs: folder that `urlbench run` wrote to.
        selection: which runs, tasks and domains.
        folder: of frozen and imported baselines.
        ci: how runs are resampled.
        reps: repetitions; default 50,000.
        plugins: files or modules that have registered suites or agents, which the command line names.

    Returns:
        The comparisons in the order of `against`, the suite, and the command line that makes them again.

    Raises:
        UserError: for unknown names, several agents as `new`, and what cannot be compared.
        IncompleteError: if runs are missing or damaged.
    """

    def found(name: str) -> list[Side]:
        return sides_of(name, suite, preset, runs, selection, folder)

    news = found(new)
    if len(news) > 1:
        raise UserError(
            f"{new!r} has {len(news)} agents, and one can be compared at a time; choose one of: "
            f"{', '.join(side.label for side in news)}."
        )
    others: dict[str, Side] = {}
    for name in against:
        others |= {side.label: side for side in found(name) if name.partition("/")[2] or side.label != news[0].label}
    if not others:
        raise UserError(f"there is nobody to compare {new!r} with; name others with --against.")
    # The words for the results are those of a report.
    words = ["urlbench", "compare", new, *report_command(runs, suite, preset, selection, plugins=plugins)[2:]]
    words += [word for name in against for word in ("--against", name)]
    words += [] if folder == FOLDER else ["--baselines", str(folder)]
    words += ["--ci", ci, "--reps", str(reps or REPS)]
    comparisons = [compare(news[0], side, ci, reps or REPS) for side in others.values()]
    return comparisons, registered_suite(suite), shlex.join(words)
