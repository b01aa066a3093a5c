"""The command line without running anything: lists, plans, status, and what bad input is answered."""

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import Command
from processes import run_program
from toy_runs import PLUGIN

from urlbench import __version__
from urlbench.cli import app as cli
from urlbench.cli.overview import read_overview
from urlbench.core.jobs import Job
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore

TOY = ["--suite", "toy-states", "--agent", "toy", "--domains", "ball", "--preset", "smoke", "--plugin", str(PLUGIN)]
URLB = ["--suite", "urlb-states", "--agent", "random", "--seeds", "1", "--preset", "smoke"]


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command below a group, with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


COMMANDS = dict(commands(typer.main.get_command(cli.app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_every_option_with_all_its_words(
    urlbench: Command, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # in narrow columns words are broken
    shown = re.sub(r"[\s│]+", "", urlbench(*words, "--help").out)
    for option in COMMANDS[words].params:
        if option.param_type_name == "option" and option.name != "help":
            assert option.opts[0] in shown
            assert re.sub(r"\s+", "", option.help) in shown


def test_help_lists_the_commands_that_everybody_needs_first(urlbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    listed = re.findall(r"^│ ([a-z]+) ", urlbench("--help").out, re.MULTILINE)
    assert listed[:3] == ["run", "report", "status"]
    assert set(listed) == {words[0] for words in COMMANDS}


@pytest.mark.parametrize(
    ("line", "offered"),
    [("urlbench re", {"report", "retry"}), ("urlbench data ver", {"verify"}), ("urlbench run --exec", {"--executor"})],
)
def test_bash_completes_what_was_begun(line: str, offered: set[str], tmp_path: Path) -> None:
    command = tmp_path / "urlbench"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m urlbench "$@"\n')
    command.chmod(0o755)
    script = r"""
        eval "$(_URLBENCH_COMPLETE=source_bash urlbench)"
        COMP_WORDS=($LINE)
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        $(complete -p urlbench | sed -E 's/.*-F ([^ ]+) .*/\1/') urlbench
        printf '%s\n' "${COMPREPLY[@]}"
    """
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LINE": line}
    done = run_program(["bash", "-c", script], check=True, env=environment)
    assert set(done.stdout.split()) == offered, done.stderr


def toy_jobs(**changes: Any) -> tuple[Job, ...]:
    choices = {"domains": ("ball",), "seeds": (0, 1), "preset": "smoke", "plugins": (str(PLUGIN),), **changes}
    return make_plan(PlanRequest(**{"suite": "toy-states", "agents": ("toy",), **choices})).jobs


def put(directory: RunDirectory, job: Job, **changes: Any) -> None:
    """Make a run directory look like a run in the state that `changes` describe."""
    directory.prepare(job)
    status = directory.read_status()
    assert status is not None
    directory.write_status(status.model_copy(update=changes))
    if changes.get("state") == "done":
        directory.eval_file.write_text("")
        directory.finish(status.budget)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["list", "agents"], ["run", "--help"]])
def test_help_and_lists_import_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom urlbench.cli.app import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print([m for m in sys.modules if m in "
        "('numpy', 'yaml', 'torch', 'dm_control', 'mujoco', 'scipy', 'pandas', 'matplotlib')])\n"
    )
    done = run_program([sys.executable, "-c", script, *arguments], check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_list_tasks_imports_definitions_only() -> None:
    script = (
        "import sys\nfrom urlbench.cli.listing import list_rows\nassert len(list_rows('tasks')) >= 12\n"
        "print([m for m in sys.modules if m in ('torch', 'dm_control', 'mujoco')])"
    )
    done = run_program([sys.executable, "-c", script], check=True)
    assert done.stdout.strip() == "[]"


def test_version(urlbench: Command) -> None:
    assert urlbench("--version").out == f"urlbench {__version__}\n"


def test_no_command_shows_the_help(urlbench: Command) -> None:
    outcome = urlbench()
    assert "doctor" in outcome.out
    assert "Exit codes: 0 complete, 1 failures, 2 usage, 3 incomplete" in outcome.out


def test_list_json(urlbench: Command) -> None:
    lists = json.loads(urlbench("list", "--json").out)
    assert {row["name"] for row in lists["agents"]} >= {"choreographer", "random"}
    tasks = json.loads(urlbench("list", "tasks", "--json").out)
    flips = {row["suite"]: row["domain"] for row in tasks if row["name"] == "walker_flip"}
    assert flips["urlb-states@1"] == flips["urlb-offline@1"] == "walker"


def test_list_tasks_gives_each_task_one_line(urlbench: Command) -> None:
    lines = urlbench("list", "tasks").out.splitlines()
    flip = next(line for line in lines if line.startswith("walker_flip "))
    assert flip.endswith("urlb-offline*, urlb-pixels, urlb-states")
    assert sum(line.startswith("walker_flip ") for line in lines) == 1


def test_show_suite(urlbench: Command) -> None:
    text = urlbench("show", "suite", "urlb-states").out
    for part in ("walker_flip", "799", "2M", "100k, 500k, 1M, 2M", "dm_control, mujoco", "Table 2"):
        assert part in text
    shown = json.loads(urlbench("show", "suite", "urlb-states", "--json").out)
    assert shown["protocols"]["paper"]["pretrain_frames"] == 2_000_000


def test_show_agent(urlbench: Command) -> None:
    outcome = urlbench("show", "agent", "toy", "--plugin", str(PLUGIN))
    assert "  learning_rate = 0.01\n" in outcome.out
    assert "  schedule.batch_size = 4\n" in outcome.out
    shown = json.loads(urlbench("show", "agent", "toy", "--plugin", str(PLUGIN), "--json").out)
    assert shown["config"]["schedule"]["batch_size"] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "agent"], "unknown kind 'agent'; did you mean 'agents'?"),
        (["show", "suites", "x"], "unknown kind 'suites'; did you mean 'suite'?"),
        (["show", "suite", "urlb-state"], "unknown suite 'urlb-state'; did you mean 'urlb-states'?"),
        (["show", "agent", "choregrapher"], "unknown agent 'choregrapher'; did you mean 'choreographer'?"),
        (["run", *URLB, "--suite", "urlb-pixel"], "unknown suite 'urlb-pixel'; did you mean 'urlb-pixels'?"),
        (["run", *URLB, "--agent", "randon"], "unknown agent 'randon'; did you mean 'random'?"),
        (["run", *URLB, "--tasks", "walker_fly"], "unknown task 'walker_fly' in suite 'urlb-states'; did you mean"),
        (["run", *URLB, "--domains", "runner"], "unknown domain 'runner' in suite 'urlb-states'"),
        (["run", *URLB, "--seeds", "0"], "--seeds 0 asks for no seeds"),
        (["run", *URLB, "--seeds", "two"], "cannot read --seeds 'two'"),
        (["run", *URLB, "--preset", "tiny"], "unknown preset 'tiny' of suite 'urlb-states'"),
        (["run", *URLB, "--snapshots", "5k"], "no snapshot is kept at 5k frames with preset 'smoke'"),
        (["run", *URLB, "-o", "agent.lr=1"], "unknown key 'lr' in the configuration of agent 'random'"),
        (["run", *URLB, "-o", "protocol.finetune_frames=1"], "cannot be changed: tasks and budgets belong"),
        (["run", *URLB, "--config", "none.yaml"], "cannot read the configuration file 'none.yaml'"),
        (["run", *URLB, "--plugin", "none.py"], "does not exist; give --plugin a .py file or a module name"),
        (["run", *URLB, "--workers", "0"], "--workers 0 is too few"),
        (["run", *URLB, "--runs", "a_file"], "'a_file' is a file; give --runs a folder"),
        (["run", *URLB, "--phase", "pretrain"], "gives no jobs: random has no pretraining"),
        (["status"], "there is no runs folder 'runs'"),
        (["logs", "abc"], "there is no runs folder 'runs'"),
        (["validate"], "there is no runs folder 'runs'"),
        (["report", "--suite", "urlb-states"], "there is no runs folder 'runs'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(urlbench: Command, arguments: list[str], message: str) -> None:
    Path("a_file").touch()
    outcome = urlbench(*arguments)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert outcome.err.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run"],
        ["run", *URLB, "--device", "tpu"],
        ["run", *URLB, "--phase", "eval"],
        ["nonsense"],
        ["run", "--nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(urlbench: Command, arguments: list[str]) -> None:
    assert urlbench(*arguments).code == 2


def test_an_unwritable_runs_folder_is_named(urlbench: Command, tmp_path: Path) -> None:
    blocker = tmp_path / "runs" / "toy-states@1"
    blocker.parent.mkdir()
    blocker.write_text("a file where a folder must be made")
    outcome = urlbench("run", *TOY, "--seeds", "1")
    assert outcome.code == 2
    assert "cannot be written" in outcome.err


def test_plan_shows_the_expansion_and_changes_nothing(urlbench: Command) -> None:
    outcome = urlbench("plan", *TOY, "--seeds", "2", "--workers", "2")
    assert outcome.code == 0
    for line in (
        "seeds: 0, 1",
        "tasks: ball_left, ball_right",
        "REDUCED BUDGET: tiny; marked in every result, never mixed with the paper's",
        "6 jobs to run in 2 waves, 2 at a time",
        "cost of 2 x toy pretrain: unknown, no such run has finished here yet",
        "total cost: unknown",
    ):
        assert line in outcome.out.splitlines()
    assert not Path("runs").exists()


def test_plan_measures_finished_runs_and_says_what_is_skipped(urlbench: Command) -> None:
    store = RunStore(Path("runs"))
    for number, job in enumerate(toy_jobs(phase="pretrain")):
        directory = store.run_dir(job)
        put(directory, job, state="done")
        seconds = 1800 * (number + 1)
        rows = [{"attempt": 1, "started": 100.0}, {"attempt": 1, "ended": 100.0 + seconds, "reason": "done"}]
        directory.attempts_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        directory.manifest_file.write_text(json.dumps({"hardware": {"gpu": None}}))
    plan = json.loads(urlbench("plan", *TOY, "--seeds", "4", "--phase", "pretrain", "--json").out)
    (cost,) = plan["costs"]
    assert (cost["jobs"], cost["measured_runs"], cost["seconds_per_job"], cost["device"]) == (2, 2, 2700.0, "cpu")
    assert plan["total_hours"] == pytest.approx(1.5)
    assert plan["skipped"] == ["toy pretrain ball seed 0: done", "toy pretrain ball seed 1: done"]
    assert len(plan["plan"]) == 4
    assert "1.5 CPU hours" in urlbench("plan", *TOY, "--seeds", "4", "--phase", "pretrain").out


def test_status_is_a_grid_with_reasons_and_logs(urlbench: Command) -> None:
    jobs = toy_jobs(seeds=(0, 1, 2))
    store = RunStore(Path("runs"))
    pretraining = [job for job in jobs if job.spec.phase == "pretrain"]
    left = [job for job in jobs if job.spec.task == "ball_left" and job.spec.phase == "finetune"]
    put(store.run_dir(pretraining[0]), pretraining[0], state="done")
    put(store.run_dir(pretraining[1]), pretraining[1], state="failed", message="the loss was NaN", progress=40)
    put(store.run_dir(pretraining[2]), pretraining[2], state="running", progress=25)
    put(store.run_dir(left[0]), left[0], state="interrupted", progress=8, message="stopped by SIGTERM")
    put(store.run_dir(left[1]), left[1])
    outcome = urlbench("status")
    assert outcome.code == 0
    grid = [line.split() for line in outcome.out.splitlines()]
    assert ["seed", "0", "seed", "1", "seed", "2"] in grid
    assert ["pretrain", "ball", "done", "failed", "40%", "stale", "25%"] in grid
    assert ["finetune", "ball_left", "from", "100", "interrupted", "10%", "queued", "-"] in grid
    assert "reason: the loss was NaN" in outcome.out
    assert f"log: {pretraining[1].path}/log.txt" in outcome.out
    assert "5 runs: 1 done, 1 queued, 1 failed, 1 stale, 1 interrupted" in outcome.out
    shown = json.loads(urlbench("status", "--json").out)
    assert {run["state"] for run in shown["runs"]} == {"done", "queued", "failed", "stale", "interrupted"}
    assert urlbench("status", "--agent", "random").out == "0 runs\n"


def test_status_says_running_while_a_process_holds_the_lock(tmp_path: Path) -> None:
    job = toy_jobs(phase="pretrain", seeds=(0,))[0]
    directory = RunDirectory(tmp_path / job.path)
    put(directory, job, state="running", per_second=12.5)
    with directory.lock():
        (run,) = read_overview(tmp_path).runs
    assert (run.state, run.per_second) == ("running", 12.5)


def test_status_shows_damage_and_goes_on(urlbench: Command) -> None:
    job, other = toy_jobs(phase="pretrain")
    store = RunStore(Path("runs"))
    put(store.run_dir(job), job, state="done")
    store.run_dir(job).eval_file.write_text("edited\n")
    store.run_dir(other).path.mkdir(parents=True)
    store.run_dir(other).spec_file.write_text("{")
    outcome = urlbench("status")
    assert "damaged" in outcome.out
    assert "was changed after the run ended" in outcome.out
    assert "unreadable: " in outcome.out
    assert outcome.code == 0


def test_logs_finds_a_run_by_id_and_by_path(urlbench: Command) -> None:
    job, other = toy_jobs(phase="pretrain")
    store = RunStore(Path("runs"))
    for one in (job, other):
        put(store.run_dir(one), one)
    log = store.run_dir(job).log_file
    assert "has not started" in urlbench("logs", job.id).err
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    assert urlbench("logs", job.id[:8], "--lines", "2").out == f"{log}\nline 98\nline 99\n"
    assert urlbench("logs", job.path, "--lines", "1").out == f"{log}\nline 99\n"
    assert urlbench("logs", str(log.parent), "--lines", "1").out == f"{log}\nline 99\n"
    assert "is neither a run directory nor the beginning of a job id" in urlbench("logs", "zzz").err


def test_validate_names_gaps_and_ends_with_3(urlbench: Command) -> None:
    job = toy_jobs(phase="pretrain", seeds=(0,))[0]
    put(RunStore(Path("runs")).run_dir(job), job, state="done")
    outcome = urlbench("validate", "--plugin", str(PLUGIN))
    assert outcome.code == 3
    assert "urlbench run --suite toy-states" in outcome.out
    problems = json.loads(urlbench("validate", "--plugin", str(PLUGIN), "--json").out)
    assert {problem["kind"] for problem in problems} == {"missing"}


def test_report_refuses_gaps_with_3(urlbench: Command) -> None:
    job = toy_jobs(phase="pretrain", seeds=(0,))[0]
    put(RunStore(Path("runs")).run_dir(job), job, state="done")
    outcome = urlbench("report", "--suite", "toy-states", "--preset", "smoke", "--plugin", str(PLUGIN))
    assert outcome.code == 3
    assert outcome.err.startswith("error: ")


def test_doctor_checks_the_machine(urlbench: Command) -> None:
    checks = {check["name"]: check for check in json.loads(urlbench("doctor", "--json").out)}
    assert set(checks) == {
        *("python", "packages", "suites", "torch", "cores", "memory", "runs folder", "environment", "rendering")
    }
    assert checks["environment"]["result"] == "ok"
    assert checks["python"]["result"] == "ok"


def test_doctor_fails_where_runs_cannot_be_written(urlbench: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    outcome = urlbench("doctor")
    assert outcome.code == 1
    assert "failed   runs folder: cannot write in " in outcome.out
