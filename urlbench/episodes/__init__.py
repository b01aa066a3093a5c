"""Episodes in memory and on disk: the replay, data sets and their formats."""
