"""Statistics of scores: estimates with intervals, from arrays alone."""
