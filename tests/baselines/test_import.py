"""Results of other code: what is right is kept as foreign, what is wrong is named by row and column."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_runs import TASKS
from synthetic_searches import REACH

from urlbench.baselines.foreign import import_csv
from urlbench.baselines.library import find_frozen, load_baseline, store
from urlbench.baselines.verification import verify_stored
from urlbench.cli import app as cli
from urlbench.core.errors import UserError

pytestmark = pytest.mark.usefixtures("synthetic_suites")

HEADER = ("agent", "task", "seed", "frames", "return")


def complete(agents: Sequence[str] = ("theirs",), seeds: int = 2, frames: Sequence[int] = (200,)) -> list[list[Any]]:
    """Rows of every cell; the return says which one it is."""
    return [
        [agent, task, seed, frame, 100 * number + 10 * seed + frame / 1000]
        for agent in agents
        for number, task in enumerate(TASKS)
        for seed in range(seeds)
        for frame in frames
    ]


def write(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = HEADER) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def complaint(path: Path, **choices: Any) -> str:
    """What is answered; nothing is kept."""
    with pytest.raises(UserError) as error:
        import_csv(path, "theirs", choices.pop("suite", "toy"), choices.pop("preset", "smoke"), **choices)
    return str(error.value)


def test_complete_results_become_a_baseline_that_is_marked_as_foreign(tmp_path):
    rows = complete(["b", "a"], frames=(200, 100))
    frozen = import_csv(write(tmp_path / "x.csv", rows), "theirs", "toy", "smoke")
    store(frozen, tmp_path)
    first, second = load_baseline("theirs", "toy", tmp_path)
    assert (first.agent, second.agent) == ("theirs/b", "theirs/a")
    np.testing.assert_array_equal(first.measured, [[0.2, 100.2, 200.2], [10.2, 110.2, 210.2]])
    assert first.tasks == tuple(TASKS)
    assert (first.suite, first.preset, first.seeds, first.pretrains) == ("toy@1", "smoke", (0, 1), True)
    stored, (agent, _) = find_frozen("theirs", tmp_path)
    assert stored.kind == "foreign"
    assert stored.origin["file"] == "x.csv"
    assert agent.runs[0].frames == (100, 200), "curves ascend"
    assert {run.run_id for run in agent.runs} == {None}
    assert agent.versions == {}
    assert verify_stored("theirs", tmp_path).result == "passed"


def test_columns_can_have_other_names_and_constants_can_stand_for_columns(tmp_path):
    rows = [[row[1], row[2], row[4], "whatever"] for row in complete()]
    path = write(tmp_path / "x.csv", rows, ("env", "seed", "episode reward", "comment"))
    columns, constants = (
        {"task": "env", "return": "episode reward"},
        {"agent": "theirs", "frames": "200", "snapshot": "0"},
    )
    frozen = import_csv(path, "mine", "toy", "smoke", columns, constants)
    assert frozen.agents[0].label == "theirs"
    assert not frozen.matrix(frozen.agents[0]).pretrains
    assert frozen.origin["columns"] == {"seed": "seed", "task": "env", "return": "episode reward"}
    assert frozen.origin["constants"] == constants


def test_rows_may_come_in_any_order_and_with_a_byte_order_mark(tmp_path):
    rows = complete(frames=(100, 200))
    ordered = import_csv(write(tmp_path / "x.csv", rows), "theirs", "toy", "smoke")
    path = write(tmp_path / "y.csv", rows[::-1])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\r\n", b"\n") + b"\n\n")
    shuffled = import_csv(path, "theirs", "toy", "smoke")
    assert shuffled.agents == ordered.agents


@pytest.mark.parametrize(
    ("row", "column", "value", "words"),
    [
        (
            3,
            "task",
            "walker_wlak",
            "column 'task': 'walker_wlak' is no task of toy@1; did you mean 'walker_walk'?",
        ),
        (4, "return", "nan", "row 4, column 'return': 'nan' is not finite"),
        (4, "return", "-inf", "row 4, column 'return': '-inf' is not finite"),
        (2, "return", "12,5", "row 2, column 'return': '12,5' is no number"),
        (2, "return", "1_000", "row 2, column 'return': '1_000' is no number"),
        (2, "return", "", "row 2, column 'return': '' is no number"),
        (5, "seed", "one", "row 5, column 'seed': 'one' is no whole number of 0 or more"),
        (5, "seed", "-1", "row 5, column 'seed': '-1' is no whole number of 0 or more"),
        (5, "seed", "1.0", "row 5, column 'seed': '1.0' is no whole number of 0 or more"),
        (
            6,
            "frames",
            "150",
            "row 6, column 'frames': '150' is no evaluation of preset smoke (every 100 frames,",
        ),
        (6, "frames", "300", "row 6, column 'frames': '300' is no evaluation of preset smoke"),
        (7, "agent", " ", "row 7, column 'agent': '' names no agent"),
        (3, "seed", "0", "row 3 repeats row 2: theirs on walker_walk, seed 0, frame 200"),
        (7, "seed", "5", "theirs on walker_walk, seed 5: there is no row"),
        (7, "frames", "100", "theirs on arm_left, seed 1: the score at frame 200 is missing"),
    ],
)
def test_a_wrong_value_is_named_by_row_and_column(row, column, value, words, tmp_path):
    rows = complete()
    rows[row - 2][HEADER.index(column)] = value
    answer = complaint(write(tmp_path / "x.csv", rows))
    assert words in answer
    assert f"{tmp_path / 'x.csv'} was not imported" in answer


def test_all_faults_are_told_at_once_up_to_a_screen(tmp_path):
    rows = complete(seeds=30)
    for row in rows[:30]:
        row[4] = "x"
    answer = complaint(write(tmp_path / "x.csv", rows))
    assert "30 things are wrong" in answer
    assert answer.count("is no number") == 20
    assert answer.endswith("and 10 more")


def test_curves_must_have_the_same_frames(tmp_path):
    rows = complete(frames=(100, 200))
    assert "walker_run, seed 1: frame 100, which other cells have, is missing" in complaint(
        write(tmp_path / "x.csv", [row for row in rows if row[1:4] != ["walker_run", 1, 100]])
    )


def test_mixed_suites_presets_and_pretrainings_are_refused(tmp_path):
    rows = [[*row, "toy@1", "smoke", 1000] for row in complete()]
    path, header = tmp_path / "x.csv", (*HEADER, "suite", "preset", "snapshot")
    assert import_csv(write(path, rows, header), "theirs", "toy", "smoke").suite == "toy@1"
    rows[1][5], rows[2][6], rows[3][7] = "toy@2", "paper", 700
    answer = complaint(write(path, rows, header))
    assert "row 3, column 'suite': 'toy@2' is not toy@1" in answer
    assert "row 4, column 'preset': 'paper' is not smoke" in answer
    assert "row 5, column 'snapshot': '700' is no snapshot of preset smoke (500, 1000; 0 for no pretraining)" in answer
    rows[1][5], rows[2][6], rows[3][7] = "toy@1", "smoke", 0
    assert "row 5: theirs starts from 0, in row 2 from 1000" in complaint(write(path, rows, header))


def test_rows_that_are_too_short_or_too_long_are_named(tmp_path):
    rows = complete()
    rows[2] = rows[2][:3]
    rows[3] = [*rows[3], 1]
    answer = complaint(write(tmp_path / "x.csv", rows))
    assert "row 4: 3 values under 5 columns" in answer
    assert "row 5: 6 values under 5 columns" in answer


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no results"),
        (b"agent,task,seed,frames,return\n", "holds no results"),
        (b"agent,task,seed,frames,return\na,b\xff,1,2,3\n", "is not UTF-8"),
        (b'agent,task,seed,frames,return\n"a,walker_walk,0,200,1\n', "row 2 is no CSV"),
        (b"agent,task,seed,seed,return\na,b,0,0,1\n", "has the column 'seed' twice"),
        (b"agent,task,seed,return\na,walker_walk,0,1\n", "no column of .* gives 'frames': name it with --map"),
    ],
)
def test_a_file_that_cannot_be_read_is_answered(content, words, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=words):
        import_csv(path, "theirs", "toy", "smoke")


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"columns": {"retrun": "return"}}, "unknown field 'retrun' of results on 'toy'; did you mean 'return'?"),
        ({"columns": {"return": "score"}}, "unknown column 'score' in"),
        ({"columns": {"seed": "seed"}, "constants": {"seed": "1"}}, "'seed' is given by --map and by --set"),
        ({"constants": {"frames": "x"}}, "row 2, --set frames: 'x' is no whole number"),
        ({"constants": {"goal_set": "1"}}, "row 2, --set goal_set: '1' cannot be: toy has no goal sets"),
        ({"preset": "papr"}, "unknown preset 'papr' of suite 'toy'; did you mean 'paper'?"),
        ({"suite": "tyo"}, "unknown suite 'tyo'"),
        ({"suite": "toy@2"}, "this urlbench has toy@1, not toy@2"),
    ],
)
def test_wrong_choices_are_answered(choices, words, tmp_path):
    assert words in complaint(write(tmp_path / "x.csv", complete()), **choices)


def test_goals_found_are_whole_numbers_of_the_set(tmp_path):
    header, path = ("agent", "task", "seed", "found"), tmp_path / "x.csv"
    frozen = import_csv(write(path, [["a", "arm_reach", seed, seed] for seed in range(3)], header), "a", "toy-reach")
    assert [run.goal_set for run in frozen.agents[0].runs] == [0, 1, 2], "as published: set k for seed k"
    np.testing.assert_array_equal(frozen.matrix(frozen.agents[0]).scores[:, 0], np.arange(3) / REACH.goal_sets.goals)
    for found in ("6", "0.5", "-1"):
        answer = complaint(write(path, [["a", "arm_reach", 0, found]], header), suite="toy-reach")
        assert f"row 2, column 'found': '{found}' is no number of goals found: 0 to 5" in answer


def test_the_command_writes_nothing_if_anything_is_wrong(tmp_path, monkeypatch, capsys):
    def urlbench(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["import", "results.csv", "--suite", "toy", "--preset", "smoke", *arguments])
        captured = capsys.readouterr()
        return end.value.code, captured.out + captured.err

    monkeypatch.chdir(tmp_path)
    write(tmp_path / "results.csv", complete(), ("agent", "env=task", "seed", "frames", "return"))
    code, out = urlbench("--map", "env=task=task", "--set", "frames=200")
    assert (code, out.splitlines()[0]) == (0, "results/theirs: 6 results of other code, snapshot 1000")
    Path("baselines/results.json").unlink()
    assert urlbench("--map", "env=task=task", "--set", "seed=x")[0] == 2
    assert urlbench("--map", "=task") == (2, "error: cannot read --map '=task'; write COLUMN=FIELD.\n")
    assert "'seed' twice" in urlbench("--map", "a=seed", "--map", "b=seed")[1]
    assert list(Path("baselines").iterdir()) == []
