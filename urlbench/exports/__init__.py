"""Results in the forms of other programs: a long CSV table, TensorBoard event files, and offline runs of W&B."""
