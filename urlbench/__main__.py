"""`python -m urlbench` is the command `urlbench`."""

from urlbench.cli.app import main

main()
