"""The suites: tasks, protocols, normalisers and environments."""

if __name__ != "urlbench.suites":
    raise ImportError("import urlbench.suites: the folder suites at the repository's root is only a link to it")
