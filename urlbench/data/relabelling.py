"""Giving recorded exploration the rewards of a task: one more data set, computed from the stored physics.

Source: the relabelling of ExORL (Yarats et al. 2022, sec. 3): each stored state is put into the simulator of the task
and its reward is read, the first row's included.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from urlbench.core.durable import explained, remove_temporaries, write_atomic
from urlbench.core.errors import UserError
from urlbench.data.importing import check_task
from urlbench.data.physics_replay import offline_environment, static_rewards
from urlbench.episodes.datasets import (
    BUFFER_NAME,
    INDEX_NAME,
    Dataset,
    DatasetIndex,
    Origin,
    dataset_folder,
    describe_file,
    find_dataset,
    write_index,
)
from urlbench.episodes.format import read_arrays


def relabel(
    root: Path,
    domain: str,
    collection: str,
    task: str,
    *,
    advance: Callable[[int], None] = lambda files: None,
) -> Dataset:
    """The data set `COLLECTION-TASK`, with the episodes of another and the rewards of `task`.

    The original is not touched. After an interruption the same call goes on with the files that are missing.

    Args:
        root: folder of all data sets.
        domain: of the episodes.
        collection: whose episodes are relabelled.
        task: of the domain.
        advance: called with 1 after every file.

    Raises:
        UserError: if there is no such data set or task, or if the new data set is there already.
    """
    original = find_dataset(root, domain, collection)
    index, files = original.index, []
    if "physics" not in index.arrays:
        raise UserError(
            f"{original.folder} holds no physics, from which rewards are computed; choose another data set."
        )
    check_task(domain, task, index.suite)
    name = f"{collection}-{task}"
    folder = dataset_folder(root, domain, name)
    if (folder / INDEX_NAME).exists():
        raise UserError(f"{folder} is a data set already; it is not computed again.")
    buffer = folder / BUFFER_NAME
    try:
        buffer.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explained(error, buffer, "run the same command again") from error
    remove_temporaries(buffer)
    environment = offline_environment(domain, task, suite_name=index.suite)
    for file in index.files:
        target = buffer / file.name
        if not target.exists():
            episode: dict[str, Any] = read_arrays(original.read(file), file.name)
            episode["reward"] = static_rewards(environment, episode["physics"])[:, None]
            packed = io.BytesIO()
            np.savez(packed, **episode)
            write_atomic(target, packed.getvalue())
        files.append(describe_file(target))
        advance(1)
    origin = Origin(
        kind="relabelled",
        source=f"{domain}/{collection}",
        details={
            "fingerprint": original.fingerprint(index.transitions),
            "origin": index.origin.model_dump(mode="json"),
        },
    )
    changes = {"collection": name, "origin": origin, "task": task, "relabelled": True, "files": tuple(files)}
    return write_index(folder, DatasetIndex.model_validate({**index.model_dump(), **changes}))
