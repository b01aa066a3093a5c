"""Small data sets of real environments, for tests: collected once, then copied and changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from urlbench.core.interfaces import Array
from urlbench.data.collection import CollectionRequest, collect
from urlbench.episodes.datasets import Dataset, describe_file, write_index

Arrays = dict[str, Array]


def collect_random(root: Path, domain: str, transitions: int = 2000, **changes: object) -> Dataset:
    """Random actions in `domain`, as collection `random` below `root`."""
    choices = {"domain": domain, "agent": "random", "collection": "random", "transitions": transitions, **changes}
    dataset = collect(CollectionRequest.model_validate(choices), root)
    assert dataset is not None
    return dataset


def copy_of(dataset: Dataset, folder: Path) -> Dataset:
    """The same data set in another folder."""
    shutil.copytree(dataset.folder, folder)
    return Dataset(folder)


def load(path: Path) -> Arrays:
    """All arrays of an episode."""
    with np.load(path) as file:
        return {key: file[key] for key in file.files}


def change(dataset: Dataset, number: int, edit: Callable[[Arrays], object]) -> Dataset:
    """Change the arrays of one episode, and the index so that sizes and hashes fit again."""
    path = sorted(dataset.buffer.iterdir())[number]
    arrays = load(path)
    edit(arrays)
    np.savez(path, **arrays)
    return index_again(dataset)


def index_again(dataset: Dataset) -> Dataset:
    """The data set with an index of the files as they are now."""
    files = tuple(map(describe_file, sorted(dataset.buffer.iterdir())))
    return write_index(dataset.folder, dataset.index.model_copy(update={"files": files}))
