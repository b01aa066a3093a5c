"""Stored baselines: published scores that come with urlbench, and finished or imported results in one file each."""
