"""DDPG and the intrinsic rewards that URLB pretrains it with: one file an algorithm, one backbone for all.

What an agent of one's own needs of it is a name of this package, as `__init__.pyi` lists them.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
