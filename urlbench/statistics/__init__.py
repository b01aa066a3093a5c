"""Statistics of normalised scores: estimates with intervals, from arrays alone."""
