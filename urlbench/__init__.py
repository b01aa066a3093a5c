"""urlbench: the benchmark harness for unsupervised reinforcement learning."""

__version__ = "0.2.0"
