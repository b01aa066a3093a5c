"""What the reduced presets change for all agents with a world model, so that results compare."""

from collections.abc import Mapping
from typing import Any

# Runs everything in seconds; learns nothing.
SMOKE: Mapping[str, Any] = {
    "schedule": {"update_every_frames": 50, "seed_frames": 1000, "batch_size": 8, "batch_length": 16},
    "world_model": {"deter": 32, "hidden": 32, "variables": 4, "classes": 4, "mlp_units": (32, 32), "conv_depth": 8},
    "actor_critic": {"units": (32, 32), "horizon": 8},
}

# Learns on one CPU core. Found by trying, on walker from states: the published rates are made for 100 times as many
# updates; without symlog a model this small does not see the torso's height beside velocities of +-20; sequences of
# 16 steps give a model whose predictions are useless after ten. A shorter horizon, a smaller discount and a fresher
# slow critic let values settle within some hundred updates.
SMALL: Mapping[str, Any] = {
    "schedule": {"seed_frames": 2000, "batch_size": 8, "batch_length": 32},
    "world_model": {
        "deter": 128,
        "hidden": 128,
        "variables": 8,
        "classes": 16,
        "mlp_units": (128, 128),
        "conv_depth": 16,
        "symlog_states": True,
        "lr": 3e-3,
    },
    "actor_critic": {
        "units": (128, 128),
        "horizon": 10,
        "discount": 0.97,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "slow_every": 50,
    },
}
