"""One job from start to end: the loops, evaluation, searches, checkpoints, the worker."""
