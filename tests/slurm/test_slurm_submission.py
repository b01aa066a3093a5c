"""What sbatch is given, word for word, and what happens when it refuses."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from slurm_fakes import CODE, DIGEST, FIRST_ID, FakeSlurm, fake_slurm, profile, toy_plan
from submitit.helpers import DelayedSubmission

from urlbench.core.jobs import Job
from urlbench.slurm.grouping import ArrayPlan, Dependency
from urlbench.slurm.profile import Resources
from urlbench.slurm.records import NAME_PREFIX, ArrayRecord, Records, record_of
from urlbench.slurm.submission import dependency_text, submit

__all__ = ["fake_slurm"]
NAME = "urlbench-0123456789"
FULL = Resources(
    partition="gpu,long",
    account="my-lab",
    qos="high",
    constraint="a100&ib",
    gpus=2,
    cpus=8,
    memory_gib=15.5,
    slot_minutes=240,
    array_parallelism=3,
    extra={"mail-type": "FAIL", "exclude": "n[1-3]", "comment": "it's a test", "exclusive": True, "nice": 10},
)


def record(
    jobs: tuple[Job, ...], resources: Resources, dependency: str | None = None, **changes: object
) -> ArrayRecord:
    """An array with a run in each element; pretrainings ask for `resources`, and the others for something else."""
    chosen = profile(pretrain=resources, **changes)
    plan = ArrayPlan(NAME, "pretrain", tuple((job,) for job in jobs), None)
    return record_of(plan, dependency, chosen, DIGEST, {})


def lines(script: str, root: Path) -> list[str]:
    """A submission script with what depends on the machine taken out."""
    log = shlex.quote(f"{root}/.slurm/{NAME}/log")
    assert log in script
    return [
        line.replace(str(root), "ROOT").replace(shlex.quote(sys.executable), "PYTHON")
        for line in script.splitlines()
        if line
    ]


def test_the_script_of_the_smallest_profile(fake_slurm: FakeSlurm) -> None:
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    submit(record((job,), Resources(slot_minutes=60)), Records(fake_slurm.root), CODE)
    (script,) = fake_slurm.scripts()
    assert lines(script, fake_slurm.root) == [
        "#!/bin/bash",
        "# Parameters",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --job-name=urlbench-0123456789",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --output='ROOT/.slurm/urlbench-0123456789/log/%j_0_log.out'",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --time=60",
        "# setup",
        "export PYTHONPATH='/code of a test'${PYTHONPATH:+:$PYTHONPATH}",
        "export PYTHONSAFEPATH=1",
        "export SLURM_OPEN_MODE=append",
        "# command",
        "export SUBMITIT_EXECUTOR=slurm",
        "srun --unbuffered --output 'ROOT/.slurm/urlbench-0123456789/log/%j_%t_log.out' "
        "--export=ALL PYTHON -u -m submitit.core._submit 'ROOT/.slurm/urlbench-0123456789/log'",
    ]


def test_the_script_of_a_profile_with_everything(fake_slurm: FakeSlurm) -> None:
    jobs = toy_plan(phase="pretrain", seeds=(0, 1, 2, 3)).jobs
    setup = ("module load cuda", "source '/home/me/my env/bin/activate'")
    made = record(jobs, FULL, "aftercorr:77", setup=setup, signal_seconds=90)
    submit(made, Records(fake_slurm.root), CODE)
    (script,) = fake_slurm.scripts()
    assert lines(script, fake_slurm.root) == [
        "#!/bin/bash",
        "# Parameters",
        "#SBATCH --account=my-lab",
        "#SBATCH --array=0-3%3",
        "#SBATCH --comment='it'\"'\"'s a test'",
        "#SBATCH --constraint='a100&ib'",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --dependency=aftercorr:77",
        "#SBATCH --exclude='n[1-3]'",
        "#SBATCH --exclusive",
        "#SBATCH --gpus-per-node=2",
        "#SBATCH --job-name=urlbench-0123456789",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --mem=15872M",
        "#SBATCH --nice=10",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --output='ROOT/.slurm/urlbench-0123456789/log/%A_%a_0_log.out'",
        "#SBATCH --partition=gpu,long",
        "#SBATCH --qos=high",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=240",
        "# setup",
        "module load cuda",
        "source '/home/me/my env/bin/activate'",
        "export PYTHONPATH='/code of a test'${PYTHONPATH:+:$PYTHONPATH}",
        "export PYTHONSAFEPATH=1",
        "export SLURM_OPEN_MODE=append",
        "# command",
        "export SUBMITIT_EXECUTOR=slurm",
        "srun --unbuffered --output 'ROOT/.slurm/urlbench-0123456789/log/%A_%a_%t_log.out' "
        "--export=ALL PYTHON -u -m submitit.core._submit 'ROOT/.slurm/urlbench-0123456789/log'",
    ]


def test_a_gres_takes_the_place_of_gpus(fake_slurm: FakeSlurm) -> None:
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    resources = Resources(slot_minutes=60, gpus=1, extra={"gres": "gpu:a100:1"})
    submit(record((job,), resources), Records(fake_slurm.root), CODE)
    (script,) = fake_slurm.scripts()
    assert re.findall(r"#SBATCH --(?:gpu|gres).*", script) == ["#SBATCH --gres=gpu:a100:1"]


def test_without_array_parallelism_all_elements_may_run_at_once(fake_slurm: FakeSlurm) -> None:
    jobs = toy_plan(phase="pretrain", seeds=tuple(range(300))).jobs
    submit(record(jobs, Resources(slot_minutes=60)), Records(fake_slurm.root), CODE)
    assert "#SBATCH --array=0-299%300\n" in fake_slurm.scripts()[0]


def test_quotes_in_the_name_of_the_runs_folder_stay_in_it(fake_slurm: FakeSlurm, tmp_path: Path) -> None:
    fake_slurm.root = tmp_path / 'it\'s "my" $HOME; `runs`'
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    submit(record((job,), Resources(slot_minutes=60)), Records(fake_slurm.root), CODE)
    (script,) = fake_slurm.scripts()
    folder = str(Records(fake_slurm.root).log_folder(NAME))
    (output,) = re.findall("^#SBATCH --output=(.*)$", script, re.MULTILINE)
    (command,) = re.findall("^srun .*$", script, re.MULTILINE)
    assert shlex.split(output) == [f"{folder}/%j_0_log.out"]
    assert shlex.split(command)[3] == f"{folder}/%j_%t_log.out"
    assert shlex.split(command)[-1] == folder


def test_what_a_job_loads_starts_its_element(fake_slurm: FakeSlurm) -> None:
    jobs = toy_plan(phase="pretrain").jobs
    submitted = submit(record(jobs, Resources(slot_minutes=60)), Records(fake_slurm.root), CODE)
    folder = Records(fake_slurm.root).log_folder(NAME)
    for index in (0, 1):
        delayed = DelayedSubmission.load(folder / f"{submitted.job_id(index)}_submitted.pkl")
        assert delayed.function._arguments == (str(fake_slurm.root), NAME, str(index))
        assert (delayed._timeout_min, delayed._timeout_countdown) == (60, 10**9)


# --- Ids and dependencies ---------------------------------------------------------------------------


def test_an_array_is_known_before_slurm_hears_of_it_and_has_its_id_after(fake_slurm: FakeSlurm) -> None:
    jobs = toy_plan(phase="pretrain").jobs
    records = Records(fake_slurm.root)
    file = fake_slurm.root / ".slurm" / NAME / "array.json"
    fake_slurm.write("after", f"cp {shlex.quote(str(file))} seen")
    given = record(jobs, Resources(slot_minutes=60))
    submitted = submit(given, records, CODE)
    assert ArrayRecord.model_validate_json(fake_slurm.read("seen")) == given
    assert given.slurm_id is None
    assert records.all() == [submitted]
    assert submitted == given.model_copy(update={"slurm_id": str(FIRST_ID)})
    assert [submitted.job_id(index) for index in (0, 1)] == ["101_0", "101_1"]


def test_one_element_is_a_plain_job(fake_slurm: FakeSlurm) -> None:
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    submitted = submit(record((job,), Resources(slot_minutes=60)), Records(fake_slurm.root), CODE)
    assert (submitted.slurm_id, submitted.is_array, submitted.job_id(0)) == ("101", False, "101")
    assert fake_slurm.queue() == [["101", "N/A", "PENDING", "Priority", NAME]]


@pytest.mark.parametrize(
    ("dependency", "elements", "parents", "text"),
    [
        (Dependency("aftercorr", NAME, None), 2, 2, "aftercorr:101"),
        (Dependency("aftercorr", NAME, None), 1, 2, "afterok:101_0"),
        (Dependency("aftercorr", NAME, None), 1, 1, "afterok:101"),
        (Dependency("afterok", NAME, 1), 2, 2, "afterok:101_1"),
        (Dependency("afterok", NAME, 0), 2, 1, "afterok:101"),
    ],
)
def test_dependencies_in_the_words_of_sbatch(dependency: Dependency, elements: int, parents: int, text: str) -> None:
    jobs = toy_plan(phase="pretrain", seeds=tuple(range(parents))).jobs
    submitted = record(jobs, Resources(slot_minutes=60)).model_copy(update={"slurm_id": "101"})
    array = ArrayPlan("urlbench-of-children", "finetune", ((jobs[0],),) * elements, dependency)
    assert dependency_text(array, submitted) == text


@pytest.mark.parametrize(
    ("indices", "parallelism", "text"),
    [
        ((0, 1, 2), None, "0-2%3"),
        ((0, 2, 3, 4, 9), None, "0,2-4,9%5"),
        ((7,), None, "7%1"),
        ((0, 1, 3), 2, "0-1,3%2"),
    ],
)
def test_the_elements_of_an_array_in_the_words_of_sbatch(
    fake_slurm: FakeSlurm, indices: tuple[int, ...], parallelism: int | None, text: str
) -> None:
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    made = record((job,), Resources(slot_minutes=60, array_parallelism=parallelism))
    elements = tuple((job.path,) if index in indices else () for index in range(indices[-1] + 1))
    submitted = submit(made.model_copy(update={"elements": elements}), Records(fake_slurm.root), CODE)
    assert re.findall("--array=(.*)", fake_slurm.scripts()[0]) == [text]
    assert [int(row[1]) for row in fake_slurm.queue()] == list(indices) == list(submitted.indices)
    folder = Records(fake_slurm.root).log_folder(NAME)
    for index in indices:
        delayed = DelayedSubmission.load(folder / f"{submitted.job_id(index)}_submitted.pkl")
        assert delayed.function._arguments == (str(fake_slurm.root), NAME, str(index))


def test_names_are_slurm_s_and_nobody_else_s(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(toy_plan()) == 0
    names = [record.name for record in Records(fake_slurm.root).all()]
    assert len(set(names)) == 3
    assert all(re.fullmatch(f"{NAME_PREFIX}[0-9a-f]{{10}}", name) for name in names)
    assert list(dict.fromkeys(row[4] for row in fake_slurm.queue())) == names


def test_a_record_keeps_what_was_asked_for(fake_slurm: FakeSlurm) -> None:
    (job,) = toy_plan(phase="pretrain", seeds=(0,)).jobs
    made = submit(record((job,), FULL, scratch="$TMP/x"), Records(fake_slurm.root), CODE)
    stored = json.loads((fake_slurm.root / ".slurm" / NAME / "array.json").read_text())
    assert stored["profile"]["pretrain"]["extra"] == FULL.extra
    assert (stored["elements"], stored["code"]) == ([[job.path]], DIGEST)
    assert Records(fake_slurm.root).read(NAME) == made
