"""urlbench: the benchmark harness for unsupervised reinforcement learning.

What a plugin, a notebook or a script needs is a name of this package, imported when it is first used; `__init__.pyi`
says which there are and where they live.
"""

import lazy_loader

__version__ = "0.2.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
