"""Results made by other code, from a CSV file with one value a row, checked whole before anything is kept.

A row is one agent's return, or whatever else the suite scores, on one task with one seed. Every value is checked
against the suite's protocol, and every complaint names row and column; a file with a single wrong value gives no
baseline.
"""

import csv
import difflib
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from urlbench.baselines.frozen import Frozen, FrozenAgent, FrozenRun
from urlbench.baselines.library import check_name
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Protocol, Suite
from urlbench.results.measurements import LISTS
from urlbench.results.score_kinds import kind_of
from urlbench.results.selection import Cell, registered_suite

_SHOWN = 20
# A suite's own snapshot is the last one, and its own goal set the one with the number of the seed.
_OPTIONAL = ("snapshot", "goal_set", "suite", "preset")


class _Value(NamedTuple):
    """One row of the file, read.

    Attributes:
        row: its line in the file; the header is line 1.
        frames: fine-tuning frames before the evaluation; 0 in a search for goals.
        value: what was measured: mean return, say, or the number of goals found.
    """

    row: int
    agent: str
    task: str
    seed: int
    goal_set: int | None
    snapshot: int
    frames: int
    value: float

    @property
    def cell(self) -> tuple[str, str, int, int | None]:
        """What one run is of."""
        return self.agent, self.task, self.seed, self.goal_set


def import_csv(
    path: Path,
    name: str,
    suite: str,
    preset: str = "paper",
    columns: Mapping[str, str] | None = None,
    constants: Mapping[str, str] | None = None,
) -> Frozen:
    """The results in a CSV file, as a frozen baseline that is marked as foreign.

    Args:
        path: UTF-8, separated by commas, with a header.
        name: what the baseline is to be called.
        suite: `name` or `name@version` that the tasks and the protocol are of.
        preset: whose budgets were used.
        columns: column of the file for each field that is not called like its column.
        constants: value for fields that no column gives.

    Raises:
        UserError: if the file cannot be read, or naming row and column of everything that is wrong.
    """
    registered = registered_suite(suite)
    if preset not in registered.protocols:
        raise unknown_name("preset", preset, registered.protocols, where=f"of suite {registered.name!r}")
    check_name(name)
    data, rows = _read(path)
    reader = _Reader(path, rows[0][1], registered, preset, dict(columns or {}), dict(constants or {}))
    values = [value for line, row in rows[1:] if (value := reader.read(line, row)) is not None]
    problems = reader.problems or list(_grid_problems(values, registered, preset))
    if problems:
        listed = [f"  {problem}" for problem in problems[:_SHOWN]]
        more = [f"  and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        what = "this is wrong" if len(problems) == 1 else f"{len(problems)} things are wrong"
        raise UserError("\n".join([f"{path} was not imported, for {what}:", *listed, *more]))
    origin = {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "columns": reader.columns,
        "constants": reader.constants,
    }
    return _frozen(name, registered, preset, values, origin)


class _Reader:
    """Reads rows, and collects what is wrong with them.

    Attributes:
        columns: the column of each field that has one.
        constants: the value of each field that has no column.
        problems: one sentence for each wrong value.
    """

    def __init__(
        self,
        path: Path,
        header: Sequence[str],
        suite: Suite,
        preset: str,
        columns: dict[str, str],
        constants: dict[str, str],
    ) -> None:
        self._header, self._suite, self._preset = [name.strip() for name in header], suite, preset
        self._protocol = suite.protocols[preset]
        self.constants, self.problems = constants, list[str]()
        self._kind = kind_of(suite)
        frames = () if self._protocol.search else ("frames",)
        required = ("agent", "task", "seed", *frames, self._kind.metric)
        fields = (*required, *_OPTIONAL)
        for field in (*columns, *constants):
            if field not in fields:
                raise unknown_name("field", field, fields, where=f"of results on {suite.name!r}")
        repeated = sorted({name for name in self._header if self._header.count(name) > 1})
        if repeated:
            raise UserError(f"{path} has the column {repeated[0]!r} twice; give each column a name of its own.")
        for field, column in columns.items():
            if field in constants:
                raise UserError(f"{field!r} is given by --map and by --set; leave one of them away.")
            if column not in self._header:
                raise unknown_name("column", column, self._header, where=f"in {path}")
        own = {field: field for field in fields if field in self._header and field not in constants}
        self.columns = {**own, **columns}
        for field in required:
            if field not in self.columns and field not in constants:
                raise UserError(
                    f"no column of {path} gives {field!r}: name it with --map COLUMN={field}, or give all rows one "
                    f"value with --set {field}=VALUE; its columns are {', '.join(self._header)}."
                )

    def read(self, line: int, row: Sequence[str]) -> _Value | None:
        """One row; None, with new problems, if anything is wrong with it."""
        if len(row) != len(self._header):
            self.problems.append(f"row {line}: {len(row)} values under {len(self._header)} columns")
            return None
        before = len(self.problems)
        texts = {
            **self.constants,
            **{field: row[self._header.index(column)].strip() for field, column in self.columns.items()},
        }

        def wrong(field: str, why: str) -> None:
            where = f"column {self.columns[field]!r}" if field in self.columns else f"--set {field}"
            self.problems.append(f"row {line}, {where}: {texts[field]!r} {why}")

        def whole(field: str, default: int) -> int:
            text = texts.get(field, str(default))
            if text.isascii() and text.isdigit() and len(text) < 19:
                return int(text)
            wrong(field, "is no whole number of 0 or more")
            return -1

        if not texts["agent"]:
            wrong("agent", "names no agent")
        known = [task.name for task in self._suite.tasks]
        if texts["task"] not in known:
            near = difflib.get_close_matches(texts["task"], known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            wrong("task", f"is no task of {self._suite.full_name}{hint}")
        for field, names in (("suite", (self._suite.name, self._suite.full_name)), ("preset", (self._preset,))):
            if field in texts and texts[field] not in names:
                wrong(field, f"is not {names[-1]}: a baseline has one suite, version and preset")
        seed = whole("seed", 0)
        goal_set = None if self._suite.goal_sets is None else whole("goal_set", seed)
        if goal_set is None and "goal_set" in texts:
            wrong("goal_set", f"cannot be: {self._suite.name} has no goal sets")
        snapshot = whole("snapshot", self._protocol.last_snapshot)
        if snapshot not in (-1, 0, *self._protocol.snapshots):
            kept = ", ".join(map(str, self._protocol.snapshots))
            wrong("snapshot", f"is no snapshot of preset {self._preset} ({kept}; 0 for no pretraining)")
        frames, field = 0, self._kind.metric
        if self._protocol.search is None:
            frames = whole("frames", 0)
            every, last = self._protocol.eval_every_frames, self._protocol.finetune_frames
            if frames != -1 and (frames % every or not 0 < frames <= last):
                wrong("frames", f"is no evaluation of preset {self._preset} (every {every} frames, the last at {last})")
        value = _number(texts[field])
        largest = self._kind.largest(self._suite, self._protocol)
        if value is None:
            wrong(field, "is no number")
        elif not math.isfinite(value):
            wrong(field, "is not finite")
        elif largest is not None and not (0 <= value <= largest and (value.is_integer() or not self._kind.is_count)):
            wrong(field, f"is no {self._kind.of_other_code}: 0 to {largest}")
        if len(self.problems) > before or value is None:
            return None
        return _Value(line, texts["agent"], texts["task"], seed, goal_set, snapshot, frames, value)


def _number(text: str) -> float | None:
    try:
        # Python reads 1_000 as a number; other programs do not.
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None


def _grid_problems(values: Sequence[_Value], suite: Suite, preset: str) -> Iterator[str]:
    """What is wrong with the rows together: values that come twice, or not at all."""
    protocol = suite.protocols[preset]
    first: dict[tuple[object, ...], int] = {}
    frames: dict[tuple[str, str, int, int | None], set[int]] = defaultdict(set)
    for value in values:
        key = (*value.cell, value.frames)
        if key in first:
            yield f"row {value.row} repeats row {first[key]}: {_words(value.cell)}, frame {value.frames}"
        first.setdefault(key, value.row)
        frames[value.cell].add(value.frames)
    tasks = [task.name for task in suite.tasks if any(value.task == task.name for value in values)]
    for agent in dict.fromkeys(value.agent for value in values):
        own = [value for value in values if value.agent == agent]
        for value in own:
            if value.snapshot != own[0].snapshot:
                started = f"starts from {value.snapshot}, in row {own[0].row} from {own[0].snapshot}"
                yield f"row {value.row}: {agent} {started}"
        every = set.union(*(frames[value.cell] for value in own))
        places = sorted({(value.seed, value.goal_set) for value in own}, key=lambda place: (place[0], place[1] or 0))
        for cell in ((agent, task, *place) for task in tasks for place in places):
            if cell not in frames:
                yield f"{_words(cell)}: there is no row"
            elif protocol.search is None and protocol.finetune_frames not in frames[cell]:
                yield f"{_words(cell)}: the score at frame {protocol.finetune_frames} is missing"
            elif every - frames[cell]:
                yield f"{_words(cell)}: frame {min(every - frames[cell])}, which other cells have, is missing"


def _words(cell: tuple[str, str, int, int | None]) -> str:
    agent, task, seed, goal_set = cell
    return str(Cell(agent, task, seed, goal_set))


def _frozen(name: str, suite: Suite, preset: str, values: Sequence[_Value], origin: Mapping[str, object]) -> Frozen:
    protocol = suite.protocols[preset]
    agents = []
    for agent in dict.fromkeys(value.agent for value in values):
        cells: dict[tuple[str, str, int, int | None], list[_Value]] = defaultdict(list)
        for value in values:
            if value.agent == agent:
                cells[value.cell].append(value)
        runs = [_run(sorted(cells[cell], key=lambda value: value.frames), suite, protocol) for cell in cells]
        order = [task.name for task in suite.tasks]
        runs.sort(key=lambda run: (order.index(run.task), run.seed, run.goal_set or 0))
        snapshot = next(iter(cells.values()))[0].snapshot
        agents.append(FrozenAgent(label=agent, name=agent, snapshot=snapshot, runs=tuple(runs)))
    tasks = tuple(task.name for task in suite.tasks if any(value.task == task.name for value in values))
    return Frozen(
        name=name,
        kind="foreign",
        suite=suite.full_name,
        protocol=protocol,
        domains={task: suite.task(task).domain for task in tasks},
        tasks=tasks,
        score=suite.score,
        normaliser=suite.normaliser,
        subtasks=suite.subtasks,
        origin=dict(origin),
        agents=tuple(agents),
    )


def _run(values: Sequence[_Value], suite: Suite, protocol: Protocol) -> FrozenRun:
    """The run that the rows of one cell describe, ascending in frames."""
    _, task, seed, goal_set = values[0].cell
    if protocol.search is not None:
        goals = protocol.search.goals
        return FrozenRun(task=task, seed=seed, goal_set=goal_set, goals_found=int(values[0].value), goals=goals)
    frames, curve = tuple(value.frames for value in values), tuple(value.value for value in values)
    cell = {"task": task, "seed": seed, "goal_set": goal_set}
    return FrozenRun.model_validate({**cell, "frames": frames, LISTS[kind_of(suite).metric]: curve})


def _read(path: Path) -> tuple[bytes, list[tuple[int, list[str]]]]:
    """The file and its rows with their line numbers, the header first; empty lines are left out."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a CSV file.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8.") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows = []
    try:
        for row in reader:
            if row:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise UserError(
            f"{path} row {reader.line_num} is no CSV ({error}); write values separated by commas."
        ) from error
    if len(rows) < 2:
        raise UserError(f"{path} holds no results; write a header and one row for each value.")
    return data, rows
