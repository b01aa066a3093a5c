"""Sizes at the published settings, and that every option changes something."""

import functools
import typing
from collections.abc import Iterator
from typing import Any

import agent_factory as factory
import pytest
from agent_factory import TINY, batch, play, same
from torch import nn

from urlbench.agents.choreographer.choreographer import Choreographer, ChoreographerConfig, ChoreographerFinetuning
from urlbench.core.interfaces import AgentConfig, AgentContext
from urlbench.core.types import ObservationKind, Spec

# --- Sizes ------------------------------------------------------------------------------------------


def million(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


def walker(kind: ObservationKind) -> AgentContext:
    return AgentContext(kind, (24,) if kind == "states" else (3, 64, 64), action_dim=6, action_repeat=1, seed=0)


def test_parameter_counts_of_the_published_sizes() -> None:
    agent = Choreographer(walker("states"), ChoreographerConfig())
    tuned = ChoreographerFinetuning(walker("states"), ChoreographerConfig())
    assert million(agent.world_model) == 3.47
    assert million(agent.skills) == 1.14
    assert million(agent.skill_policy.actor) == 1.00
    assert million(agent.skill_policy.critic.net) == 1.00
    assert million(agent.explorer.actor) == 0.98
    assert million(agent.explorer.critic.net) == 0.97
    assert million(agent.lbs) == 0.97
    assert million(tuned.controller.actor) == 1.00
    assert million(tuned.controller.critic.net) == 0.97
    assert million(tuned.controller.executor) == 1.00


def test_parameter_counts_from_pixels() -> None:
    model = Choreographer(walker("pixels"), ChoreographerConfig()).world_model
    assert million(model) == 13.66
    assert million(model.encoder) == 1.55
    assert million(model.rssm) == 1.25
    assert million(model.decoder) == 9.89
    assert million(model.reward_head) == 0.97


# --- Options ----------------------------------------------------------------------------------------

# Another value for every option; `test_every_option_is_tried` keeps the list complete.
OTHER: dict[str, Any] = {
    "schedule.update_every_frames": 20,
    "schedule.updates": 2,
    "schedule.seed_frames": 1,
    "schedule.catch_up": True,
    "schedule.random_action_phases": (),
    "schedule.seed_action_bound": "action_dim",
    "schedule.batch_size": 7,
    "schedule.batch_length": 7,
    "schedule.replay_capacity_steps": 900_000,
    "world_model.deter": 5,
    "world_model.hidden": 6,
    "world_model.variables": 2,
    "world_model.classes": 3,
    "world_model.mlp_units": (9, 8),
    "world_model.conv_depth": 3,
    "world_model.symlog_states": True,
    "world_model.standardise_states": True,
    "world_model.kl_balance": 0.5,
    "world_model.free_nats": 2.0,
    "world_model.lr": 1e-2,
    "world_model.reward_clip": "tanh",
    "world_model.reward_shapes_model": True,
    "skills.codes": 6,
    "skills.code_dim": 4,
    "skills.units": (8, 9),
    "skills.decay": 0.9,
    "skills.commitment": 0.5,
    "skills.lr": 1e-2,
    "skills.resampling": False,
    "skills.resample_every": 1,
    "skills.resample_power": 2,
    "skills.count_empty_as_one": False,
    "actor_critic.units": (8, 9),
    "actor_critic.horizon": 4,
    "actor_critic.discount": 0.9,
    "actor_critic.lambda_": 0.5,
    "actor_critic.actor_lr": 1e-2,
    "actor_critic.critic_lr": 1e-2,
    "actor_critic.slow_every": 1,
    "actor_critic.slow_fraction": 0.5,
    "actor_critic.finetune_actor_lr": 1e-2,
    "actor_critic.centred_rewards": True,
    "optimiser.eps": 1e-2,
    "optimiser.clip_norm": 1e-3,
    "optimiser.weight_decay": 0.1,
    "exploration_momentum": 0.5,
    "lbs_lr": 1e-2,
    "entropy_neighbours": 5,
    "entropy_clip": 0.1,
    "code_reward_squared": True,
    "skill_decay_bug": False,
    "meta_entropy": 0.1,
    "reward_threshold": 0.5,
    "skill_discount": 0.5,
    "skill_policies_start": 1,
    "random_skill_steps": 2,
}
BASE = TINY.model_copy(
    update={
        # Below one nat the KL has no gradient; with no decay the skills' cannot be seen to happen twice.
        "world_model": TINY.world_model.model_copy(update={"free_nats": 0.0}),
        # Enough codes that some are unused and resampled.
        "skills": TINY.skills.model_copy(update={"codes": 12}),
        "optimiser": TINY.optimiser.model_copy(update={"weight_decay": 1e-2}),
    }
)


def options(config: type[Spec], prefix: str = "") -> Iterator[str]:
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and typing.get_origin(kind) is None and issubclass(kind, Spec):
            yield from options(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def changed(config: ChoreographerConfig, option: str, value: Any) -> ChoreographerConfig:
    *path, last = option.split(".")
    values = config.model_dump()
    inner = values
    for name in path:
        inner = inner[name]
    assert inner[last] != value
    inner[last] = value
    return ChoreographerConfig.model_validate(values)


def outcome(config: ChoreographerConfig, kind: ObservationKind) -> dict[str, Any]:
    """What both phases come to: schedules, states after some updates, and the skills followed."""
    return _outcome(config.model_dump_json(), kind)


@functools.cache
def _outcome(written: str, kind: ObservationKind) -> dict[str, Any]:
    config = ChoreographerConfig.model_validate_json(written)
    small = {"size": 2, "length": 3} if kind == "pixels" else {}
    agent = Choreographer(factory.context(kind), config)
    for seed in range(4):
        agent.update(batch(kind, seed=seed, **small))
    tuned = agent.for_finetuning(factory.context(kind))
    actor = tuned.actor(evaluation=False, seed=0)
    actions = play(actor, kind, first=0, steps=5)  # random skills
    weak = batch(kind, **small)
    weak["reward"][:] = 0.4
    for rewards in (weak, batch(kind, seed=1, **small)):
        tuned.update(rewards)
    schedule = agent.schedule.model_dump()
    return {"pretrained": agent.state_dict(), "tuned": tuned.state_dict(), "actions": actions} | schedule


def test_every_option_is_tried() -> None:
    # Those of all agents are tried in test_precision.py: they hold for the process, not for the agent. These agents
    # take no batches but the one.
    untried = {*AgentConfig.model_fields, "schedule.batches"}
    assert set(options(ChoreographerConfig)) - untried == set(OTHER)


@pytest.mark.parametrize("option", OTHER)
def test_every_option_changes_something(option: str) -> None:
    kind: ObservationKind = (
        "pixels" if option in ("world_model.conv_depth", "schedule.replay_capacity_steps") else "states"
    )
    assert not same(outcome(BASE, kind), outcome(changed(BASE, option, OTHER[option]), kind))


def test_the_same_options_change_nothing() -> None:
    again = ChoreographerConfig.model_validate(BASE.model_dump())
    before = outcome(BASE, "states")
    _outcome.cache_clear()
    assert same(before, outcome(again, "states"))
