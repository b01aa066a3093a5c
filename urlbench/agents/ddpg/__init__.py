"""DDPG and the intrinsic rewards that URLB pretrains it with: one file an algorithm, one backbone for all."""
