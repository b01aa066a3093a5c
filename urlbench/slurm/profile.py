"""The profile of a cluster: what an array element asks Slurm for, read from a YAML file that people write.

docs/cluster.example.yaml shows every key.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from urlbench.core.config import read_yaml
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Phase, Spec

PHASES: tuple[Phase, ...] = ("pretrain", "finetune", "search")

# Parameters of sbatch that cannot be given below `extra`, with what to do instead.
_SET_BY_URLBENCH = "urlbench sets it; leave it out"
_RESERVED = {
    **dict.fromkeys(("array", "dependency", "kill-on-invalid-dep", "job-name"), _SET_BY_URLBENCH),
    **dict.fromkeys(("output", "error", "open-mode", "parsable", "wait", "wrap", "test-only"), _SET_BY_URLBENCH),
    "quiet": "sbatch has to say the job's id",
    "clusters": "the jobs of other clusters are not seen here; go to a machine of that one",
    **dict.fromkeys(("nodes", "ntasks", "ntasks-per-node", "requeue", "no-requeue"), _SET_BY_URLBENCH),
    "signal": "use signal_seconds",
    "time": "use slot",
    "cpus-per-task": "use cpus",
    "mem": "use memory_gib",
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-task"), "use gpus, and gres for a type of GPU"),
    **{name: f"use {name}" for name in ("partition", "account", "qos", "constraint")},
}
_UNITS = re.compile(r"(?:(?P<days>\d+)d)?(?:(?P<hours>\d+)h)?(?:(?P<minutes>\d+)m)?")
_CLOCK = re.compile(r"(?:(?P<days>\d+)-)?(?P<hours>\d+):(?P<minutes>[0-5]\d):00")


def _one_word(text: str) -> str:
    if not re.fullmatch(r"\S+", text):
        raise ValueError("should be one word")
    return text


def _one_line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("should be one line")
    return text


def _node_folder(text: str) -> str:
    if not text.startswith(("/", "$")) or "\n" in text:
        raise ValueError("should be a path that begins with / or with a $VARIABLE of the node")
    return text


def _allowed_parameters(extra: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name, value in extra.items():
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(f"should name parameters of sbatch as after its --, such as mail-type, not {name!r}")
        if name in _RESERVED:
            raise ValueError(f"should not hold {name}: {_RESERVED[name]}")
        if isinstance(value, str):
            _one_line(value)
    # A parameter without a value is on when it is there at all: sbatch knows no --exclusive=False.
    return {name: value for name, value in extra.items() if value is not False}


Word = Annotated[str, AfterValidator(_one_word)]
Parameters = Annotated[dict[str, str | int | bool], AfterValidator(_allowed_parameters)]


class Resources(Spec):
    """What one array element asks for; it is one task on one node.

    Attributes:
        partition: or several, separated by commas; None for the cluster's default, as for the next three.
        account: who pays.
        qos: quality of service.
        constraint: features that a node must have.
        gpus: of any type, unless `extra` holds a `gres` that says which.
        cpus: cores.
        memory_gib: None for the cluster's default.
        slot_minutes: time limit, after which an element that is not done is requeued; in YAML `slot`, such as 4h, 30m,
            1d12h, 01:30:00 or 1-12:00:00.
        array_parallelism: elements of an array at the same time; None for all.
        extra: any other parameter of sbatch by its long name; `true` for one without a value.
    """

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    gpus: int = Field(default=0, ge=0)
    cpus: int = Field(default=1, ge=1)
    # sbatch reads 0 as all of a node's memory.
    memory_gib: float | None = Field(default=None, ge=0.1, allow_inf_nan=False)
    slot_minutes: int = Field(ge=1)
    array_parallelism: int | None = Field(default=None, ge=1)
    extra: Parameters = Field(default_factory=dict)

    @property
    def gpus_in_gres(self) -> int:
        """GPUs that `gres` in `extra` asks for, such as gpu, gpu:2 or gpu:a100:2; 0 if it asks for none."""
        entries = [entry.split(":") for entry in str(self.extra.get("gres", "")).split(",")]
        return sum(int(words[-1]) if words[-1].isdigit() else 1 for words in entries if words[0] == "gpu")

    @property
    def all_gpus(self) -> int:
        """GPUs that an element gets."""
        return self.gpus_in_gres or self.gpus


_RESOURCE_KEYS = {"slot" if key == "slot_minutes" else key for key in Resources.model_fields}


class Profile(Spec):
    """A cluster as its users see it.

    Attributes:
        resources: what all phases share.
        pretrain: `resources` with this phase's changes applied; in YAML only the changes.
        finetune: like `pretrain`.
        search: like `pretrain`.
        setup: shell lines before the job, such as `module load cuda`.
        scratch: folder on the node for temporary files, may hold $VARIABLES of the node; None for the node's choice.
        signal_seconds: how long before a slot's end an element is told to save and to queue again.
        runs_per_gpu: runs that share a GPU; an element without one counts as one.
        max_array_size: elements of an array; None to ask the cluster.
        max_submitted: jobs that the user may have in the queue at the same time, of whatever kind, where an element
            counts as one; None without a limit.
        threads: of each run.
        env_workers: processes of each run that play evaluation episodes.
        device: `auto` is a GPU if there is one.
    """

    resources: Resources
    pretrain: Resources
    finetune: Resources
    search: Resources
    setup: tuple[str, ...] = ()
    scratch: Annotated[str, AfterValidator(_node_folder)] | None = None
    signal_seconds: int = Field(default=120, ge=1)
    runs_per_gpu: int = Field(default=1, ge=1)
    max_array_size: int | None = Field(default=None, ge=1)
    max_submitted: int | None = Field(default=None, ge=1)
    threads: int = Field(default=1, ge=1)
    env_workers: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _a_slot_holds_its_signal(self) -> Self:
        for phase in PHASES:
            minutes = self.for_phase(phase).slot_minutes
            if self.signal_seconds >= 60 * minutes:
                raise ValueError(
                    f"signal_seconds is {self.signal_seconds}, and the slot of {phase} only {minutes} min; "
                    "give a longer slot or fewer seconds"
                )
        return self

    def for_phase(self, phase: Phase) -> Resources:
        """What the elements of a phase ask for."""
        return {"pretrain": self.pretrain, "finetune": self.finetune, "search": self.search}[phase]

    def usable_gpus(self, phase: Phase) -> int:
        """GPUs of an element that its runs may use."""
        return 0 if self.device == "cpu" else self.for_phase(phase).all_gpus

    def runs_per_element(self, phase: Phase) -> int:
        """The most runs that share an element."""
        return self.runs_per_gpu * max(self.usable_gpus(phase), 1)


def load_profile(path: Path) -> Profile:
    """The profile in a YAML file.

    Raises:
        UserError: for a file that is missing or not YAML, an unknown key, with the nearest known one, or a wrong value.
    """
    where = f"in the cluster profile {str(path)!r}"
    read = read_yaml(
        path,
        what="cluster profile",
        option="--cluster",
        holds="keys such as resources:, with slot: 4h below it",
        loader=_Loader,
    )
    content = {key: value for key, value in read.items() if value is not None}
    if misplaced := content.keys() & _RESOURCE_KEYS:
        raise UserError(f"{min(misplaced)} {where} stands alone; move it below resources, or below a phase.")
    _refuse_unknown_keys(content, set(Profile.model_fields), "", where)
    shared = _section(content, "resources", where)
    sections = {"resources": _resources({}, shared, "resources", where)}
    for phase in PHASES:
        sections[phase] = _resources(shared, _section(content, phase, where), phase, where)
    try:
        return Profile.model_validate({**content, **sections})
    except ValidationError as error:
        raise _explained(error, "", where) from error


class _Loader(yaml.SafeLoader):
    """YAML in which 12:30:00 and 012345 are texts, not numbers of base 60 and 8, and 2026-11-21 is no date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag.rpartition(":")[2] not in ("int", "timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"), list("-+0123456789"))


def _section(content: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    section = content.get(name, {})
    if not isinstance(section, Mapping):
        raise UserError(f"{name} {where} is {section!r}; write keys such as slot: 4h below it.")
    _refuse_unknown_keys(section, _RESOURCE_KEYS, f"{name}.", where)
    values = dict(section)
    if values.get("extra", {}) is None:
        del values["extra"]
    return values


def _resources(shared: Mapping[str, Any], changes: Mapping[str, Any], name: str, where: str) -> Resources:
    values = {**shared, **changes}
    if isinstance(shared.get("extra"), Mapping) and isinstance(changes.get("extra"), Mapping):
        values["extra"] = {**shared["extra"], **changes["extra"]}
    if "slot" not in values:
        raise UserError(f"{name}.slot {where} is missing; write how long an element may run, for example slot: 4h.")
    values["slot_minutes"] = _minutes(values.pop("slot"), f"{name}.slot {where}")
    try:
        return Resources.model_validate(values)
    except ValidationError as error:
        raise _explained(error, f"{name}.", where) from error


def _minutes(slot: Any, what: str) -> int:
    text = str(slot)
    match = _UNITS.fullmatch(text) or _CLOCK.fullmatch(text)
    parts = {unit: int(number) for unit, number in match.groupdict().items() if number} if match else {}
    minutes = 1440 * parts.get("days", 0) + 60 * parts.get("hours", 0) + parts.get("minutes", 0)
    if not minutes:
        raise UserError(f"{what} is {slot!r}; write whole minutes, hours or days such as 30m, 4h, 1d12h or 01:30:00.")
    return minutes


def _refuse_unknown_keys(values: Mapping[Any, Any], known: set[str], prefix: str, where: str) -> None:
    for key in values:
        if key not in known:
            raise unknown_name("key", f"{prefix}{key}", {f"{prefix}{name}" for name in known}, where=where)


def _explained(error: ValidationError, prefix: str, where: str) -> UserError:
    """The first thing that is wrong, as one sentence."""
    first = error.errors()[0]
    if not first["loc"]:
        return UserError(f"{where}, {first['msg'].removeprefix('Value error, ')}.")
    should = re.sub(r"^(Value error, |Input |String )", "", first["msg"]).replace("tuple", "list")
    quotes = "; put it in quotes" if first["type"] == "string_type" else ""
    # Members of unions are places, too, and no keys.
    key = prefix + ".".join(str(part) for part in first["loc"] if part not in ("str", "int", "bool"))
    return UserError(f"{key} {where} is {first['input']!r}, but {should}{quotes}.")
