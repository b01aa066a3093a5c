"""Runs on this machine: the pool of workers, what it shows and costs, and whether the machine is ready."""
