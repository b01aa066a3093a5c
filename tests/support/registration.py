"""What tests register is forgotten, so that none of them depends on which were run before."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from urlbench.core import registry


@contextmanager
def forgotten() -> Iterator[None]:
    """Forget at the end what was registered meanwhile, and by which plugins."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_SUITES", dict(registry._SUITES))
        patch.setattr(registry, "_AGENTS", dict(registry._AGENTS))
        yield
    for name in set(sys.modules) - before:
        if name.startswith("urlbench_plugin_"):
            del sys.modules[name]
