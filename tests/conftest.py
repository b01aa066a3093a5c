"""What holds for all tests."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def quick_disk() -> Iterator[None]:
    """Wait for no disk: a killed process loses nothing by it, and no test can cut the power. Full disks are made up."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: None)
        yield
