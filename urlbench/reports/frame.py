"""What surrounds every table and figure of a report: its name, its scope and its marks."""

from dataclasses import dataclass

from urlbench.results.cells import Results
from urlbench.results.validation import elsewhere_words, number_words, seeds_flag


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
    def of(results: Results) -> "Frame":
        """The frame of a report of `results`."""
        suite, preset = results.suite, results.preset
        n_usable, n_expected, n_seeds = results.n_usable, results.n_expected, len(results.seeds)
        marks = []
        if suite.protocols[preset].reduced:
            marks.append(f"REDUCED BUDGET: preset {preset} — not comparable with published numbers")
        if n_usable < n_expected:
            marks.append(f"PARTIAL {n_usable}/{n_expected} runs")
        scope = (
            f"{len(results.agents)} {'agent' if len(results.agents) == 1 else 'agents'}, {len(results.tasks)} of the "
            f"suite's {len(suite.tasks)} tasks, {n_seeds} {'seed' if n_seeds == 1 else 'seeds'}: {n_usable} runs."
        )
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
