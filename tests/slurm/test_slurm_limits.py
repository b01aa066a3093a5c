"""What a cluster does not take: too large arrays, too many jobs, wrong requests; the rest is submitted."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Command
from slurm_cluster import SlurmCluster, obstacle
from slurm_fakes import FakeSlurm, fake_slurm, profile, put, toy_plan
from toy_runs import PLUGIN

from urlbench.slurm.grouping import ArrayPlan
from urlbench.slurm.limits import array_limit, in_room
from urlbench.slurm.profile import Resources
from urlbench.slurm.queue import Queue, call
from urlbench.slurm.records import Records
from urlbench.slurm.run import run_on_slurm

__all__ = ["fake_slurm"]

PLAN = toy_plan(tasks=("ball_left",), seeds=(0, 1, 2))
PRETRAININGS = PLAN.jobs[:3]


def sizes(root: Path) -> list[tuple[str, int, str | None]]:
    """Phase, elements and dependency of what was submitted."""
    return [(record.phase, len(record.indices), record.dependency) for record in Records(root).all()]


# --- Refusals ---------------------------------------------------------------------------------------


def test_a_refused_array_is_named_and_what_was_submitted_stays(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_slurm.accept(1)
    assert fake_slurm.run(PLAN) == 3
    out = capsys.readouterr().out
    assert (
        "refused: 3 finetune runs in 3 elements, ball_left from 100, slots of 60 min, each after its pretraining: "
        "Job limit reached\n"
    ) in out
    assert "3 of 6 jobs submitted in 1 arrays; 0 were done and 0 in the queue before" in out
    assert "mend what was refused, then the same command submits it; what was submitted stays submitted\n" in out
    (kept,) = Records(fake_slurm.root).all()
    assert (kept.phase, kept.slurm_id) == ("pretrain", "101")
    assert [path.name for path in (fake_slurm.root / ".slurm").iterdir() if path.is_dir()] == [kept.name]

    fake_slurm.accept(100)
    assert fake_slurm.run(PLAN) == 0
    assert sizes(fake_slurm.root) == [("pretrain", 3, None), ("finetune", 3, "aftercorr:101")]


def test_after_a_refused_array_the_others_are_submitted_but_for_those_behind_it(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]
) -> None:
    put(fake_slurm.root, PRETRAININGS[1], "done")
    fake_slurm.write("before", "if grep -q time=77 \"$1\"; then echo 'sbatch: error: no' >&2; exit 1; fi")
    assert fake_slurm.run(PLAN, pretrain=Resources(slot_minutes=77)) == 3
    out = capsys.readouterr().out
    assert "refused: 2 pretrain runs in 2 elements, ball, slots of 77 min: no\n" in out
    assert "slots of 60 min, each after its pretraining: what they wait for was refused\n" in out
    assert "1 of 6 jobs submitted in 1 arrays" in out
    assert sizes(fake_slurm.root) == [("finetune", 1, None)]


def test_runs_that_have_failed_outweigh_a_refusal(fake_slurm: FakeSlurm) -> None:
    put(fake_slurm.root, PRETRAININGS[1], "failed")
    fake_slurm.accept(0)
    assert fake_slurm.run(PLAN) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            "sbatch: error: Memory specification can not be satisfied\n"
            "sbatch: error: Batch job submission failed: Requested node configuration is not available\n",
            "Memory specification can not be satisfied; Batch job submission failed: Requested node configuration is "
            "not available",
        ),
        *(
            (f"sbatch: error: {name}\nsbatch: error: Batch job submission failed: Job violates policy\n", f"{name}; ")
            for name in ("AssocMaxSubmitJobLimit", "AssocGrpSubmitJobsLimit", "QOSMaxSubmitJobPerUserLimit")
        ),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's "
            "size and/or time limits)\n",
            "and/or time limits); if you may have only so many jobs in the queue, write their number as max_submitted",
        ),
    ],
    ids=str,
)
def test_every_line_of_a_refusal_is_told(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], words: str, told: str
) -> None:
    fake_slurm.write("sbatch.refusal", words)
    assert fake_slurm.run(PLAN) == 3
    out = capsys.readouterr().out
    assert told in out
    assert ("max_submitted" in out) == ("ubmit" in words.replace("submission", ""))
    assert Records(fake_slurm.root).all() == []


@pytest.mark.parametrize(("program", "message"), [("sbatch", "sbatch"), ("srun", 'Could not detect "srun"')])
def test_a_missing_program_is_named(
    fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str], program: str, message: str
) -> None:
    fake_slurm.without(program)
    assert fake_slurm.run(PLAN) == 3
    assert message in capsys.readouterr().out
    assert Records(fake_slurm.root).all() == []


def test_an_answer_without_an_id_is_a_refusal(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    fake_slurm.write("before", "echo 'sbatch: lua: Welcome'; exit 0")
    assert fake_slurm.run(toy_plan(phase="pretrain")) == 3
    assert "slots of 60 min: Could not make sense of sbatch output" in capsys.readouterr().out


# --- Elements of an array ---------------------------------------------------------------------------


def test_arrays_are_as_large_as_the_cluster_says(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("config", "SlurmUser = slurm(64030)\nMaxArraySize            = 2\nMaxJobCount = 10000\n")
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0, 1, 2))) == 0
    assert fake_slurm.calls("scontrol") == ["show config"]
    assert sizes(fake_slurm.root) == [("pretrain", 2, None), ("pretrain", 1, None)]


def test_the_profile_s_limit_comes_first(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan(phase="pretrain", seeds=(0, 1, 2, 3)), max_array_size=3) == 0
    assert fake_slurm.calls("scontrol") == []
    assert sizes(fake_slurm.root) == [("pretrain", 3, None), ("pretrain", 1, None)]


@pytest.mark.parametrize(
    ("settings", "limit"),
    [
        ({"MaxArraySize": "4000001"}, (4000001, "MaxArraySize=4000001")),
        ({"MaxArraySize": "0"}, (0, "MaxArraySize=0")),
        ({}, (1001, "MaxArraySize=1001")),
        ({"SchedulerParameters": "(null)", "MaxArraySize": "5"}, (5, "MaxArraySize=5")),
        (
            {"SchedulerParameters": "defer,max_array_tasks=30,bf_interval=1", "MaxArraySize": "100"},
            (30, "max_array_tasks=30"),
        ),
        ({"SchedulerParameters": "max_array_tasks=300", "MaxArraySize": "100"}, (100, "MaxArraySize=100")),
    ],
)
def test_limits_that_clusters_have(settings: dict[str, str], limit: tuple[int, str]) -> None:
    assert array_limit(settings) == limit


def test_where_there_are_no_arrays_every_job_is_plain(fake_slurm: FakeSlurm) -> None:
    fake_slurm.write("config", "MaxArraySize = 0\n")
    assert fake_slurm.run(toy_plan(phase="pretrain")) == 0
    assert [row[1] for row in fake_slurm.queue()] == ["N/A", "N/A"]


# --- Jobs in the queue ------------------------------------------------------------------------------


def test_the_same_command_fills_the_queue_up(fake_slurm: FakeSlurm, capsys: pytest.CaptureFixture[str]) -> None:
    assert fake_slurm.run(PLAN, max_submitted=4) == 3
    out = capsys.readouterr().out
    assert "4 of 6 jobs submitted in 2 arrays; 0 were done and 0 in the queue before" in out
    assert "no room in the queue for 2 jobs (max_submitted 4); the same command submits them when there is\n" in out
    assert sizes(fake_slurm.root) == [("pretrain", 3, None), ("finetune", 1, "afterok:101_0")]
    assert len(list(fake_slurm.root.rglob("status.json"))) == 6, "all are seen as queued"

    assert fake_slurm.run(PLAN, max_submitted=4) == 3
    assert "0 of 6 jobs submitted in 0 arrays; 0 were done and 4 in the queue before" in capsys.readouterr().out
    put(fake_slurm.root, PRETRAININGS[0], "done")
    fake_slurm.change("101_0", None)
    assert fake_slurm.run(PLAN, max_submitted=5) == 0
    assert sizes(fake_slurm.root)[2:] == [("finetune", 2, "aftercorr:101")]
    assert Records(fake_slurm.root).all()[-1].indices == (1, 2)


def test_other_jobs_of_the_user_take_room(fake_slurm: FakeSlurm) -> None:
    others = "7|N/A|RUNNING|None|notebook\n8|1-9:2%3|PENDING|Priority|a|b\n9|N/A|RUNNING|None|two\nlines\n"
    fake_slurm.write("queue", others)
    assert Queue.look().jobs == 7
    assert fake_slurm.run(PLAN, max_submitted=9) == 3
    assert sizes(fake_slurm.root) == [("pretrain", 2, None)]
    assert Queue.look().jobs == 9


@pytest.mark.parametrize("most", [1, 2, 3])
def test_a_full_queue_takes_nothing(fake_slurm: FakeSlurm, most: int, capsys: pytest.CaptureFixture[str]) -> None:
    fake_slurm.write("queue", "7|0-2|RUNNING|None|notebooks\n")
    assert fake_slurm.run(PLAN, max_submitted=most) == 3
    assert f"no room in the queue for 6 jobs (max_submitted {most})" in capsys.readouterr().out
    assert fake_slurm.scripts() == []


def test_what_fits_are_the_first_elements() -> None:
    a, b, c, d = PLAN.jobs[:4]
    arrays = [
        ArrayPlan("one", "pretrain", ((a, b), (c,)), None),
        ArrayPlan("two", "finetune", ((), (d,), (), (a,), (b, c)), None),
        ArrayPlan("three", "finetune", ((d,),), None),
    ]
    found = {}
    for room in range(-1, 8):
        fitting, left = in_room(arrays, room)
        found[room] = ([(array.name, array.packs) for array in fitting], left)
    one, two, three = ((array.name, array.packs) for array in arrays)
    cut = [("two", ((), (d,))), ("two", ((), (d,), (), (a,)))]
    assert found == {
        **dict.fromkeys((-1, 0), ([], [a, b, c, d, a, b, c, d])),
        1: ([("one", ((a, b),))], [c, d, a, b, c, d]),
        2: ([one], [d, a, b, c, d]),
        3: ([one, cut[0]], [a, b, c, d]),
        4: ([one, cut[1]], [b, c, d]),
        5: ([one, two], [d]),
        **dict.fromkeys((6, 7), ([one, two, three], [])),
    }


def test_plan_tells_what_has_no_room(fake_slurm: FakeSlurm, urlbench: Command, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("resources: {slot: 77m}\nmax_submitted: 2\n")
    toy = ["--suite", "toy-states", "--agent", "toy", "--preset", "smoke", "--plugin", str(PLUGIN), "--seeds", "3"]
    place = ["--executor", "slurm", "--cluster", str(file), "--runs", str(fake_slurm.root)]
    outcome = urlbench("plan", *toy, "--phase", "pretrain", *place)
    assert outcome.out.splitlines()[-2:] == [
        "array: 2 pretrain runs in 2 elements, ball, slots of 77 min",
        "no room in the queue for 4 jobs (max_submitted 2)",
    ]
    assert fake_slurm.scripts() == []


# --- A real cluster ---------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlurmCluster]:
    """A cluster whose arrays may have an index up to 1000 but only two elements."""
    if obstacle():
        pytest.skip(f"needs Slurm: {obstacle()}")
    cluster = SlurmCluster(max_array_tasks=2)
    try:
        cluster.start()
        cluster.enter(monkeypatch)
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.slow
def test_a_real_cluster_takes_what_it_can(
    small: SlurmCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held, wrong = Resources(slot_minutes=30, extra={"hold": True}), Resources(slot_minutes=30, partition="nowhere")
    assert run_on_slurm(PLAN, tmp_path, profile(pretrain=held, finetune=wrong), retry_failed=False) == 3
    assert capsys.readouterr().out.count("Invalid partition name specified") == 2
    assert sizes(tmp_path) == [("pretrain", 2, None), ("pretrain", 1, None)]

    limited = profile(pretrain=held, finetune=held, max_submitted=4)
    assert run_on_slurm(PLAN, tmp_path, limited, retry_failed=False) == 3
    assert Queue.look().jobs == 4
    first = Records(tmp_path).all()[0]
    call("scancel", first.job_id(0))
    put(tmp_path, PRETRAININGS[0], "done")
    assert run_on_slurm(PLAN, tmp_path, limited, retry_failed=False) == 3
    assert Queue.look().jobs == 4
    assert "no room in the queue for 1 jobs" in capsys.readouterr().out
