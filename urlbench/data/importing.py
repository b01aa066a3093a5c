"""Taking a folder of episodes, such as an unpacked archive of ExORL, as a data set."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from urlbench.core import exorl
from urlbench.core.durable import explained
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.registry import load_suite
from urlbench.episodes.datasets import (
    BUFFER_NAME,
    INDEX_NAME,
    Dataset,
    DatasetIndex,
    Origin,
    dataset_folder,
    describe_file,
    episode_files,
    length_of,
    write_index,
)
from urlbench.episodes.format import array_formats, format_of, format_problems, read_arrays


def import_folder(
    source: Path,
    root: Path,
    domain: str,
    collection: str,
    *,
    suite: str = exorl.suite_name(exorl.MAIN_METHOD),
    task: str | None = None,
    origin: Origin | None = None,
    advance: Callable[[int], None] = lambda files: None,
) -> Dataset:
    """Index a folder of episodes as the data set of `domain` and `collection`.

    The files are linked to where data sets lie (copied, if that is another disk), so they take no room twice; a
    folder that is there already is indexed in place.

    Args:
        source: holds the episodes, or a folder `buffer` with them.
        root: folder of all data sets.
        domain: of the episodes.
        collection: name of the method that collected them.
        suite: name of the suite whose domain it is, and which says what the episodes look like.
        task: whose rewards are stored, if that is known.
        origin: where they come from; default the folder.
        advance: called with 1 after every file.

    Raises:
        UserError: if the folder holds no such episodes, or if the data set is there already.
    """
    expected, folder = format_of(domain, suite), dataset_folder(root, domain, collection)
    if task is not None:
        check_task(domain, task, suite)
    paths = episode_files(source / BUFFER_NAME) or episode_files(source)
    if not paths:
        raise UserError(
            f"{source} holds no episodes: there is no file like episode_000000_{expected.length or 100}.npz in it, "
            f"nor in {source / BUFFER_NAME}."
        )
    if (folder / INDEX_NAME).exists():
        raise UserError(f"{folder} is a data set already; choose another name with --collection, or remove it.")
    buffer = folder / BUFFER_NAME
    in_place = paths[0].parent.resolve() == buffer.resolve()
    if not in_place and (strangers := {path.name for path in episode_files(buffer)} - {path.name for path in paths}):
        raise UserError(f"{buffer} holds other episodes, such as {min(strangers)}; choose another --collection.")
    arrays, entries = None, []
    for path in paths:
        content = read_arrays(path.read_bytes(), str(path))
        problems = format_problems(content, length_of(path.name), expected)
        arrays = arrays or array_formats(content)
        if not problems and array_formats(content) != arrays:
            problems = [f"its arrays are not those of {paths[0].name}"]
        if problems:
            raise UserError(f"{path} is no episode of {domain}: {problems[0]}; nothing was indexed.")
        entries.append(describe_file(path if in_place else _place(path, buffer)))
        advance(1)
    assert arrays is not None, "there is at least one file"
    index = DatasetIndex(
        suite=suite,
        domain=domain,
        collection=collection,
        origin=origin or Origin(kind="imported", source=str(source)),
        task=task,
        variant="exorl" if domain == "jaco" else None,
        arrays=arrays,
        files=tuple(entries),
    )
    return write_index(folder, index)


def check_task(domain: str, task: str, suite: str) -> None:
    """UserError if `task` is none of the domain's."""
    known = [one.name for one in load_suite(suite).tasks if one.domain == domain]
    if task not in known:
        raise unknown_name("task", task, known, where=f"of domain {domain!r}")


def _place(path: Path, buffer: Path) -> Path:
    """The same file in `buffer`: a hard link, or a copy where links do not reach."""
    target = buffer / path.name
    try:
        buffer.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(path.resolve(), target)
        except OSError:
            shutil.copyfile(path, target)
    except OSError as error:
        raise explained(error, target, "run the same command again") from error
    return target
