"""Which runs of a report there are: a mark for each task and seed of each agent."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from urlbench.reports.figures import Canvas, name_rows, row_height, shown, wrapped
from urlbench.results.cells import Results
from urlbench.results.selection import Cell

# Told apart by shape as well as by colour.
_STATES: dict[str, dict[str, Any]] = {
    "done": {"marker": "s", "color": "#0072B2"},
    "running": {"marker": ">", "color": "#E69F00"},
    "queued": {"marker": "o", "color": "#E69F00", "markerfacecolor": "white"},
    "stopped": {"marker": "D", "color": "#CC79A7"},
    "failed": {"marker": "X", "color": "#D55E00"},
    "damaged": {"marker": "v", "color": "#882255"},
    "missing": {"marker": "s", "color": "#9A9A9A", "markerfacecolor": "white"},
}
_SIDE = 0.12
_MOST_COLUMNS = 4
_MOST_PANELS = 24


def completeness_figure(results: Results, title: str, foot: Sequence[str]) -> Figure:
    """A panel for each agent, a row for each task (with its goal set), a column for each seed.

    Of many agents it is one panel with a row for each agent and a column for each task: the share of seeds.
    """
    if len(results.agents) > _MOST_PANELS:
        return _shares_figure(results, title, foot)
    rows = list(dict.fromkeys((cell.task, cell.goal_set) for cell in results.expected()))
    names = [task if goal_set is None else f"{task}, set {goal_set}" for task, goal_set in rows]
    panels, n_seeds = len(results.agents), len(results.seeds)
    longest = max(len(line) for agent in results.agents for line in wrapped(agent.label).split("\n"))
    side = max(_SIDE * n_seeds + 0.2, 0.058 * (longest + 8))
    columns = max(1, min(_MOST_COLUMNS, panels, int(5.7 / side)))
    grid_rows = -(-panels // columns)
    canvas = Canvas.of(grid_rows * (0.45 + _SIDE * len(rows)) + 0.35, title, foot)
    totals: dict[str, int] = defaultdict(int)
    for number, (axes, agent) in enumerate(zip(canvas.grid(grid_rows, columns, panels), results.agents, strict=True)):
        places: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for row, (task, goal_set) in enumerate(rows):
            for column, seed in enumerate(results.seeds):
                if goal_set in results.goal_sets_of(seed):
                    places[state_of(results, Cell(agent.label, task, seed, goal_set))].append((column, row))
        for state, found in places.items():
            axes.plot(*zip(*found, strict=True), linestyle="none", markersize=5, **_STATES[state])
            totals[state] += len(found)
        n_expected = sum(map(len, places.values()))
        axes.set_title(f"{wrapped(agent.label)} {len(places['done'])}/{n_expected}", fontsize=7)
        _dress(axes, results.seeds, names, with_names=number % columns == 0)
    canvas = canvas.with_key(
        [Line2D([], [], linestyle="none", markersize=5, **style) for state, style in _STATES.items() if totals[state]],
        [f"{state} ({totals[state]})" for state in _STATES if totals[state]],
    )
    return canvas.finished("seed")


def _shares_figure(results: Results, title: str, foot: Sequence[str]) -> Figure:
    """A row for each agent, a column for each task: how many of the runs expected there are."""
    agents, tasks = [agent.label for agent in results.agents], list(results.tasks)
    done, expected = np.zeros((2, len(agents), len(tasks)))
    for cell in results.expected():
        place = agents.index(cell.agent), tasks.index(cell.task)
        expected[place] += 1
        done[place] += state_of(results, cell) == "done"
    canvas = Canvas.of(1.2 + row_height(agents) * len(agents), title, foot)
    (axes,) = canvas.grid(1, 1, 1)
    axes.pcolormesh(
        np.arange(len(tasks) + 1) - 0.5,
        np.arange(len(agents) + 1) - 0.5,
        done / expected,
        cmap="Blues",
        vmin=0,
        vmax=1.4,
    )
    for row, column in np.argwhere(done < expected):
        text = f"{done[row, column]:.0f}/{expected[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=5)
    name_rows(axes, agents, with_names=True)
    axes.set_xlim(-0.5, len(tasks) - 0.5)
    axes.set_xticks(range(len(tasks)), [shown(task) for task in tasks], rotation=40, ha="right", fontsize=6)
    return canvas.finished()


def state_of(results: Results, cell: Cell) -> str:
    """How the run of a cell stands, in the words of the figure."""
    runs = results.cells.get(cell, [])
    if not runs:
        return "missing"
    if len(runs) > 1 or runs[0].faults:
        return "damaged"
    state = runs[0].status.state
    return "stopped" if state in ("stale", "interrupted") else state


def _dress(axes: Axes, seeds: Sequence[int], names: Sequence[str], *, with_names: bool) -> None:
    axes.set_aspect("equal", anchor="N")
    axes.set_xlim(-0.6, len(seeds) - 0.4)
    axes.set_ylim(len(names) - 0.4, -0.6)
    every = -(-len(seeds) // 12)
    axes.set_xticks(range(0, len(seeds), every), [str(seed) for seed in seeds[::every]], fontsize=5.5)
    axes.set_yticks(range(len(names)), [shown(name) for name in names] if with_names else [""] * len(names), fontsize=6)
    axes.tick_params(length=0, pad=1.5)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
