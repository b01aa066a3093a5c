"""`python -m urlbench` is the command `urlbench`."""

from urlbench.cli import main

main()
