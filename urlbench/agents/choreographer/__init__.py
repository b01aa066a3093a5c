"""Choreographer and its ablations."""
