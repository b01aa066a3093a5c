"""What the registry is told of Dreamer agents, and what the reduced presets change for all of them."""

from collections.abc import Mapping
from typing import Any

from urlbench.agents.common import presets
from urlbench.agents.dreamer.pretraining import Method, PretrainedConfig, Pretraining
from urlbench.core.interfaces import Agent, AgentContext, AgentSpec

SMOKE: Mapping[str, Any] = {
    **presets.SMOKE,
    "planner": {"horizon": 3, "iterations": 2, "samples": 16, "elites": 4, "policy_share": 0.25},
}
SMALL: Mapping[str, Any] = {**presets.SMALL, "planner": {"iterations": 4, "samples": 64, "elites": 16}}
# What pretraining with the backbone never reads.
FINETUNING_SETTINGS = (
    "actor_critic.finetune_actor_lr",
    "finetune_entropy",
    "planning",
    "planner",
    "transfer_actor",
    "transfer_critic",
    "world_model.reward_shapes_finetuned_model",
)


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
        finetuning_settings=(*FINETUNING_SETTINGS, *finetuning_settings),
    )
