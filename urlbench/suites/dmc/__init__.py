"""Suites on dm_control: walker, quadruped and Jaco, from states and from images."""
