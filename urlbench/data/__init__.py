"""Making, fetching, checking and relabelling data sets of episodes."""
