"""The report of a suite that looks for goals: fractions found with Wilson intervals, never normalised, never an IQM."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.figure import Figure

from urlbench.reports import search_tables
from urlbench.reports.document import Report
from urlbench.reports.frame import Frame
from urlbench.reports.origins import origins_of
from urlbench.reports.proportions import Count, episodes, fractions, goals, pooled
from urlbench.reports.provenance import provenance
from urlbench.reports.search_figures import Bar, Panel, found_figure
from urlbench.reports.search_tables import Group, ceiling_of, groups_of, rules_of, runs_of
from urlbench.reports.tables import Table
from urlbench.results.cells import Results
from urlbench.results.validation import check


def assemble(results: Results, command: str, *, allow_partial: bool) -> Report:
    """The report of a suite whose measured phase is a search for goals.

    Args:
        results: what to report.
        command: the command line that makes the same report.
        allow_partial: report what there is.

    Raises:
        IncompleteError: as `validation.check` does.
    """
    check(results, allow_partial=allow_partial)
    groups = groups_of(results)
    one_goal = rules_of(results).goals == 1
    by_episode = search_tables.episodes_table(results, groups)
    shown: dict[str, tuple[Table, Count, str]] = {}
    long_tables: tuple[Table, ...] = ()
    if one_goal:
        by_goal = search_tables.runs_table(results, groups)
        tables: tuple[Table, ...] = (by_goal, by_episode)
        shown["runs"] = by_goal, goals, "fraction of runs that found the goal"
    else:
        by_goal = search_tables.goals_table(results, groups)
        tables = (by_goal, search_tables.sets_table(results, groups), by_episode)
        long_tables = (search_tables.not_found_table(results, groups),)
        shown["goals"] = by_goal, goals, "fraction of goals found"
    shown["episodes"] = by_episode, episodes, "fraction of episodes that found their goal"
    frame, origin = Frame.of(results), provenance(results, command)
    figures: Mapping[str, tuple[str, Callable[[], Figure]]] = {
        name: (
            f"{table.title} — {frame.name}",
            partial(
                found_figure,
                panels(results, groups, count),
                frame.titled(table.title),
                [*_figure_notes(results, groups, name), origin.short],
                x_label,
            ),
        )
        for name, (table, count, x_label) in shown.items()
    }
    return Report(
        frame=frame,
        tables=tables,
        long_tables=long_tables,
        figures=figures,
        provenance=origin,
        origins=origins_of(results),
    )


def panels(results: Results, groups: Sequence[Group], count: Count) -> list[Panel]:
    """A panel for each group and, of several, one for all of them together."""
    labels = [agent.label for agent in results.agents]
    # The only goal of a run is found or not: a dot for each run would say nothing.
    dots = count is not goals or rules_of(results).goals > 1

    def panel(title: str, together: Sequence[Group], *, with_intervals: bool = True) -> Panel:
        bars = []
        for label in labels:
            runs = runs_of(together, label)
            values = tuple(fractions(runs, count)) if dots and len(runs) > 1 else ()
            bars.append(Bar(label, pooled(runs, count), values))
        ceilings = {ceiling_of(together, label) for label in labels if runs_of(together, label)}
        ceiling = ceilings.pop() if len(ceilings) == 1 else None
        return Panel(title, tuple(bars), with_intervals, ceiling[0] / ceiling[1] if ceiling else None)

    shown = [panel(_title(results, group), [group]) for group in groups]
    if len(groups) > 1:
        what = "all goal sets" if results.suite.goal_sets is not None and len(results.tasks) == 1 else "all tasks"
        shown.append(panel(what, groups, with_intervals=dots))
    return shown


def _title(results: Results, group: Group) -> str:
    if group.goal_set is None:
        return group.task
    return f"goal set {group.goal_set}" if len(results.tasks) == 1 else f"{group.task}, set {group.goal_set}"


def _figure_notes(results: Results, groups: Sequence[Group], name: str) -> list[str]:
    what = {"runs": search_tables.RUNS_NOTE, "goals": search_tables.GOALS_NOTE, "episodes": search_tables.EPISODES_NOTE}
    notes = [what[name].replace("Brackets", "Black lines")]
    if name != "runs":
        notes.append("Dots: single runs, where a bar is of several.")
    if results.suite.goal_sets is not None:
        notes.append(search_tables.set_note(results))
    if any(group.reachable is not None for group in groups):
        notes.append("Dashed lines: goals within reach.")
    return [" ".join([*notes, search_tables.search_note(results)])]
