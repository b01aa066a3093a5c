"""`urlbench doctor --cluster`: does this cluster do what urlbench needs, with the resources of this profile?

Slurm's commands and configuration are looked at from here. What only a node can know, one short job tries; see
cluster_probe.py.
"""

import fcntl
import json
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from submitit import SlurmExecutor

from urlbench.core.durable import explained, write_atomic
from urlbench.core.errors import UserError, unknown_name
from urlbench.local.check import Check
from urlbench.slurm.cluster_probe import FOUND, LOCK, RESTARTED, TOKEN, TOLD, Probe, installed
from urlbench.slurm.code_snapshot import take_snapshot
from urlbench.slurm.environment import options_hidden
from urlbench.slurm.limits import array_limit, configuration
from urlbench.slurm.profile import PHASES, Profile
from urlbench.slurm.queue import call
from urlbench.slurm.records import ArrayRecord, Records
from urlbench.slurm.run import check_path
from urlbench.slurm.submission import REFUSALS, parameters, refusal

_COMMANDS = ("sbatch", "srun", "squeue", "scancel", "scontrol")
_AGAIN = "run the doctor again"
_SLOT_MINUTES = 15  # of the job; a short one starts sooner
_POLL_SECONDS = 1.0
# Network file systems show new files of other machines late.
_LATE_FILE_SECONDS = 40.0


def run_cluster_checks(profile: Profile, root: Path, wait: float) -> Iterator[Check]:
    """All checks, as they are made; no job is tried while something before it is wrong.

    Args:
        profile: of the cluster.
        root: folder of the runs, absolute.
        wait: seconds that the job may take, from its submission to its second end.
    """
    missing = [command for command in _COMMANDS if shutil.which(command) is None]
    if missing:
        detail = (
            f"not on PATH: {', '.join(missing)}; go to a machine of the cluster that submits jobs, or load its module"
        )
        yield Check(name="commands", result="failed", detail=detail)
        return
    yield Check(name="commands", result="ok", detail=", ".join(_COMMANDS))
    try:
        settings = configuration()
        partitions = _partitions()
    except UserError as error:
        yield Check(name="controller", result="failed", detail=str(error))
        return
    version, cluster = settings.get("SLURM_VERSION", "of unknown version"), settings.get("ClusterName", "?")
    yield Check(name="controller", result="ok", detail=f"Slurm {version}, cluster {cluster}")
    checks = [
        *_partition_checks(profile, partitions),
        _arrays(profile, settings),
        _requeueing(settings),
        _preemption(settings),
        _accounting(settings),
    ]
    yield from checks
    if any(check.result == "failed" for check in checks):
        yield Check(name="job", result="warning", detail="none was tried; put the above right first")
    else:
        yield from _job(profile, root, wait)


# --- What Slurm says of itself ----------------------------------------------------------------------


def _partitions() -> dict[str, dict[str, str]]:
    """The properties of every partition, by its name."""
    lines = call("scontrol", "--all", "--oneliner", "show", "partition").splitlines()
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return {one["PartitionName"]: one for one in found if "PartitionName" in one}


def _partition_checks(profile: Profile, partitions: Mapping[str, Mapping[str, str]]) -> Iterator[Check]:
    """One check for each partition that a phase uses, with the longest slot there."""
    slots: dict[str, int] = {}
    default = next((name for name, one in partitions.items() if one.get("Default") == "YES"), None)
    for phase in PHASES:
        resources = profile.for_phase(phase)
        names = resources.partition or default
        if names is None:
            detail = "the cluster has no default partition; name one in the profile"
            yield Check(name="partition", result="failed", detail=detail)
            return
        for name in names.split(","):
            slots[name] = max(slots.get(name, 0), resources.slot_minutes)
    for name, slot in slots.items():
        label = f"partition {name}"
        if name not in partitions:
            error = unknown_name("partition", name, partitions, where="in the profile")
            yield Check(name=label, result="failed", detail=str(error))
            continue
        state, longest = partitions[name].get("State", "?"), partitions[name].get("MaxTime", "UNLIMITED")
        found = f"{state}, longest slot {longest}"
        if state != "UP":
            yield Check(name=label, result="failed", detail=f"{found}; wait until it is up, or choose another")
        elif (most := _minutes(longest)) is not None and slot > most:
            detail = f"{found}, and the profile asks for {slot} min; give a shorter slot: elements are requeued"
            yield Check(name=label, result="failed", detail=detail)
        else:
            yield Check(name=label, result="ok", detail=f"{found}, {partitions[name].get('TotalNodes', '?')} nodes")


def _minutes(text: str) -> float | None:
    """A time limit in Slurm's words, such as 1-12:00:00; None without a limit."""
    if text in ("UNLIMITED", "INFINITE", "NONE"):
        return None
    days, _, clock = text.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return 1440 * int(days or 0) + 60 * hours + minutes + seconds / 60


def _arrays(profile: Profile, settings: Mapping[str, str]) -> Check:
    most, limit = array_limit(settings)
    asked = profile.max_array_size
    if most < 2:
        detail = f"switched off ({limit}), so every job is submitted alone, which takes long"
        return Check(name="arrays", result="warning", detail=detail)
    if asked is not None and asked > most:
        detail = f"of at most {most} elements ({limit}); lower max_array_size ({asked}) in the profile, or leave it out"
        return Check(name="arrays", result="failed", detail=detail)
    return Check(name="arrays", result="ok", detail=f"of at most {asked or most} elements ({limit})")


def _requeueing(settings: Mapping[str, str]) -> Check:
    kill_wait = f"KillWait {settings.get('KillWait', '?')}"
    if settings.get("JobRequeue") == "0":
        detail = f"off unless a job asks for it, as those of urlbench do (JobRequeue=0), {kill_wait}"
        return Check(name="requeueing", result="warning", detail=detail)
    return Check(name="requeueing", result="ok", detail=f"on (JobRequeue=1), {kill_wait}")


def _preemption(settings: Mapping[str, str]) -> Check:
    mode, kind = settings.get("PreemptMode", "OFF"), settings.get("PreemptType", "(null)")
    found = "none" if mode == "OFF" or kind in ("(null)", "preempt/none") else f"{mode} ({kind})"
    if "CANCEL" in found:
        detail = f"{found}: preempted jobs are cancelled; the same urlbench run submits them again"
        return Check(name="preemption", result="warning", detail=detail)
    return Check(name="preemption", result="ok", detail=found)


def _accounting(settings: Mapping[str, str]) -> Check:
    storage = settings.get("AccountingStorageType", "(null)")
    if storage in ("(null)", "accounting_storage/none"):
        detail = "none: how a lost job ended is only known from its log"
        return Check(name="accounting", result="warning", detail=detail)
    return Check(name="accounting", result="ok", detail=storage)


# --- The job ----------------------------------------------------------------------------------------


def _job(profile: Profile, root: Path, wait: float) -> Iterator[Check]:
    """Submit the probe, wait for it, and tell what it found; its files are removed when all is well."""
    created = not root.exists()
    records = Records(root)
    folder = records.folder / f"doctor-{secrets.token_hex(5)}"
    try:
        check_path(root)
        try:
            folder.mkdir(parents=True)
            lock = (folder / LOCK).open("a")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise explained(error, folder, _AGAIN) from error
        with lock:
            job_id = _submit(profile, records, folder)
            yield Check(
                name="job",
                result="ok",
                detail=f"{job_id} submitted as for pretrain; waiting at most {wait:.0f} s for its two starts",
            )
            state = _wait(folder, job_id, wait)
    except UserError as error:
        _remove(folder, records, created)
        yield Check(name="job", result="failed", detail=str(error))
        return
    checks = list(_findings(folder, job_id, state, wait))
    yield from checks
    if any(check.result == "failed" for check in checks) and _log(folder, job_id).exists():
        yield Check(name="job", result="warning", detail=f"its files are kept; remove them when all is well: {folder}")
    else:
        _remove(folder, records, created)


def _remove(folder: Path, records: Records, created: bool) -> None:
    """Remove the files of the probe, and folders that were only made for it."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # only if nothing else is in them
        records.folder.rmdir()
        if created:
            records.root.rmdir()


def _log(folder: Path, job_id: str) -> Path:
    return folder / "log" / f"{job_id}_0_log.out"


def _submit(profile: Profile, records: Records, folder: Path) -> str:
    """Submit the probe as an array's element is submitted; the job's id.

    Raises:
        UserError: if Slurm refuses.
    """
    token = secrets.token_hex(16)
    write_atomic(folder / TOKEN, token, remedy=_AGAIN)
    code, digest = take_snapshot(folder / "code")
    slot = min(profile.pretrain.slot_minutes, max(_SLOT_MINUTES, profile.signal_seconds // 60 + 5))
    tried = profile.model_copy(update={"pretrain": profile.pretrain.model_copy(update={"slot_minutes": slot})})
    record = ArrayRecord(
        name=folder.name,
        phase="pretrain",
        elements=((),),
        dependency=None,
        profile=tried,
        code=digest,
        plugins={},
        submitted=time.time(),
    )
    executor = SlurmExecutor(folder / "log")
    executor.update_parameters(**parameters(record, code))
    try:
        with options_hidden():
            job = executor.submit(Probe(folder, records.root, token, digest, installed(), profile))
    except REFUSALS as error:
        raise UserError(f"sbatch refused it: {refusal(error)}; correct the profile, then {_AGAIN}.") from error
    return str(job.job_id)


def _wait(folder: Path, job_id: str, seconds: float) -> str:
    """Wait for the end of the job, and cancel it if there is none; its last state, "" if it has ended."""
    state, deadline = "not seen by squeue", time.monotonic() + seconds
    try:
        while state and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
            # A controller that does not answer is no end.
            with suppress(UserError):
                state = _state(folder.name)
    finally:
        if state:
            with suppress(UserError):
                call("scancel", job_id)
    late = time.monotonic() + _LATE_FILE_SECONDS
    while not state and not (folder / RESTARTED).exists() and time.monotonic() < late:
        time.sleep(_POLL_SECONDS)
    return state


def _state(name: str) -> str:
    """The state of a job and Slurm's reason for it; "" if it has left the queue."""
    return call("squeue", "--noheader", "--all", f"--name={name}", "--format=%T (%r)").strip()


def _findings(folder: Path, job_id: str, state: str, wait: float) -> Iterator[Check]:
    """What the files of the probe say.

    Args:
        folder: of the probe.
        job_id: of its job.
        state: its last one; "" if it has ended by itself.
        wait: seconds that it had.
    """
    log = _log(folder, job_id)
    late = f"within {wait:.0f} s: {state}; it was cancelled, give it more time with --wait"
    if not (folder / FOUND).exists():
        if state.startswith("PENDING"):
            detail = f"{job_id} did not start {late}"
        elif state:
            detail = f"{job_id} did not end its checks {late}, or see {log}"
        elif log.exists():
            detail = f"{job_id} ended before its checks did; see {log}"
        else:
            detail = f"{job_id} ended without a word; give --runs a folder on a disk that all nodes share"
        yield Check(name="job", result="failed", detail=detail)
        return
    yield from map(Check.model_validate, json.loads((folder / FOUND).read_bytes()))
    if not (folder / TOLD).exists():
        detail = f"USR2, which announces the end of a slot, does not reach the job; see {log}"
        yield Check(name="end of a slot", result="failed", detail=detail)
    elif (folder / RESTARTED).exists():
        second = json.loads((folder / RESTARTED).read_bytes())
        detail = f"announced, and queued again; restart {second['restarts']} on {second['host']}"
        yield Check(name="end of a slot", result="ok", detail=detail)
    elif state:
        yield Check(name="end of a slot", result="failed", detail=f"announced, but not started again {late}")
    else:
        detail = f"announced, but the job could not be queued again; see {log}"
        yield Check(name="end of a slot", result="failed", detail=detail)
