"""Statistics, tables and figures made from results; imports neither torch nor MuJoCo."""

if __name__ != "urlbench.reports":
    raise ImportError("import urlbench.reports: the folder reports at the repository's root is only a link to it")
