"""Frozen baselines: one file holds all, travels between folders, and no change to it goes unnoticed."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import make_job, write_grid, write_run
from synthetic_searches import REACH, write_searches

from urlbench.baselines.frozen import freeze, from_bytes, to_bytes
from urlbench.baselines.library import export, find_frozen, load_baseline, read_frozen, store, stored_names
from urlbench.baselines.listing import format_frozen, stored_rows
from urlbench.baselines.verification import verify_stored
from urlbench.cli import app as cli
from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.identity import canonical_json
from urlbench.results.cells import collect
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.scores import final_scores
from urlbench.results.selection import make_selection

pytestmark = pytest.mark.usefixtures("synthetic_suites")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Runs that no test changes."""
    root = tmp_path_factory.mktemp("grid") / "runs"
    write_grid(root, ["alpha", "random"], 3)
    return root


@pytest.fixture
def folder(runs: Path, tmp_path: Path) -> Path:
    """A folder with the baseline `mine`, of all runs."""
    store(freeze(collect(runs, "toy", "smoke"), "mine"), tmp_path / "baselines")
    return tmp_path / "baselines"


def matrices(name: str, suite: str, folder: Path) -> dict[str, ScoreMatrix]:
    loaded = load_baseline(name, suite, folder)
    assert all(isinstance(matrix, ScoreMatrix) for matrix in loaded)
    return {matrix.agent: matrix for matrix in loaded}


def test_a_frozen_baseline_gives_the_scores_of_its_runs(runs, folder):
    live, frozen = final_scores(collect(runs, "toy", "smoke")), matrices("baseline:mine", "toy", folder)
    assert list(frozen) == ["mine/alpha", "mine/random"]
    for label, matrix in live.items():
        stored = frozen[f"mine/{label}"]
        np.testing.assert_array_equal(stored.scores, matrix.scores)
        assert (stored.tasks, stored.domains, stored.seeds) == (matrix.tasks, matrix.domains, matrix.seeds)
        assert (stored.suite, stored.preset, stored.pretrains) == (matrix.suite, matrix.preset, matrix.pretrains)
        assert stored.config_hash == matrix.config_hash
    assert list(matrices("mine/random", "toy@1", folder)) == ["mine/random"]


def test_the_file_needs_nothing_else(runs, folder):
    frozen, (agent, _) = find_frozen("mine", folder)
    run = agent.runs[0]
    record = next(run_ for run_ in collect(runs, "toy", "smoke").usable_runs() if run_.id == run.run_id)
    assert json.loads((runs / record.path / "DONE").read_text())["sha256"] == run.eval_sha256
    assert (run.frames, run.returns) == ((100, 200), (10.0, 20.0))
    assert agent.config == {"lr": 0.1}
    assert agent.versions == {"mujoco": ("3.3.0",)}
    assert agent.command.startswith("urlbench run --suite toy --agent alpha")
    assert (agent.snapshot, frozen.agents[1].snapshot) == (1000, 0)
    (environment,) = frozen.environments
    assert environment.git == {"commit": "0123456789abcdef", "dirty": False}
    assert environment.packages["torch"] == "2.13.0"
    assert frozen.protocol == collect(runs, "toy", "smoke").suite.protocols["smoke"]


def test_the_same_runs_give_the_same_bytes(runs, folder):
    again = to_bytes(freeze(collect(runs, "toy", "smoke"), "mine"))
    assert (folder / "mine.json").read_bytes() == again
    assert store(from_bytes(again, "mine"), folder) == folder / "mine.json", "the same again is no conflict"


def test_incomplete_results_are_not_frozen(tmp_path):
    write_run(tmp_path, make_job("alpha", "walker_walk", 0))
    write_run(tmp_path, make_job("alpha", "walker_run", 1))
    with pytest.raises(IncompleteError, match="alpha on walker_run, seed 0"):
        freeze(collect(tmp_path, "toy", "smoke"), "mine")


def test_searches_are_frozen_as_goals_found(tmp_path):
    write_searches(tmp_path / "runs", ["alpha", "random"], 3)
    results = collect(tmp_path / "runs", "toy-reach", "smoke")
    store(freeze(results, "found"), tmp_path)
    for label, matrix in final_scores(results).items():
        stored = matrices(f"found/{label}", "toy-reach", tmp_path)[f"found/{label}"]
        np.testing.assert_array_equal(stored.scores, matrix.scores)
        run = results.run(label, "arm_reach", 1, 1)
        assert stored.scores[1, 0] == run.goals_found / 5


def test_the_goal_sets_of_a_seed_count_together(tmp_path):
    for number in range(2):
        write_searches(tmp_path / "runs", ["alpha"], 3, goal_set=number)
    selection = make_selection(None, None, None, None, None, (0, 1))
    results = collect(tmp_path / "runs", "toy-reach", "smoke", selection)
    store(freeze(results, "both"), tmp_path)
    found = [results.run("alpha", "arm_reach", 2, number).goals_found for number in range(2)]
    live = final_scores(results)["alpha"].scores
    assert live[2, 0] == sum(found) / (2 * REACH.goal_sets.goals)
    np.testing.assert_array_equal(matrices("both", "toy-reach", tmp_path)["both/alpha"].scores, live)


def test_any_changed_byte_of_a_number_is_noticed(folder):
    path = folder / "mine.json"
    original = path.read_bytes()
    for old, new in ((b"20.0", b"21.0"), (b'"seed":0', b'"seed":7'), (b'"kind":"runs"', b'"kind":"foreign"')):
        assert old in original
        path.write_bytes(original.replace(old, new, 1))
        with pytest.raises(UserError, match="changed after it was written"):
            load_baseline("mine", "toy", folder)
        assert verify_stored("mine", folder).result == "failed"
    path.write_bytes(original.replace(b":", b": ", 1))
    with pytest.raises(UserError, match="changed after it was written"):
        read_frozen(path)
    path.write_bytes(original)
    assert verify_stored("mine", folder).result == "passed"


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is no baseline"), (b"[]", "is no baseline"), (b'{"sha256": "x"}', "is no baseline"), (b"\xff", "is no")],
)
def test_a_file_that_is_no_baseline_is_refused(content, words, tmp_path):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_frozen(tmp_path / "x.json")


def resigned(path: Path, change) -> bytes:
    """The file after a change, with a hash that fits it."""
    content = json.loads(path.read_bytes())
    del content["sha256"]
    change(content)
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    return (canonical_json({**content, "sha256": digest}) + "\n").encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["agents"][0]["runs"].append(content["agents"][0]["runs"][0]), "a cell twice"),
        (lambda content: content["agents"][0]["runs"].pop(), "lacks cells"),
        (lambda content: content["agents"][0]["runs"][0].update(frames=[100], returns=[1.0]), "no final score"),
        (lambda content: content["agents"][0]["runs"][0].update(task="arm_up"), "lacks cells|no final score"),
    ],
)
def test_what_no_freeze_writes_is_refused_even_with_a_fitting_hash(change, words, folder):
    with pytest.raises(UserError, match=f"does not agree with itself.*({words})"):
        from_bytes(resigned(folder / "mine.json", change), "mine.json")


def test_verification_compares_with_the_suite_as_it_is_now(folder):
    path = folder / "mine.json"
    path.write_bytes(resigned(path, lambda content: content["normaliser"]["references"].update(walker_walk=101.0)))
    check = verify_stored("mine", folder)
    assert check.result == "failed"
    assert "are not toy@1's" in check.detail


def test_another_suite_or_version_is_refused(folder):
    with pytest.raises(UserError, match=r"was made on toy@1 and cannot stand beside results of toy-reach@1"):
        load_baseline("mine", "toy-reach", folder)
    path = folder / "mine.json"
    path.write_bytes(resigned(path, lambda content: content.update(suite="toy@2")))
    with pytest.raises(UserError, match=r"was made on toy@2"):
        load_baseline("mine", "toy", folder)


def test_a_baseline_travels_between_folders(folder, tmp_path):
    out = export("mine", folder, tmp_path / "mine-for-you.json")
    assert store(read_frozen(out), tmp_path / "theirs") == tmp_path / "theirs" / "mine.json"
    assert (tmp_path / "theirs" / "mine.json").read_bytes() == (folder / "mine.json").read_bytes()
    with pytest.raises(UserError, match="exists"):
        export("mine", folder, out)
    (folder / "yours.json").write_bytes(out.read_bytes())
    with pytest.raises(UserError, match="holds the baseline 'mine'"):
        load_baseline("yours", "toy", folder)


def test_other_results_never_replace_a_baseline(runs, folder):
    other = freeze(collect(runs, "toy", "smoke", make_selection(["alpha"], None, None, None, None, None)), "mine")
    with pytest.raises(UserError, match="holds other results"):
        store(other, folder)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "choreographer-2023", ".hidden"])
def test_names_that_cannot_be_files_or_are_taken_are_refused(name, runs, tmp_path):
    frozen = freeze(collect(runs, "toy", "smoke"), name)
    with pytest.raises(UserError, match=r"cannot name a baseline|published source"):
        store(frozen, tmp_path)


def test_unknown_names_are_answered(folder):
    with pytest.raises(UserError, match="did you mean 'mine'"):
        load_baseline("mien", "toy", folder)
    with pytest.raises(UserError, match="unknown agent 'alhpa' of baseline 'mine'; did you mean 'alpha'"):
        load_baseline("mine/alhpa", "toy", folder)
    with pytest.raises(UserError, match="comes with every urlbench"):
        export("choreographer-2023", folder, folder)


def test_lists_and_texts(folder):
    (row,) = stored_rows(folder)
    assert row == {"name": "mine", "kind": "frozen", "suite": "toy@1 smoke", "tasks": "3", "agents": "alpha, random"}
    text = format_frozen(*find_frozen("mine", folder))
    assert "mine/alpha: snapshot 1000" in text
    assert "mine/random: no pretraining" in text
    assert "git 0123456789abcdef, mujoco 3.3.0, torch 2.13.0" in text
    (folder / "broken.json").write_text("{}")
    assert {row["kind"] for row in stored_rows(folder)} == {"frozen", "damaged"}
    assert stored_names(folder / "nowhere") == []


def test_the_commands_work_together(runs, tmp_path, monkeypatch, capsys):
    def urlbench(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(["baselines", *arguments])
        return end.value.code, capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    code, out = urlbench(
        "freeze", "mine", "--suite", "toy", "--agents", "alpha", "--preset", "smoke", "--runs", str(runs)
    )
    assert (code, out.splitlines()[0]) == (0, "baselines/mine.json: toy@1, preset smoke, 9 runs of alpha")
    assert "urlbench compare AGENT --suite toy --preset smoke --against baseline:mine" in out
    assert urlbench("export", "mine", "--out", "copy.json") == (0, "copy.json\n")
    assert urlbench("import", "copy.json", "--baselines", "other") == (0, "other/mine.json\n")
    code, out = urlbench("list", "--baselines", "other", "--json")
    assert json.loads(out)[-1]["agents"] == "alpha"
    code, out = urlbench("show", "baseline:mine", "--json")
    assert json.loads(out)["agents"][0]["label"] == "alpha"
    assert urlbench("verify", "mine")[0] == 0
    code, out = urlbench("verify", "--json")
    assert (code, {check["result"] for check in json.loads(out)}) == (0, {"passed"})
    Path("other/mine.json").write_text("{}")
    assert urlbench("verify", "--baselines", "other")[0] == 1
    assert urlbench("show", "choreographer-2023/CIC")[0] == 0
