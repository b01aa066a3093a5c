"""Results from run directories: what counts, what does not, and what each gap is called."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import TASKS, evaluation, make_job, rewrite_evaluations, write_grid, write_run

from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.identity import job_id
from urlbench.core.interfaces import AgentSpec
from urlbench.core.types import Spec
from urlbench.results.cells import collect
from urlbench.results.commands import seeds_flag
from urlbench.results.scores import final_scores
from urlbench.results.selection import Selection
from urlbench.results.validation import check, find_problems, validate
from urlbench.runs.plan import parse_seeds
from urlbench.runs.store import RunStore

pytestmark = pytest.mark.usefixtures("synthetic_suites")

REFERENCES = np.array([100.0, 200.0, 50.0])


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """Three tasks, two seeds, of agents `apt` and `random`."""
    write_grid(tmp_path, ["apt", "random"], 2)
    return tmp_path


def folder(root: Path, agent: str = "apt", task: str = "walker_run", seed: int = 1):
    return RunStore(root).run_dir(make_job(agent, task, seed, snapshot=0 if agent == "random" else 1000))


def only_problem(root: Path):
    problems = validate(root)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def test_scores_are_final_returns_over_references(tmp_path):
    returns = write_grid(tmp_path, ["apt", "random"], 3)
    matrices = final_scores(collect(tmp_path, "toy", "smoke"))
    for agent in ("apt", "random"):
        assert matrices[agent].tasks == tuple(TASKS)
        assert matrices[agent].seeds == (0, 1, 2)
        np.testing.assert_allclose(matrices[agent].scores, returns[agent] / REFERENCES)
    assert validate(tmp_path) == []
    assert matrices["apt"].pretrains
    assert not matrices["random"].pretrains


def test_rows_hold_every_evaluation_with_its_source(grid):
    rows = collect(grid, "toy", "smoke").rows()
    assert len(rows) == 2 * 3 * 2 * 2 * 2
    of_run = [row for row in rows if (row.agent, row.task, row.seed, row.frames) == ("apt", "walker_run", 1, 200)]
    row, score = of_run
    assert row.value == pytest.approx(20.0 + 10.0 * 4)
    assert (score.metric, score.value) == ("score", row.value / 200)
    assert (row.n_episodes, row.pretrain_frames, row.suite_version, row.metric) == (2, 1000, 1, "return")
    assert (grid / row.source).is_file()


def test_a_missing_run_names_the_cell_and_its_command(grid):
    shutil.rmtree(folder(grid).path)
    problem = only_problem(grid)
    assert (problem.kind, problem.agent, problem.task, problem.seed) == ("missing", "apt", "walker_run", 1)
    # There is an agent of that name, whose preset has another learning rate.
    assert problem.command == (
        "urlbench run --suite toy --agent apt --tasks walker_run --seeds 1-1 --preset smoke -o agent.lr=0.1 "
        f"--runs {grid}"
    )
    with pytest.raises(IncompleteError, match="apt on walker_run, seed 1: there is no run"):
        final_scores(collect(grid, "toy", "smoke"))


def test_what_is_asked_for_is_expected(grid):
    kinds = {(p.kind, p.agent, p.seed) for p in validate(grid, "toy", "smoke", ["cic"], tasks=["arm_left"], seeds=[0])}
    assert kinds == {("missing", "cic", 0)}
    seeds = [problem.seed for problem in validate(grid, agents=["apt"], tasks=["arm_left"], seeds=[0, 1, 2, 3])]
    assert seeds == [2, 3]


def test_a_pretraining_without_its_finetunings_is_a_gap(tmp_path):
    write_run(tmp_path, make_job("apt", "walker_walk", 4, pretrain=True), done=True)
    assert [(p.kind, p.task, p.seed) for p in validate(tmp_path)] == [
        ("missing", "walker_walk", 4),
        ("missing", "walker_run", 4),
    ]


def test_all_gaps_together_group_tasks_that_lack_the_same_seeds(grid):
    for task, seed in [("walker_walk", 0), ("walker_run", 0), ("arm_left", 0), ("arm_left", 1)]:
        shutil.rmtree(folder(grid, task=task, seed=seed).path)
    with pytest.raises(IncompleteError) as caught:
        final_scores(collect(grid, "toy", "smoke"))
    together = str(caught.value).split("All gaps together:\n")[1].splitlines()
    assert [line.split(" --preset")[0].strip() for line in together] == [
        "urlbench run --suite toy --agent apt --tasks walker_walk,walker_run --seeds 0-0",
        "urlbench run --suite toy --agent apt --tasks arm_left --seeds 0-1",
    ]


def test_a_run_that_is_not_done_says_how_far_it_is(grid):
    folder(grid).done_file.unlink()
    problem = only_problem(grid)
    assert problem.kind == "unfinished"
    assert "queued at 0 of 200 frames" in problem.message


def test_a_failed_run_gives_its_reason(grid):
    directory = folder(grid)
    directory.done_file.unlink()
    status = directory.read_status()
    assert status is not None
    directory.write_status(status.model_copy(update={"state": "failed", "message": "loss is NaN"}))
    problem = only_problem(grid)
    assert problem.kind == "failed"
    assert "(loss is NaN)" in problem.message
    assert problem.command.endswith("--rerun failed")


def test_a_duplicate_is_never_averaged(grid):
    source = folder(grid).path
    shutil.copytree(source, source.with_name("seed_1_copy"))
    problem = only_problem(grid)
    assert problem.kind == "duplicate"
    assert "seed_1 and" in problem.message
    assert "seed_1_copy" in problem.message
    with pytest.raises(IncompleteError, match="2 runs claim this cell"):
        final_scores(collect(grid, "toy", "smoke"), allow_partial=True)


def test_a_run_in_another_runs_folder_is_refused(grid):
    source = folder(grid).path
    source.rename(source.with_name("seed_7"))
    problem = only_problem(grid)
    assert problem.kind == "misplaced"
    assert problem.path.endswith("walker_run/snapshot_1000/seed_7")


def test_nan_is_named_with_its_line(grid):
    directory = folder(grid)
    rewrite_evaluations(directory, directory.eval_file.read_text().replace("[59.0", "[NaN"))
    problem = only_problem(grid)
    assert problem.kind == "nan"
    assert "seed_1/eval.jsonl line 2 (frame 200)" in problem.message


def test_a_truncated_line_is_named(grid):
    directory = folder(grid)
    rewrite_evaluations(directory, directory.eval_file.read_text()[:-5])
    problem = only_problem(grid)
    assert problem.kind == "truncated"
    assert "seed_1/eval.jsonl is truncated: line 2 has no end" in problem.message


def test_a_damaged_line_is_named(grid):
    directory = folder(grid)
    rewrite_evaluations(directory, directory.eval_file.read_text().replace('"frame": 100', '"fra'))
    assert "seed_1/eval.jsonl line 1 is damaged" in only_problem(grid).message


def test_an_eval_file_changed_after_the_end_is_refused(grid):
    directory = folder(grid)
    directory.eval_file.write_text(directory.eval_file.read_text().replace("59.0", "99.0"))
    problem = only_problem(grid)
    assert problem.kind == "hash"
    assert "seed_1/eval.jsonl was changed after the run ended" in problem.message


def test_an_edited_spec_is_refused(grid):
    directory = folder(grid)
    directory.spec_file.write_text(directory.spec_file.read_text().replace('"parent":null', '"parent":"abc"'))
    problem = only_problem(grid)
    assert problem.kind == "hash"
    assert "seed_1/spec.json was changed" in problem.message


def test_an_unreadable_spec_is_named(grid):
    folder(grid).spec_file.write_text("{")
    problems = validate(grid)
    assert [problem.kind for problem in problems] == ["unreadable", "missing"]
    assert "walker_run/snapshot_1000/seed_1/spec.json cannot be read" in problems[0].message


@pytest.mark.parametrize("suite", [None, "toy"])
def test_runs_of_an_earlier_version_are_named_and_counted_for_nothing(grid, suite):
    file = folder(grid).spec_file
    stored = json.loads(file.read_text())
    del stored["format"]
    file.write_text(json.dumps(stored))
    problems = validate(grid, suite)
    assert [problem.kind for problem in problems] == ["versions", "missing"]
    place = folder(grid).path.relative_to(grid)
    assert problems[0].message.startswith(f"{place} was made by urlbench 0.1, ")
    for partial in (False, True):
        with pytest.raises(IncompleteError, match=r"was made by urlbench 0\.1, "):
            check(collect(grid, "toy", "smoke"), allow_partial=partial)


def test_a_folder_of_an_earlier_version_beside_another_suite_is_not_passed_over(grid):
    old = RunStore(grid).run_dir(make_job("apt", "arm_left", 0, suite="old@1"))
    old.path.mkdir(parents=True)
    old.spec_file.write_text(json.dumps({"id": "0", "spec": {}}))
    assert [problem.path for problem in validate(grid)] == [f"{old.path.relative_to(grid)}/spec.json"]
    assert validate(grid, "toy") == []


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([100], "ends at frame 100, the final evaluation belongs at frame 200"),
        ([200], "lacks the evaluations at frames 100"),
        ([100, 200, 300], "ends at frame 300"),
        ([100, 200, 200], "each must come once, ascending"),
        ([], "is empty"),
    ],
)
def test_wrong_frames_are_named(grid, frames, message):
    rows = "".join(json.dumps(evaluation(frame, 60.0)) + "\n" for frame in frames)
    rewrite_evaluations(folder(grid), rows)
    problem = only_problem(grid)
    assert problem.kind == "frames"
    assert message in problem.message


def test_a_wrong_number_of_episodes_is_named(grid):
    rows = [evaluation(100, 60.0), evaluation(200, 60.0) | {"returns": [60.0]}]
    rewrite_evaluations(folder(grid), "".join(json.dumps(row) + "\n" for row in rows))
    problem = only_problem(grid)
    assert problem.kind == "episodes"
    assert "line 2 (frame 200) has 1 episodes, the protocol asks for 2" in problem.message


def test_mixed_package_versions_are_a_conflict(grid):
    shutil.rmtree(folder(grid).path)
    write_run(grid, make_job("apt", "walker_run", 1, mujoco="2.9.0"))
    problem = only_problem(grid)
    assert problem.kind == "versions"
    assert "seed_1 was made with mujoco 2.9.0, most others with mujoco 3.3.0" in problem.message
    with pytest.raises(IncompleteError, match="never mix"):
        final_scores(collect(grid, "toy", "smoke"), allow_partial=True)


def test_mixed_suite_versions_are_a_conflict_until_one_is_chosen(grid):
    write_run(grid, make_job("apt", "walker_run", 1, suite="toy@2"))
    problem = only_problem(grid)
    assert (problem.kind, problem.path) == ("versions", "toy@2")
    assert validate(grid, "toy@1") == []
    with pytest.raises(UserError, match="has toy@1, not toy@2"):
        validate(grid, "toy@2")


def test_presets_never_mix(grid):
    write_grid(grid, ["apt"], 1, preset="paper")
    assert validate(grid) == []
    assert collect(grid, "toy", "paper").seeds == (0,)
    assert collect(grid, "toy", "smoke").seeds == (0, 1)
    stray = folder(grid).path
    wrong = grid / make_job("apt", "walker_run", 0, preset="paper").path
    shutil.copytree(stray, wrong.with_name("seed_1"))
    kinds = {(problem.kind, problem.path.split("/")[2]) for problem in validate(grid, "toy", "paper")}
    assert kinds == {("preset", "paper")}


def test_other_budgets_under_the_same_preset_are_a_conflict(grid):
    job = make_job("apt", "walker_run", 1)
    shutil.rmtree(grid / job.path)
    protocol = job.spec.protocol.model_copy(update={"pretrain_frames": 1500})
    spec = job.spec.model_copy(update={"protocol": protocol})
    write_run(grid, job.model_copy(update={"spec": spec, "id": job_id(spec)}))
    assert only_problem(grid).kind == "protocol"


def test_two_configurations_of_an_agent_are_two_agents(tmp_path):
    jobs = [make_job("apt", "arm_left", seed, config={"lr": lr}) for seed in (0, 1) for lr in (0.1, 0.2)]
    for job in jobs:
        write_run(tmp_path, job, 10.0 * job.spec.agent_config["lr"])
    matrices = final_scores(collect(tmp_path, "toy", "smoke"))
    assert sorted(matrices) == sorted({job.path.split("/")[1] for job in jobs})
    one = jobs[1].path.split("/")[1]
    assert list(final_scores(collect(tmp_path, "toy", "smoke", Selection(agents=(one,))))) == [one]
    np.testing.assert_allclose(matrices[one].measured, 2.0)


def test_fine_tunings_from_other_snapshots_are_left_out(grid):
    write_run(grid, make_job("apt", "walker_run", 1, snapshot=500), 1.0)
    assert validate(grid) == []
    problems = validate(grid, "toy", "smoke", ["apt"], snapshot=500)
    assert len(problems) == 5
    assert "--snapshots 500" in problems[0].command
    with pytest.raises(UserError, match="keeps no snapshot at 700 frames; choose one of: 500, 1000"):
        validate(grid, "toy", "smoke", snapshot=700)


def test_partial_scores_leave_missing_cells_empty(grid):
    shutil.rmtree(folder(grid).path)
    results = collect(grid, "toy", "smoke")
    matrix = final_scores(results, allow_partial=True)["apt"]
    assert np.isnan(matrix.measured).tolist() == [[False, False, False], [False, True, False]]
    assert (results.n_usable, results.n_expected) == (11, 12)


def test_nothing_found_names_the_presets_there_are(grid):
    with pytest.raises(UserError, match=r"no runs of toy@1, preset 'paper'.*there are runs of preset smoke"):
        collect(grid, "toy")
    with pytest.raises(UserError, match="no runs folder"):
        validate(grid / "elsewhere")


def test_names_that_do_not_exist_are_refused(grid):
    with pytest.raises(UserError, match="did you mean 'walker_run'"):
        validate(grid, tasks=["walker_ran"])
    with pytest.raises(UserError, match="did you mean 'walker'"):
        validate(grid, domains=["wolker"])


@pytest.mark.parametrize("seeds", [[3], [0], [0, 1, 2], [1, 2, 5], [0, 2], [4, 1]])
def test_seeds_flag_is_read_back_as_the_same_seeds(seeds):
    assert sorted(parse_seeds(seeds_flag(seeds))) == sorted(seeds)


def test_the_command_names_overrides_and_plugins_of_the_runs(tmp_path, monkeypatch):
    class Config(Spec):
        lr: float = 0.1
        name: str = "a"

    spec = AgentSpec("apt", "", "", ("states",), True, Config, lambda context, config: None, {"smoke": {"name": "b"}})
    monkeypatch.setattr("urlbench.results.commands.load_agent", lambda name: spec)
    for seed in (0, 1):
        job = make_job("apt", "arm_left", seed, config={"lr": 0.5, "name": "b"})
        write_run(tmp_path, job.model_copy(update={"plugins": ("my agent.py",)}), done=seed == 0)
    assert "--plugin 'my agent.py' -o agent.lr=0.5 --runs" in only_problem(tmp_path).command


def write_shared(root: Path, seeds: dict[str, int]) -> None:
    """The runs of agents that all start from the pretrainings of `maker`, the first `seeds` of each."""
    for seed in range(max(seeds.values())):
        pretraining = make_job("maker", "walker_walk", seed, config={"lr": 0.1}, pretrain=True)
        write_run(root, pretraining)
        for agent in (agent for agent, number in seeds.items() if seed < number):
            job = make_job(agent, "walker_walk", seed, config={"lr": 0.1, "tuned": agent})
            spec = job.spec.model_copy(update={"parent": pretraining.id})
            write_run(root, job.model_copy(update={"id": job_id(spec), "spec": spec}), 10.0)


def test_a_shared_pretraining_is_no_agent_of_its_own(tmp_path):
    write_shared(tmp_path, {"one": 2, "other": 2})
    results = collect(tmp_path, "toy", "smoke")
    assert [agent.label for agent in results.agents] == ["one", "other"]
    assert find_problems(results) == []
    assert final_scores(results)["other"].pretrains


def test_what_makes_a_shared_pretraining_counts_once_beside_the_others(tmp_path):
    write_shared(tmp_path, {"maker": 2, "other": 2})
    results = collect(tmp_path, "toy", "smoke")
    assert [agent.label for agent in results.agents] == ["maker", "other"]
    assert find_problems(results) == []


def test_more_seeds_of_one_sharer_are_no_gaps_of_another(tmp_path):
    write_shared(tmp_path, {"one": 1, "other": 3})
    assert validate(tmp_path, "toy", "smoke", ["one"]) == []
    assert [(p.agent, p.seed) for p in validate(tmp_path, "toy", "smoke")] == [("one", 1), ("one", 2)]


def test_a_shared_pretraining_that_nothing_starts_from_is_a_gap_of_those_who_share_it(tmp_path):
    write_shared(tmp_path, {"one": 1, "other": 1})
    write_run(tmp_path, make_job("maker", "walker_walk", 4, config={"lr": 0.1}, pretrain=True))
    problems = validate(tmp_path)
    assert [(p.kind, p.agent, p.seed) for p in problems] == [("missing", "one", 4), ("missing", "other", 4)]
    assert "--agent one " in problems[0].command
