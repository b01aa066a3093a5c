"""Data sets of episodes in files like ExORL's: where they lie, what is in them, and what identifies them.

A data set is the folder `<data root>/<domain>/<collection>` with the index `dataset.json` and the episodes
`buffer/episode_{index:06d}_{length}.npz`; this is how ExORL's own archives unpack. The index is written last, so a
folder with an index is complete.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from urlbench.core import exorl
from urlbench.core.durable import write_atomic
from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json
from urlbench.core.types import ArrayFormat, Spec

INDEX_NAME, BUFFER_NAME = "dataset.json", "buffer"
_FILE_NAME = r"episode_(\d{6,})_(\d+)\.npz"


class EpisodeFile(Spec):
    """One episode.

    Attributes:
        length: transitions, one less than the rows of its arrays.
        size: in bytes.
        sha256: of the file.
    """

    name: str = Field(pattern=f"^{_FILE_NAME}$")
    length: int = Field(gt=0)
    size: int
    sha256: str


class Origin(Spec):
    """Where the episodes come from.

    Attributes:
        source: the agent, the address or the folder.
        details: what else is known: seed, configuration, checksums.
    """

    kind: Literal["collected", "imported", "downloaded", "relabelled"]
    source: str
    details: dict[str, Any] = Field(default_factory=dict)


class DatasetIndex(Spec):
    """What dataset.json says.

    Attributes:
        format: version of this layout.
        suite: of the domain; it says what the episodes look like.
        task: the task whose rewards are stored; None if unknown.
        relabelled: rewards were computed from the stored physics, the first row's included.
        variant: of the jaco environment, see `urlbench.suites.dmc.jaco`; None for other domains.
        simulator: versions of the packages that produced the physics; None if unknown.
        arrays: by key; the same in every file.
        files: ascending by name.
    """

    format: Literal[1] = 1
    suite: str = exorl.suite_name(exorl.MAIN_METHOD)
    domain: str
    collection: str
    origin: Origin
    task: str | None = None
    relabelled: bool = False
    variant: str | None = None
    simulator: dict[str, str] | None = None
    arrays: dict[str, ArrayFormat]
    files: tuple[EpisodeFile, ...] = Field(min_length=1)

    @property
    def transitions(self) -> int:
        """Of all files together."""
        return sum(file.length for file in self.files)


@dataclass(frozen=True)
class Dataset:
    """The episodes of one domain and one collection method.

    Attributes:
        folder: holds the index and the episodes.
    """

    folder: Path

    @cached_property
    def index(self) -> DatasetIndex:
        """What is in it; UserError if that cannot be read."""
        path = self.folder / INDEX_NAME
        try:
            stat = path.stat()
            return _read_index(path, stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError as error:
            raise UserError(
                f"{self.folder} holds no data set: it has no {INDEX_NAME}; see: urlbench data --help"
            ) from error
        except (OSError, ValidationError) as error:
            reason = f"{error.error_count()} entries do not fit" if isinstance(error, ValidationError) else str(error)
            raise UserError(
                f"{path} cannot be read ({reason}); remove it and index the folder again with: urlbench data import "
                f"{self.folder} --domain DOMAIN --collection COLLECTION --data {self.folder.parent.parent}"
            ) from error

    @property
    def buffer(self) -> Path:
        """The folder of the episodes."""
        return self.folder / BUFFER_NAME

    def first_files(self, transitions: int) -> list[EpisodeFile]:
        """The first files, ascending by name, that reach `transitions`; UserError if all together do not."""
        chosen, total = [], 0
        for file in sorted(self.index.files, key=lambda file: file.name):
            if total >= transitions:
                break
            chosen.append(file)
            total += file.length
        if total < transitions:
            raise UserError(
                f"the data set {self.folder} holds {total} transitions and {transitions} are asked for; "
                "get more of it, or choose another --preset."
            )
        return chosen

    def read(self, file: EpisodeFile) -> bytes:
        """The content of a file; UserError if it cannot be read or is not what was indexed."""
        path = self.buffer / file.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}; restore the data set.") from error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise UserError(f"{path} was changed since it was indexed: its SHA-256 is another; restore the data set.")
        return content

    def fingerprint(self, transitions: int) -> str:
        """Hash of the names and contents of the files that hold the first `transitions`.

        Raises:
            UserError: if the data set holds fewer.
        """
        files = [[file.name, file.sha256] for file in self.first_files(transitions)]
        return hashlib.sha256(canonical_json(files).encode()).hexdigest()


@lru_cache(maxsize=64)
def _read_index(path: Path, mtime_ns: int, size: int) -> DatasetIndex:
    # A plan asks for the same index once for every seed; time and size tell whether the file was replaced.
    return DatasetIndex.model_validate_json(path.read_bytes())


def dataset_folder(root: Path, domain: str, collection: str) -> Path:
    """Where the data set of `domain` and `collection` belongs."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", collection):
        raise UserError(
            f"a collection cannot be called {collection!r}; take letters, digits, dots, dashes and underscores."
        )
    return root / domain / collection


def find_dataset(root: Path, domain: str, collection: str) -> Dataset:
    """The data set of `domain` and `collection` below `root`.

    Raises:
        UserError: if there is none, with the command that gets it.
    """
    dataset = Dataset(dataset_folder(root, domain, collection))
    if (dataset.folder / INDEX_NAME).exists():
        return dataset
    where = f"--domain {domain} --collection {collection} --data {root}"
    if collection in exorl.METHODS:
        get = f"get it with: urlbench data download {where} (or, for episodes of your own, see: urlbench data --help)"
    else:
        get = (
            f"collect it with: urlbench data collect {where} --agent AGENT --transitions N "
            f"(or import a folder with: urlbench data import FOLDER {where})"
        )
    raise UserError(f"there is no data set of {domain} collected by {collection!r} in {root}; {get}")


def episode_files(folder: Path) -> list[Path]:
    """The episodes in a folder, ascending by name; other files are passed over."""
    return sorted(path for path in folder.glob("episode_*.npz") if is_episode_name(path.name))


def is_episode_name(name: str) -> bool:
    """True for names of episodes, such as episode_000000_1000.npz."""
    return re.fullmatch(_FILE_NAME, name) is not None


def length_of(name: str) -> int:
    """Transitions of the episode with that file name."""
    match = re.fullmatch(_FILE_NAME, name)
    assert match is not None, f"{name} is not the name of an episode"
    return int(match[2])


def describe_file(path: Path) -> EpisodeFile:
    """The index entry of an episode; reads all of it."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return EpisodeFile(name=path.name, length=length_of(path.name), size=path.stat().st_size, sha256=digest)


def write_index(folder: Path, index: DatasetIndex) -> Dataset:
    """Make `folder` a data set; UserError if that cannot be written."""
    names = [file.name for file in index.files]
    assert names == sorted(set(names)), "files are indexed once, ascending by name"
    write_atomic(folder / INDEX_NAME, index.model_dump_json(indent=1) + "\n")
    return Dataset(folder)
