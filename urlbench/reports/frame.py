"""What surrounds every table and figure of a report: its name, its scope and its marks."""

from collections.abc import Sequence
from dataclasses import dataclass

from urlbench.core.types import Suite
from urlbench.results.cells import Results
from urlbench.results.commands import number_words, seeds_flag
from urlbench.results.validation import elsewhere_words


@dataclass(frozen=True)
class Frame:
    """The words that all parts of a report share.

    Attributes:
        name: of the suite, the preset and goal sets that were chosen.
        stem: the same at the end of every file name.
        scope: how much was reported, and what was left out.
        marks: what every table and figure says about reduced budgets and gaps.
    """

    name: str
    stem: str
    scope: str
    marks: tuple[str, ...]

    @staticmethod
    def of_baselines(suite: Suite, preset: str, tasks: Sequence[str], n_baselines: int, source: str) -> "Frame":
        """The frame of a report without runs, of baselines of one `source` or, if that is empty, of several."""
        part = "" if len(tasks) == len(suite.tasks) else f", {len(tasks)} of {len(suite.tasks)} tasks"
        return Frame(
            name=f"{source or 'baselines'}, {suite.full_name}, preset {preset}{part}",
            stem=f"{suite.full_name}-{preset}-{source or 'baselines'}",
            scope=(
                f"{n_baselines} stored {'baseline' if n_baselines == 1 else 'baselines'}, {len(tasks)} of the suite's "
                f"{len(suite.tasks)} tasks; no runs."
            ),
            marks=(),
        )

    @staticmethod
    def of(results: Results, baselines: Sequence[str] = ()) -> "Frame":
        """The frame of a report of `results`, with the labels of `baselines` beside them."""
        suite, preset = results.suite, results.preset
        n_usable, n_expected = results.n_usable, results.n_expected
        marks = []
        if suite.protocols[preset].reduced:
            marks.append(f"REDUCED BUDGET: preset {preset} — not comparable with published numbers")
        if n_usable < n_expected:
            marks.append(f"PARTIAL {n_usable}/{n_expected} runs")
        scope = (
            f"{_number(results.agents, 'agent')}, {len(results.tasks)} of the suite's {len(suite.tasks)} tasks, "
            f"{_number(results.seeds, 'seed')}: {n_usable} runs."
        )
        if baselines:
            scope += f" Beside them {_number(baselines, 'stored baseline')}."
        if results.elsewhere:
            scope += f" {elsewhere_words(results)}."
        name, stem = f"{suite.full_name}, preset {preset}", f"{suite.full_name}-{preset}"
        if results.goal_sets is not None:
            name += f", goal sets {number_words(results.goal_sets)} for every seed"
            stem += f"-goal-sets-{seeds_flag(results.goal_sets)}"
        return Frame(
            name=name,
            stem=stem + ("-partial" if n_usable < n_expected else ""),
            scope=scope,
            marks=tuple(marks),
        )

    def titled(self, text: str) -> str:
        """The title of a figure, with the marks below it."""
        return "\n".join([f"{text} — {self.name}", *self.marks])


def _number(things: Sequence[object], word: str) -> str:
    return f"{len(things)} {word}{'' if len(things) == 1 else 's'}"
