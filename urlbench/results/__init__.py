"""Results: reading run directories, and what is missing, damaged or contradictory among them."""
