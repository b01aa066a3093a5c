"""A real Slurm on this machine, for tests: its own daemons with two nodes of pretended cores and GPUs on loopback.

Nothing outside a private folder is touched, neither root nor cgroups nor a service is needed, and several clusters
run at once. There is no database, which takes seconds to start and is not what the tests are about: in its place a
`sacct` on PATH answers from `squeue`, as the controller remembers all jobs of a test.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import HANG_SECONDS, run_program

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scontrol", "scancel", "setpriv")
NODES = ("n1", "n2")
NODE_CORES, NODE_MEMORY_MIB, NODE_GPUS = 4, 4000, 2
# Where the daemons are, which is not on the PATH of ordinary users.
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
_PORTS = range(10_000, 32_000)
_POLL_SECONDS = 0.1

_CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits for as long as its credential lasts; much shorter, and slow starts would fail.
AuthInfo=socket={folder}/munge.sock,cred_expire=5
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
# Of what starts a job; the daemons themselves write to where their output goes.
SlurmdLogFile={folder}/log/steps-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
# More cores than the machine has: what is tried needs many slots, not much work.
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1,bf_interval=1,default_queue_depth=500,max_array_tasks={max_array_tasks}
PriorityType=priority/basic
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=3
CompleteWait=0
MinJobAge=3600
InactiveLimit=0
# Tests say themselves that a node is lost; one that only has no time to answer is not.
SlurmctldTimeout=600
SlurmdTimeout=600
MessageTimeout=100
MaxArraySize={max_array_size}
MaxJobCount=20000
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} {node}
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} {node}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=15
PartitionName=urgent Nodes=ALL MaxTime=INFINITE DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""

# Every file has to be a device, and a different one.
_GPUS = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"

_SACCT = """\
#!/bin/sh
# Understands only --parsable2, and the fields below.
header=yes
while [ $# -gt 0 ]; do
  case $1 in
    -j | --jobs) jobs=$jobs,$2; shift ;;
    --jobs=*) jobs=$jobs,${1#*=} ;;
    -o | --format) fields=$2; shift ;;
    --format=*) fields=${1#*=} ;;
    -n | --noheader) header= ;;
  esac
  shift
done
format=$(echo "$fields" | sed 's/JobID/%i/; s/State/%T/; s/NodeList/%N/; s/,/|/g')
if [ "$header" ]; then echo "$fields" | tr , '|'; fi
exec squeue --noheader --array --all --states all --jobs "${jobs#,}" --format "$format"
"""


def obstacle() -> str:
    """Why there can be no cluster here, in one sentence; "" if there can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(missing)}; see scripts/install_slurm.sh" if missing else ""


class SlurmCluster:
    """Nodes `n1` and `n2`, a partition `main`, and a partition `urgent` whose jobs take the place of those in `main`.

    Attributes:
        folder: holds everything of the cluster; its path is short, since a socket is in it.
    """

    def __init__(self, max_array_size: int = 1001, max_array_tasks: int | None = None) -> None:
        """Nothing is started yet.

        Args:
            max_array_size: one more than the highest index of an array.
            max_array_tasks: elements of an array, if that is fewer.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self._configuration = self.folder / "slurm.conf"
        self._limits = {"max_array_size": max_array_size, "max_array_tasks": max_array_tasks or max_array_size}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start everything, and wait until both nodes take jobs."""
        self.folder.chmod(0o755)  # munged refuses a socket that not all users can reach
        for name in ("state", "spool", "log", "bin", "key"):
            (self.folder / name).mkdir(mode=0o700)
        key = self.folder / "key" / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        sacct = self.folder / "bin" / "sacct"
        sacct.write_text(_SACCT)
        sacct.chmod(0o755)
        (self.folder / "gres.conf").write_text(_GPUS)
        self._configuration.write_text(
            _CONFIGURATION.format(
                folder=self.folder,
                host=socket.gethostname().partition(".")[0],
                user=os.getuid(),
                ports=_free_ports(3),
                **self._limits,
                node=f"CPUs={NODE_CORES} RealMemory={NODE_MEMORY_MIB} Gres=gpu:{NODE_GPUS}",
            )
        )
        places = {"key-file": key, "socket": self._socket, "pid-file": self.folder / "munged.pid"}
        places["seed-file"] = self.folder / "key" / "munge.seed"
        self._start("munged", "munged", "--foreground", *(f"--{name}={place}" for name, place in places.items()))
        self.wait_until(self._socket.exists, "munged listens")
        self._start_controller()
        for node in NODES:
            self._start_node(node)
        for node in NODES:
            self._wait_for_node(node)

    def stop(self) -> None:
        """End every process of the cluster and of its jobs, also of commands called in its environment."""
        self._kill(f"SLURM_CONF={self._configuration}")
        for daemon in self._daemons.values():
            daemon.wait()
        self._daemons.clear()
        shutil.rmtree(self.folder)

    def environment(self) -> dict[str, str]:
        """The environment of commands that are to speak to this cluster."""
        return {**os.environ, "SLURM_CONF": str(self._configuration), "PATH": f"{self.folder / 'bin'}:{_PATH}"}

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process, too, speak to this cluster."""
        for name, value in self.environment().items():
            monkeypatch.setenv(name, value)

    def run(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        done = self._call(*command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout

    def squeue(self) -> dict[str, str]:
        """The state of every job and of every element (`3_1`) of an array, of those that have ended, too."""
        listing = self.run("squeue", "--noheader", "--array", "--all", "--states", "all", "--format", "%i %T")
        return dict(line.split() for line in listing.splitlines())

    def kill_node(self, name: str) -> None:
        """What a power cut does: the node and all that runs on it are gone without a word; jobs are requeued.

        Slurm would notice it after half a minute, but is told at once.
        """
        self._kill(f"SLURM_CONF={self._configuration}", f"SLURMD_NODENAME={name}")
        self._daemons.pop(name).wait()
        self.run("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=lost")

    def start_node(self, name: str) -> None:
        """Start a node that was killed, and wait until it takes jobs."""
        self._start_node(name)
        self._wait_for_node(name)

    def restart_controller(self, *, kill: bool = False) -> None:
        """Start the controller again; killed, it may have forgotten jobs of the last seconds."""
        self._end_controller(signal.SIGKILL if kill else signal.SIGTERM)
        self._start_controller()

    @contextlib.contextmanager
    def forgetful_controller(self) -> Iterator[None]:
        """Kill the controller at the end, and have it forget the jobs that came within, as if it had not saved them."""
        state, saved = self.folder / "state", self.folder / "saved"
        self.restart_controller()
        shutil.copytree(state, saved)
        yield
        self._end_controller(signal.SIGKILL)
        shutil.rmtree(state)
        saved.rename(state)
        self._start_controller()

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until a condition holds; on failure show what Slurm knows and did."""
        limit = time.monotonic() + HANG_SECONDS
        while not condition():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if not ended and time.monotonic() < limit:
                time.sleep(_POLL_SECONDS)
                continue
            problem = f"has ended: {', '.join(ended)}" if ended else f"not within {HANG_SECONDS:.0f} s"
            jobs = "" if ended else self._call("squeue", "--array", "--all", "--states", "all").stdout
            tails = [f"{name}:\n{_tail(self._log(name))}" for name in dict.fromkeys(["slurmctld", *ended])]
            pytest.fail("\n".join([f"{what}: {problem}", jobs, *tails]))

    @property
    def _socket(self) -> Path:
        return self.folder / "munge.sock"

    def _log(self, daemon: str) -> Path:
        return self.folder / "log" / f"{daemon}.log"

    def _call(self, *command: str) -> subprocess.CompletedProcess[str]:
        return run_program(command, env=self.environment())

    def _start(self, name: str, *command: str, **variables: str) -> None:
        """Start a daemon that ends with this process, however that ends."""
        environment = self.environment() | variables
        with self._log(name).open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _end_controller(self, number: signal.Signals) -> None:
        controller = self._daemons.pop("slurmctld")
        controller.send_signal(number)
        controller.wait(HANG_SECONDS)

    def _start_controller(self) -> None:
        self._start("slurmctld", "slurmctld", "-D", "-i")
        self.wait_until(lambda: self._call("scontrol", "ping").returncode == 0, "the controller answers")

    def _start_node(self, name: str) -> None:
        # The variable is known to all that a node starts: Slurm gives it to jobs, and we to those that start jobs.
        self._start(name, "slurmd", "-D", "-N", name, SLURMD_NODENAME=name)

    def _wait_for_node(self, name: str) -> None:
        def takes_jobs() -> bool:
            state = self._call("sinfo", "--noheader", "--nodes", name, "--partition", "main", "--format", "%T").stdout
            return state.strip() in ("idle", "mixed", "allocated")

        self.wait_until(takes_jobs, f"node {name} takes jobs")

    def _kill(self, *marks: str) -> None:
        """Kill all processes that were started with these environment variables, and what they start meanwhile."""
        wanted = {mark.encode() for mark in marks}
        while found := [pid for pid, variables in processes() if wanted <= variables]:
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(_POLL_SECONDS)


def processes() -> Iterator[tuple[int, set[bytes]]]:
    """All processes that run and can be looked at, but this one, with the environment they were started with."""
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end at any time, or belong to somebody else.
        with contextlib.suppress(OSError):
            if folder.name != str(os.getpid()):
                yield int(folder.name), set((folder / "environ").read_bytes().split(b"\0"))


def _free_ports(number: int) -> list[int]:
    """Ports that nobody uses and that no client is given, so that a daemon finds its port free when it is restarted."""
    ports: list[int] = []
    while len(ports) < number:
        port = random.SystemRandom().choice(_PORTS)
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            ports += [port] if port not in ports else []
    return ports


def _tail(log: Path, lines: int = 30) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else "no log"
