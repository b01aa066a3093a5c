"""The agents: one file per algorithm, shared parts each in a file named after its concept."""

import lazy_loader

if __name__ != "urlbench.agents":
    raise ImportError("import urlbench.agents: the folder agents at the repository's root is only a link to it")

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["ddpg", "dreamer"])
