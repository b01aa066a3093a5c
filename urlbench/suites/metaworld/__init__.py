"""Suites on Meta-World's Sawyer arm."""
