"""Results of searches for goals: what counts, what does not, and what each gap is called."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import TOY
from synthetic_searches import (
    EPISODES,
    GOALS,
    REACH,
    SPARSE,
    found_by,
    make_job,
    make_pretraining,
    rows_of,
    write_search,
    write_searches,
)

from urlbench.core.errors import IncompleteError, UserError
from urlbench.core.identity import job_id
from urlbench.core.jobs import Job
from urlbench.core.types import Suite
from urlbench.results.cells import collect
from urlbench.results.problems import Problem
from urlbench.results.selection import Selection
from urlbench.results.validation import check, find_problems, validate
from urlbench.runs.plan import PlanRequest, make_plan, parse_seeds
from urlbench.runs.store import RunDirectory

pytestmark = pytest.mark.usefixtures("synthetic_suites")

JOB = make_job("apt", 1)


@pytest.fixture
def searches(tmp_path: Path) -> Path:
    """Agents `apt` and `random`, seeds 0 to 2, each on its own goal set."""
    write_searches(tmp_path, ["apt", "random"], 3)
    return tmp_path


def only_problem(root: Path, **choices) -> Problem:
    problems = validate(root, **choices)
    assert len(problems) == 1, [str(problem) for problem in problems]
    return problems[0]


def changed(root: Path, change, job: Job = JOB) -> Problem:
    """The one problem of a run whose rows `change` has changed before it ended."""
    rows = rows_of(job, found_by(job))
    changed_rows = change(rows)
    rows = rows if changed_rows is None else changed_rows
    write_search(root, job, content="".join(json.dumps(row) + "\n" for row in rows))
    return only_problem(root)


def test_a_goal_is_found_by_any_of_its_episodes(tmp_path):
    found = np.zeros((GOALS, EPISODES), bool)
    found[1, 11] = found[3, :4] = True
    write_search(tmp_path, JOB, found)
    (run,) = collect(tmp_path, "toy-reach", "smoke").usable_runs()
    assert [search.goal for search in run.searches] == [0, 1, 2, 3, 4]
    assert run.searches[3].found == (True,) * 4 + (False,) * 8
    assert (run.goals_found, run.episodes_found, run.n_episodes) == (2, 5, 60)


def test_rows_hold_the_fractions_of_goals_and_of_episodes(tmp_path):
    found = np.zeros((GOALS, EPISODES), bool)
    found[0, :6] = True
    write_search(tmp_path, JOB, found)
    rows = {row.metric: row for row in collect(tmp_path, "toy-reach", "smoke").rows()}
    assert {metric: row.value for metric, row in rows.items()} == {
        "goals_found": 1 / 5,
        "episodes_found": 6 / 60,
        "score": 1 / 5,
    }
    row = rows["goals_found"]
    assert (row.goal_set, row.seed, row.phase, row.n_episodes) == (1, 1, "search", 60)
    assert (row.pretrain_frames, row.pretrain_updates, row.frames) == (1000, 0, 0)
    assert (tmp_path / row.source).is_file()


def test_updates_do_not_stand_in_the_column_of_frames(tmp_path):
    protocol = REACH.protocols["smoke"].model_copy(
        update={"pretrain_frames": 0, "pretrain_updates": 1000, "data_transitions": 50}
    )
    write_search(tmp_path, make_job("apt", 1, protocol=protocol))
    row = collect(tmp_path, "toy-reach", "smoke").rows()[0]
    assert (row.pretrain_frames, row.pretrain_updates) == (0, 1000)


def test_whole_searches_have_no_problem(searches):
    assert validate(searches) == []


def test_a_missing_search_names_cell_and_command(searches):
    shutil.rmtree(searches / JOB.path)
    problem = only_problem(searches)
    assert (problem.kind, problem.agent, problem.seed, problem.goal_set) == ("missing", "apt", 1, 1)
    assert problem.message == "apt on arm_reach, goal set 1, seed 1: there is no run; make it with"
    assert problem.command == (
        "urlbench run --suite toy-reach --agent apt --tasks arm_reach --seeds 1-1 --preset smoke -o agent.lr=0.1 "
        f"--runs {searches}"
    )


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("episodes", lambda rows: rows.pop(3), "line 4 begins at goal 2, episode 0; goal 1, episode 10, belongs there"),
        ("episodes", lambda rows: rows.pop(0), "line 1 begins at goal 0, episode 10; goal 0, episode 0, belongs there"),
        ("episodes", lambda rows: rows.pop(), "ends before goal 4, episode 10; the protocol asks for 5 x 12 episodes"),
        ("episodes", lambda rows: rows.insert(2, rows[1]), "line 3 begins at goal 0, episode 10; goal 1, episode 0"),
        ("episodes", lambda rows: rows.append(rows[-1]), "line 11 begins at goal 4, episode 10; nothing more belongs"),
        ("episodes", lambda rows: rows.reverse(), "line 1 begins at goal 4, episode 10; goal 0, episode 0, belongs"),
        ("episodes", lambda rows: rows.clear(), "eval.jsonl is empty; the protocol asks for 5 x 12 episodes"),
        ("episodes", lambda rows: rows[0]["steps"].pop(), "line 1 (goal 0) holds lists that are empty or differ"),
        ("episodes", lambda rows: rows[0].update(steps=[0] * 10), "line 1 (goal 0) holds an episode without a step"),
        ("episodes", lambda rows: rows[0].update(task="arm_leave"), "line 1 (goal 0) is of task arm_leave"),
        ("nan", lambda rows: rows[2]["returns"].__setitem__(0, float("nan")), "line 3 (goal 1) holds a return or"),
        ("nan", lambda rows: rows[2]["max_rewards"].__setitem__(0, float("inf")), "line 3 (goal 1) holds a return or"),
        ("truncated", lambda rows: rows[1].pop("found"), "line 2 is damaged: not a block of episodes in JSON"),
        ("truncated", lambda rows: rows[1].update(found=[1, 0]), "line 2 is damaged: not a block of episodes in JSON"),
    ],
)
def test_wrong_blocks_are_named(tmp_path, kind, change, message):
    problem = changed(tmp_path, lambda rows: change(rows) and None)
    assert problem.kind == kind
    assert message in problem.message
    assert f"remove the folder {JOB.path} and make the run again with" in problem.message


def test_a_block_beyond_the_episodes_of_a_goal_is_named(tmp_path):
    def longer(rows):
        for name in ("found", "returns", "max_rewards", "steps"):
            rows[1][name] *= 2

    assert "line 2 goes beyond the 12 episodes of goal 0" in changed(tmp_path, longer).message


@pytest.mark.parametrize(
    ("preset", "name", "rule"),
    [("smoke", "max_rewards", "a step reward of at least 1"), ("paper-released-code", "returns", "a return above 1")],
)
def test_found_is_worked_out_again_from_the_rewards(tmp_path, preset, name, rule):
    job = make_job("apt", 1, preset=preset)
    rows = rows_of(job, np.zeros((GOALS, EPISODES), bool))
    rows[1]["found"][1] = True
    problem = changed(tmp_path, lambda _: rows, job)
    assert problem.kind == "found"
    assert f"line 2 (goal 0) says of episode 11 the opposite of its rewards: found means {rule}" in problem.message
    rows[1][name][1] = 2.0
    shutil.rmtree(tmp_path / job.path)
    write_search(tmp_path, job, content="".join(json.dumps(row) + "\n" for row in rows))
    assert validate(tmp_path) == []


@pytest.mark.parametrize(("reward", "found"), [(1.0, True), (0.999, False)])
def test_a_step_reward_at_the_threshold_finds_the_goal(tmp_path, reward, found):
    rows = rows_of(JOB, np.zeros((GOALS, EPISODES), bool))
    rows[0]["max_rewards"][0], rows[0]["found"][0] = reward, found
    write_search(tmp_path, JOB, content="".join(json.dumps(row) + "\n" for row in rows))
    assert validate(tmp_path) == []


def test_a_return_at_the_threshold_does_not(tmp_path):
    job = make_job("apt", 1, preset="paper-released-code")
    rows = rows_of(job, np.zeros((GOALS, EPISODES), bool))
    rows[0]["returns"][0], rows[0]["found"][0] = 1.0, True
    assert changed(tmp_path, lambda _: rows, job).kind == "found"


def test_a_truncated_file_is_named(tmp_path):
    content = "".join(json.dumps(row) + "\n" for row in rows_of(JOB, found_by(JOB)))
    write_search(tmp_path, JOB, content=content[:-3])
    assert "eval.jsonl is truncated: line 10 has no end" in only_problem(tmp_path).message


def test_a_file_changed_after_the_end_is_refused(searches):
    file = RunDirectory(searches / JOB.path).eval_file
    file.write_text(file.read_text().replace('"steps": [10', '"steps": [9'))
    problem = only_problem(searches)
    assert problem.kind == "hash"
    assert "was changed after the run ended" in problem.message


def test_an_unfinished_search_counts_episodes(searches):
    RunDirectory(searches / JOB.path).done_file.unlink()
    assert "queued at 0 of 60 episodes; go on with" in only_problem(searches).message


# --- goal sets ---------------------------------------------------------------------------------------


def test_runs_on_other_goal_sets_are_counted_and_left_out(searches):
    write_search(searches, make_job("apt", 1, goal_set=7))
    results = collect(searches, "toy-reach", "smoke")
    assert find_problems(results) == []
    assert (results.elsewhere, results.n_usable, results.n_expected) == (1, 6, 6)
    assert {row.goal_set for row in results.rows()} == {0, 1, 2}


def test_every_seed_is_expected_on_every_goal_set_that_is_chosen(searches):
    results = collect(searches, "toy-reach", "smoke", Selection(agents=("apt",), goal_sets=(0, 2)))
    assert (results.n_expected, results.n_usable, results.elsewhere) == (6, 2, 1)
    assert {(problem.seed, problem.goal_set) for problem in find_problems(results)} == {(0, 2), (1, 0), (1, 2), (2, 0)}
    with pytest.raises(IncompleteError) as caught:
        check(results)
    message = str(caught.value)
    assert "1 run is left out, on other goal sets than 0,2" in message
    together = [line.strip() for line in message.split("All gaps together:\n")[1].splitlines()]
    assert [" ".join(line.split()[8:]) for line in together] == [
        f"--seeds 0-1 --preset smoke --goal-sets 2-2 -o agent.lr=0.1 --runs {searches}",
        f"--seeds 1-2 --preset smoke --goal-sets 0-0 -o agent.lr=0.1 --runs {searches}",
    ]


def test_goal_sets_that_lack_the_same_seeds_go_into_one_command(searches):
    with pytest.raises(IncompleteError) as caught:
        check(collect(searches, "toy-reach", "smoke", Selection(agents=("apt",), goal_sets=(5, 6, 7))))
    together = str(caught.value).split("All gaps together:\n")[1].splitlines()
    assert len(together) == 1
    assert "--seeds 0-2 --preset smoke --goal-sets 5-7" in together[0]


def test_the_commands_plan_the_missing_runs(searches):
    """What a command says comes to the cells that are missing, whatever the seeds and sets."""
    shutil.rmtree(searches / JOB.path)
    for choice in (None, (0, 2)):
        missing = find_problems(
            collect(searches, "toy-reach", "smoke", Selection(agents=("random",), goal_sets=choice))
        )
        cells = set()
        for problem in missing:
            words = problem.command.split()
            chosen = {word: words[index + 1] for index, word in enumerate(words) if word.startswith("--")}
            sets = parse_seeds(chosen["--goal-sets"]) if "--goal-sets" in chosen else ()
            request = PlanRequest(
                suite="toy-reach",
                agents=("random",),
                seeds=parse_seeds(chosen["--seeds"]),
                preset="smoke",
                goal_sets=sets,
            )
            cells |= {(job.spec.seed, job.spec.goal_set) for job in make_plan(request).jobs}
        assert cells == {(problem.seed, problem.goal_set) for problem in missing}


def test_goal_sets_are_refused_where_there_are_none(tmp_path):
    write_searches(tmp_path, ["apt"], 1, suite=SPARSE)
    with pytest.raises(UserError, match="suite 'toy-sparse' has no goal sets"):
        validate(tmp_path, goal_sets=[1])


def test_a_duplicate_is_a_conflict_within_its_goal_set_only(searches):
    source = searches / JOB.path
    shutil.copytree(source, source.with_name("seed_1_copy"))
    assert only_problem(searches).kind == "duplicate"


def test_a_run_in_the_folder_of_another_goal_set_is_refused(searches):
    source = searches / JOB.path
    target = source.parent.with_name("goal_set_9")
    target.mkdir()
    source.rename(target / source.name)
    problem = only_problem(searches)
    assert problem.kind == "misplaced"
    assert f"holds the run that belongs in {JOB.path}" in problem.message


def test_presets_of_the_published_budget_never_mix(searches):
    write_search(searches, make_job("apt", 0, preset="paper"))
    write_search(searches, make_job("apt", 0, preset="paper-released-code"))
    assert validate(searches) == []
    for preset in ("paper", "paper-released-code"):
        assert len(collect(searches, "toy-reach", preset).selected) == 1


# --- pretrainings ------------------------------------------------------------------------------------


def write_with_pretraining(root: Path, job: Job, school: Suite = REACH, preset: str = "smoke", **changes) -> None:
    """The search `job`, and the pretraining of suite `school` that it starts from."""
    pretraining = make_pretraining(job, school, preset, **changes)
    write_search(root, pretraining)
    spec = job.spec.model_copy(update={"parent": pretraining.id})
    write_search(root, job.model_copy(update={"spec": spec, "id": job_id(spec)}))


def test_pretrainings_for_another_suite_are_no_gap(tmp_path):
    job = make_job("apt", 0, suite=SPARSE, task="arm_left")
    write_with_pretraining(tmp_path, job, TOY)
    assert validate(tmp_path) == []
    assert validate(tmp_path, "toy-sparse") == []
    # Whoever asks for the other suite asks for what starts from it there.
    assert [problem.kind for problem in validate(tmp_path, "toy")] == ["missing"]


def test_pretrainings_for_another_preset_are_no_gap(tmp_path):
    write_with_pretraining(tmp_path, make_job("apt", 0, preset="paper-released-code"), preset="paper")
    assert list(tmp_path.glob("toy-reach@1/*/paper/pretrain/arm/seed_0/DONE"))
    assert validate(tmp_path) == []
    assert validate(tmp_path, "toy-reach") == []


def test_a_pretraining_that_nothing_starts_from_is_a_gap(tmp_path):
    write_search(tmp_path, make_pretraining(make_job("apt", 2), REACH))
    problem = only_problem(tmp_path)
    assert (problem.kind, problem.task, problem.seed, problem.goal_set) == ("missing", "arm_reach", 2, 2)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"data": "f00d" * 16}, "data", "starts from a pretraining of data [f00df00d], most others of [none]"),
        (
            {"school": REACH.model_copy(update={"version": 0})},
            "versions",
            "of suite toy-reach@0, most others of toy-reach@1",
        ),
        (
            {"protocol": REACH.protocols["smoke"].model_copy(update={"pretrain_frames": 2000})},
            "protocol",
            "of budget 2000 frames, most others of 1000 frames",
        ),
    ],
)
def test_pretrainings_that_do_not_belong_together_are_a_conflict(tmp_path, changes, kind, message):
    for seed in range(3):
        write_with_pretraining(tmp_path, make_job("apt", seed), **(changes if seed == 2 else {}))
    (problem,) = [one for one in validate(tmp_path, "toy-reach@1", "smoke") if "starts from" in one.message]
    assert problem.kind == kind
    assert problem.is_conflict
    assert "seed_2 starts from" in problem.message
    assert message in problem.message


def test_the_command_names_the_data_that_was_pretrained_on(tmp_path):
    job = make_pretraining(make_job("apt", 2), REACH)
    write_search(tmp_path, job.model_copy(update={"data_path": "/my data/arm/rnd"}))
    assert "--data '/my data'" in only_problem(tmp_path).command
