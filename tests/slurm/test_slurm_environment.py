"""What callers set for Slurm's commands overrules no profile: every variable that these commands know."""

import os
import re
from contextlib import suppress
from pathlib import Path

import pytest
from slurm_cluster import SlurmCluster
from slurm_fakes import FakeSlurm, fake_slurm, profile, toy_plan

from urlbench.cli.overview import read_overview
from urlbench.core.errors import UserError
from urlbench.slurm.control import cancel
from urlbench.slurm.environment import options_hidden, without_options
from urlbench.slurm.profile import Resources
from urlbench.slurm.queue import call
from urlbench.slurm.run import run_on_slurm

__all__ = ["fake_slurm"]

# Of the manual pages of sbatch, srun, squeue, sacct, scancel and scontrol, Slurm 22.05.
OPTIONS = """
    SACCT_FEDERATION SACCT_LOCAL SBATCH_ACCOUNT SBATCH_ACCTG_FREQ SBATCH_ARRAY_INX SBATCH_BATCH SBATCH_CLUSTERS
    SBATCH_CONSTRAINT SBATCH_CONTAINER SBATCH_CORE_SPEC SBATCH_CPUS_PER_GPU SBATCH_DEBUG SBATCH_DELAY_BOOT
    SBATCH_DISTRIBUTION SBATCH_ERROR SBATCH_EXCLUSIVE SBATCH_EXPORT SBATCH_GET_USER_ENV SBATCH_GPUS
    SBATCH_GPUS_PER_NODE SBATCH_GPUS_PER_TASK SBATCH_GPU_BIND SBATCH_GPU_FREQ SBATCH_GRES SBATCH_GRES_FLAGS
    SBATCH_HINT SBATCH_IGNORE_PBS SBATCH_INPUT SBATCH_JOB_NAME SBATCH_MEM_BIND SBATCH_MEM_PER_CPU
    SBATCH_MEM_PER_GPU SBATCH_MEM_PER_NODE SBATCH_NETWORK SBATCH_NO_KILL SBATCH_NO_REQUEUE SBATCH_OPEN_MODE
    SBATCH_OUTPUT SBATCH_OVERCOMMIT SBATCH_PARTITION SBATCH_POWER SBATCH_PROFILE SBATCH_QOS SBATCH_REQUEUE
    SBATCH_REQ_SWITCH SBATCH_RESERVATION SBATCH_SIGNAL SBATCH_SPREAD_JOB SBATCH_THREADS_PER_CORE
    SBATCH_THREAD_SPEC SBATCH_TIMELIMIT SBATCH_USE_MIN_NODES SBATCH_WAIT SBATCH_WAIT4SWITCH
    SBATCH_WAIT_ALL_NODES SBATCH_WCKEY SCANCEL_ACCOUNT SCANCEL_BATCH SCANCEL_CTLD SCANCEL_FULL SCANCEL_HURRY
    SCANCEL_INTERACTIVE SCANCEL_NAME SCANCEL_PARTITION SCANCEL_QOS SCANCEL_STATE SCANCEL_USER SCANCEL_VERBOSE
    SCANCEL_WCKEY SCONTROL_ALL SCONTROL_FEDERATION SCONTROL_FUTURE SCONTROL_LOCAL SCONTROL_SIBLING SLURM_ACCOUNT
    SLURM_ACCTG_FREQ SLURM_BCAST SLURM_BCAST_EXCLUDE SLURM_BITSTR_LEN SLURM_BURST_BUFFER SLURM_CLUSTERS
    SLURM_COMPRESS SLURM_CONF_OUT SLURM_CONSTRAINT SLURM_CORE_SPEC SLURM_CPUS_PER_GPU SLURM_CPU_BIND
    SLURM_CPU_FREQ_REQ SLURM_DEBUG SLURM_DEBUG_FLAGS SLURM_DELAY_BOOT SLURM_DEPENDENCY SLURM_DISABLE_STATUS
    SLURM_DISTRIBUTION SLURM_DIST_PLANESIZE SLURM_EPILOG SLURM_EXACT SLURM_EXCLUSIVE SLURM_EXIT_ERROR
    SLURM_EXIT_IMMEDIATE SLURM_EXPORT_ENV SLURM_GPUS SLURM_GPUS_PER_NODE SLURM_GPUS_PER_TASK SLURM_GPU_BIND
    SLURM_GPU_FREQ SLURM_GRES SLURM_GRES_FLAGS SLURM_HINT SLURM_IMMEDIATE SLURM_JOB_ID SLURM_JOB_NAME
    SLURM_JOB_NUM_NODES SLURM_KILL_BAD_EXIT SLURM_LABELIO SLURM_MEM_BIND SLURM_MEM_PER_CPU SLURM_MEM_PER_GPU
    SLURM_MEM_PER_NODE SLURM_MPI_TYPE SLURM_NETWORK SLURM_NNODES SLURM_NO_KILL SLURM_NPROCS SLURM_NTASKS
    SLURM_NTASKS_PER_CORE SLURM_NTASKS_PER_GPU SLURM_NTASKS_PER_NODE SLURM_NTASKS_PER_SOCKET SLURM_OPEN_MODE
    SLURM_OVERCOMMIT SLURM_OVERLAP SLURM_PARTITION SLURM_PMI_KVS_NO_DUP_KEYS SLURM_POWER SLURM_PROFILE
    SLURM_PROLOG SLURM_QOS SLURM_REMOTE_CWD SLURM_REQ_SWITCH SLURM_RESERVATION SLURM_RESV_PORTS SLURM_SEND_LIBS
    SLURM_SIGNAL SLURM_SPREAD_JOB SLURM_SRUN_REDUCE_TASK_EXIT_MSG SLURM_STDERRMODE SLURM_STDINMODE
    SLURM_STDOUTMODE SLURM_STEP_GRES SLURM_STEP_KILLED_MSG_NODE_ID SLURM_TASK_EPILOG SLURM_TASK_PROLOG
    SLURM_TEST_EXEC SLURM_THREADS SLURM_THREADS_PER_CORE SLURM_THREAD_SPEC SLURM_TIMELIMIT SLURM_TIME_FORMAT
    SLURM_TOPO_LEN SLURM_UMASK SLURM_UNBUFFEREDIO SLURM_USE_MIN_NODES SLURM_WAIT SLURM_WAIT4SWITCH SLURM_WCKEY
    SLURM_WORKING_DIR SQUEUE_ACCOUNT SQUEUE_ALL SQUEUE_ARRAY SQUEUE_FEDERATION SQUEUE_FORMAT SQUEUE_FORMAT2
    SQUEUE_LICENSES SQUEUE_LOCAL SQUEUE_NAMES SQUEUE_PARTITION SQUEUE_PRIORITY SQUEUE_QOS SQUEUE_SIBLING
    SQUEUE_SORT SQUEUE_STATES SQUEUE_USERS SRUN_CONTAINER SRUN_CPUS_PER_TASK SRUN_EXPORT_ENV
"""
# What Slurm sets in jobs, also in interactive ones.
OF_A_JOB = """
    SLURM_ARRAY_JOB_ID SLURM_ARRAY_TASK_COUNT SLURM_ARRAY_TASK_ID SLURM_ARRAY_TASK_MAX SLURM_ARRAY_TASK_MIN
    SLURM_ARRAY_TASK_STEP SLURM_CLUSTER_NAME SLURM_CONTAINER SLURM_CPUS_ON_NODE SLURM_CPUS_PER_TASK
    SLURM_CPU_BIND_LIST SLURM_CPU_BIND_TYPE SLURM_CPU_BIND_VERBOSE SLURM_GPUS_ON_NODE SLURM_GPUS_PER_SOCKET
    SLURM_GTIDS SLURM_HET_SIZE SLURM_JOBID SLURM_JOB_ACCOUNT SLURM_JOB_CPUS_PER_NODE SLURM_JOB_DEPENDENCY
    SLURM_JOB_GPUS SLURM_JOB_NODELIST SLURM_JOB_NODES SLURM_JOB_PARTITION SLURM_JOB_QOS SLURM_JOB_RESERVATION
    SLURM_LAUNCH_NODE_IPADDR SLURM_LOCALID SLURM_MEM_BIND_LIST SLURM_MEM_BIND_PREFER SLURM_MEM_BIND_SORT
    SLURM_MEM_BIND_TYPE SLURM_MEM_BIND_VERBOSE SLURM_NODEID SLURM_NODELIST SLURM_NODE_ALIASES SLURM_PRIO_PROCESS
    SLURM_PROCID SLURM_RESTART_COUNT SLURM_SHARDS_ON_NODE SLURM_SRUN_COMM_HOST SLURM_SRUN_COMM_PORT SLURM_STEPID
    SLURM_STEP_GPUS SLURM_STEP_ID SLURM_STEP_LAUNCHER_PORT SLURM_STEP_NODELIST SLURM_STEP_NUM_NODES
    SLURM_STEP_NUM_TASKS SLURM_STEP_TASKS_PER_NODE SLURM_SUBMIT_DIR SLURM_SUBMIT_HOST SLURM_TASKS_PER_NODE
    SLURM_TASK_PID SLURM_TOPOLOGY_ADDR SLURM_TOPOLOGY_ADDR_PATTERN
"""
ALL = (*OPTIONS.split(), *OF_A_JOB.split())
ACCESS = {"SLURM_CONF": "/of the site", "SLURM_CONF_SERVER": "head", "SLURM_JWT": "token"}
PLAN = toy_plan(tasks=("ball_left",))


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is set."""
    for name in ALL:
        monkeypatch.setenv(name, "1")
    for name, value in ACCESS.items():
        monkeypatch.setenv(name, value)


def seen(fake: FakeSlurm, program: str) -> dict[str, str]:
    """The variables of Slurm's that a program was last called with."""
    found = dict(line.partition("=")[::2] for line in fake.read(f"environment of {program}").splitlines())
    return {name: value for name, value in found.items() if name in ALL or name in ACCESS}


@pytest.mark.usefixtures("hostile")
def test_no_command_of_slurm_is_told_any_of_them_but_where_the_cluster_is(fake_slurm: FakeSlurm) -> None:
    assert fake_slurm.run(PLAN) == 0
    fake_slurm.change("101_0", None)
    fake_slurm.write("accounting", "101_0|TIMEOUT\n")
    read_overview(fake_slurm.root)
    cancel(fake_slurm.root, [PLAN.jobs[1].path])
    for program in ("sbatch", "squeue", "scontrol", "sacct", "scancel"):
        assert seen(fake_slurm, program) == ACCESS | ({"SLURM_BITSTR_LEN": "0"} if program != "sbatch" else {}), program


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize("refusal", ["", "sbatch: error: no\n"])
def test_afterwards_everything_is_as_the_caller_left_it(fake_slurm: FakeSlurm, refusal: str) -> None:
    if refusal:
        fake_slurm.write("sbatch.refusal", refusal)
    before = dict(os.environ)
    with options_hidden():
        assert dict(os.environ) == without_options(before)
    with suppress(UserError):
        fake_slurm.run(PLAN)
    assert dict(os.environ) == before


def test_jobs_in_hidden_partitions_are_seen(fake_slurm: FakeSlurm) -> None:
    fake_slurm.script("squeue", 'case " $* " in *" --all "*) cat queue;; esac')
    for _ in range(2):
        assert fake_slurm.run(PLAN) == 0
    assert len(fake_slurm.scripts()) == 2


@pytest.mark.slow
def test_a_real_cluster_does_what_the_profile_says(
    slurm: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm.enter(monkeypatch)
    mine = {"SBATCH_JOB_NAME": "mine", "SBATCH_TIMELIMIT": "1", "SBATCH_PARTITION": "urgent", "SBATCH_EXPORT": "NONE"}
    mine |= {"SBATCH_OUTPUT": "/nowhere", "SBATCH_ARRAY_INX": "0-5", "SBATCH_SIGNAL": "KILL@59", "SBATCH_HINT": "no"}
    mine |= {"SLURM_MEM_PER_CPU": "10", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_JOB_ID": "1"}
    mine |= {"SRUN_EXPORT_ENV": "NONE", "SLURM_CLUSTERS": "other", "SQUEUE_STATES": "COMPLETED"}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    plan = toy_plan(phase="pretrain", seeds=(0,))
    # Both at once, as starting takes a job some seconds.
    for number, extra in enumerate(({}, {"export": "NONE"})):
        asked = Resources(slot_minutes=7, memory_gib=0.5, extra=extra)
        root = tmp_path / f"my runs {number}"
        for _ in range(2):
            assert run_on_slurm(plan, root, profile(pretrain=asked), retry_failed=False) == 0
    lines = call("squeue", "--noheader", "--states=all", "--format=%P|%l|%D|%C|%m|%j").splitlines()
    assert [re.sub(r"\w{10}$", "X", line) for line in lines] == ["main|7:00|1|1|512M|urlbench-X"] * 2
    slurm.wait_until(lambda: len(list(tmp_path.rglob("DONE"))) == 2, "both runs are done")
