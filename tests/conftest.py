"""Fixtures that several files of tests share."""

from collections.abc import Iterator

import pytest
from slurm_cluster import SlurmCluster, obstacle


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    """A cluster of its own for a file of tests."""
    if obstacle():
        pytest.skip(f"needs Slurm: {obstacle()}")
    cluster = SlurmCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
