"""What the registry is told of DDPG agents, and what the reduced presets change for all of them."""

from collections.abc import Mapping
from typing import Any

from urlbench.agents.ddpg.pretraining import Method, PretrainedConfig, Pretraining
from urlbench.core.interfaces import Agent, AgentContext, AgentSpec
from urlbench.core.types import ImageFormat

IMAGE = ImageFormat(size=84, frame_stack=3)

# Runs everything in seconds; learns nothing.
SMOKE: Mapping[str, Any] = {
    "update_every_steps": 50,
    "seed_frames": 1000,
    "batch_size": 16,
    "pixel_batch_size": 8,
    "hidden": 32,
    "pixel_trunk": 8,
    "conv_channels": 4,
}

# Learns on one CPU core: smaller networks and batches, which leaves time for as many updates, and a learning rate
# for as few frames as the preset has.
SMALL: Mapping[str, Any] = {
    "seed_frames": 2000,
    "batch_size": 256,
    "pixel_batch_size": 64,
    "hidden": 128,
    "conv_channels": 16,
    "lr": 1e-3,
}
# What pretraining with the backbone never reads.
FINETUNING_SETTINGS = ("nstep", "critic_trains_encoder", "transfer_q_heads", "target_start")


def pretrained_spec(
    *,
    name: str,
    description: str,
    paper: str,
    config: type[PretrainedConfig],
    method: Method,
    smoke: Mapping[str, Any] | None = None,
    small: Mapping[str, Any] | None = None,
    finetuning_settings: tuple[str, ...] = (),
) -> AgentSpec:
    """An agent of the backbone and `method`; `smoke` and `small` change its presets further.

    `finetuning_settings` are those of its own that pretraining never reads.
    """

    def build(context: AgentContext, config: PretrainedConfig) -> Agent:
        return Pretraining(context, config, method)

    return AgentSpec(
        name=name,
        description=description,
        paper=paper,
        observations=("states", "pixels"),
        pretrains=True,
        config=config,
        build=build,
        presets={"smoke": {**SMOKE, **(smoke or {})}, "small": {**SMALL, **(small or {})}},
        image=IMAGE,
        finetuning_settings=(*FINETUNING_SETTINGS, *finetuning_settings),
    )
