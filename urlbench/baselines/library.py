"""All baselines by name: those that come with urlbench, and the files in a user's folder of baselines."""

import re
from pathlib import Path

from urlbench.baselines.catalogue import PREFIX, find_published, fits, source_names, summary_scores
from urlbench.baselines.frozen import Frozen, FrozenAgent, from_bytes, to_bytes
from urlbench.core.durable import write_atomic
from urlbench.core.errors import UserError, unknown_name
from urlbench.results.score_matrix import ScoreMatrix
from urlbench.results.selection import registered_suite
from urlbench.results.summary_scores import SummaryScores

FOLDER = Path("baselines")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def load_baseline(name: str, suite: str, folder: Path = FOLDER) -> list[SummaryScores | ScoreMatrix]:
    """The scores of a baseline, agent by agent: summaries of published ones, one matrix a frozen or imported agent.

    Args:
        name: `source`, `source/agent`, `frozen` or `frozen/agent`, with or without `baseline:` before it.
        suite: `name` or `name@version` of the suite they are to stand beside.
        folder: of frozen and imported baselines.

    Raises:
        UserError: for unknown names, another suite or another version of it, and files that were changed.
    """
    wanted, name = registered_suite(suite), name.removeprefix(PREFIX)
    if name.partition("/")[0] in source_names():
        found = find_published(name)
        return [summary_scores(baseline, wanted) for baseline in [one for one in found if fits(one, wanted)] or found]
    frozen, agents = find_frozen(name, folder)
    if frozen.suite != wanted.full_name:
        raise UserError(
            f"baseline {frozen.name!r} was made on {frozen.suite} and cannot stand beside results of "
            f"{wanted.full_name}: other tasks, budgets or normalisers; choose a baseline of that suite and version."
        )
    return [frozen.matrix(agent) for agent in agents]


def find_frozen(name: str, folder: Path = FOLDER) -> tuple[Frozen, list[FrozenAgent]]:
    """The frozen baseline `frozen`, or `frozen/agent`, and those of its agents that are meant.

    Raises:
        UserError: for unknown names and files that were changed.
    """
    base, _, label = name.partition("/")
    if base not in stored_names(folder):
        raise unknown_name("baseline", base, {*source_names(), *stored_names(folder)}, see="urlbench baselines list")
    path = path_of(base, folder)
    frozen = read_frozen(path)
    if frozen.name != base:
        raise UserError(f"{path} holds the baseline {frozen.name!r}; give the file that name again.")
    agents = [agent for agent in frozen.agents if label in ("", agent.label, agent.name)]
    if not agents:
        raise unknown_name("agent", label, [agent.label for agent in frozen.agents], where=f"of baseline {base!r}")
    return frozen, agents


def stored_names(folder: Path) -> list[str]:
    """The names of the frozen and imported baselines in a folder; none if there is no such folder."""
    return sorted(path.stem for path in folder.glob("*.json"))


def path_of(name: str, folder: Path) -> Path:
    """The file of a frozen baseline."""
    return folder / f"{name}.json"


def read_frozen(path: Path) -> Frozen:
    """A frozen baseline, checked; UserError if the file cannot be read or was changed."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give the file of a frozen baseline.") from error
    return from_bytes(data, str(path))


def check_name(name: str) -> None:
    """UserError if a baseline cannot be called `name`."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} cannot name a baseline; begin with a letter or a digit, and use only these, '.', '_' and '-'."
        )
    if name in source_names():
        raise UserError(f"{name!r} is the name of a published source; choose another name.")


def store(frozen: Frozen, folder: Path) -> Path:
    """Write a baseline into a folder; the file.

    Raises:
        UserError: if the name cannot be used or is taken by other results, or the folder cannot be written.
    """
    check_name(frozen.name)
    path, data = path_of(frozen.name, folder), to_bytes(frozen)
    if path.exists() and path.read_bytes() != data:
        raise UserError(f"{path} holds other results; choose another name, or remove that file.")
    _write(path, data)
    return path


def export(name: str, folder: Path, out: Path) -> Path:
    """Copy a frozen baseline out of a folder, after checking it; the new file.

    Args:
        name: of the baseline.
        folder: where it lies.
        out: a folder, or the new file; it must not exist.

    Raises:
        UserError: for unknown names, changed files, and if `out` cannot be written.
    """
    if name in source_names():
        raise UserError(f"{name!r} comes with every urlbench; export is for frozen and imported baselines.")
    frozen, _ = find_frozen(name, folder)
    path = path_of(name, out) if out.is_dir() else out
    if path.exists():
        raise UserError(f"{path} exists; give --out another file, or remove it.")
    _write(path, to_bytes(frozen))
    return path


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"folder {path.parent} cannot be made ({error.strerror}); choose another one.") from error
    write_atomic(path, data, remedy="do this again")
