"""Dreamer and the intrinsic rewards that it is pretrained with: one file an algorithm, one backbone for all."""
