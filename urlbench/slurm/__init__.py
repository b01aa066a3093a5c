"""Runs on a Slurm cluster: profiles, arrays, what is queued, and what runs on the nodes."""

if __name__ != "urlbench.slurm":
    raise ImportError("import urlbench.slurm: the folder slurm at the repository's root is only a link to it")
