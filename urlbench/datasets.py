"""Data sets of episodes in ExORL's format: where they lie, and what identifies them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Dataset:
    """The episodes of one domain and one collection method.

    Attributes:
        folder: holds the index and the episodes.
    """

    folder: Path

    def fingerprint(self, transitions: int) -> str:
        """Hash of the files that hold the first `transitions`."""
        raise NotImplementedError


def find_dataset(root: Path, domain: str, collection: str) -> Dataset:
    """The data set of `domain` and `collection` below `root`; UserError with the command that gets it."""
    raise NotImplementedError
