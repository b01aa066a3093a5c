"""Every option of the DDPG agents changes something."""

import functools
import json
from typing import Any

import agent_factory as factory
import pytest
from agent_factory import batch_for, play, same

from urlbench.agents.ddpg.backbone import DDPGConfig
from urlbench.agents.ddpg.pretraining import PretrainedConfig, SkilledConfig
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import AgentConfig
from urlbench.core.registry import load_agent
from urlbench.core.types import ObservationKind

# Another value for every option; `test_every_option_is_tried` keeps the list complete. Options of all agents are
# tried on one of them.
OTHER: dict[str, dict[str, Any]] = {
    "ddpg": {
        "update_every_steps": 3,
        "seed_frames": 1,
        "batch_size": 7,
        "pixel_batch_size": 7,
        "replay_capacity_steps": 900,
        "nstep": 5,
        "discount": 0.5,
        "hidden": 16,
        "pixel_trunk": 5,
        "conv_channels": 3,
        "lr": 1e-2,
        "tau": 0.5,
        "exploration_std": ((0, 0.1),),
        "noise_limit": 0.01,
        "critic_trains_encoder": False,
    },
    "icm": {
        "pretrain_nstep": 1,
        "critic_trains_encoder": True,
        "transfer_q_heads": True,
        "target_start": "critic",
        "reward_scale": 2.0,
        "reward_form": "squared",
    },
    "rnd": {"outputs": 5, "observation_limit": 0.1, "reward_scale": 2.0, "rewarded": "next_obs"},
    "disagreement": {"models": 3},
    "apt": {"representation": 5, "neighbours": 2, "clip": 0.1, "divide_by": "mean", "rewarded": "next_obs"},
    "proto": {
        "transfer_q_heads": False,
        "prototypes": 4,
        "prototype_dim": 5,
        "projector_hidden": 7,
        "temperature": 1.0,
        "sinkhorn_steps": 1,
        "queue": 16,
        "neighbour": 1,
        "target_tau": 0.5,
    },
    "diayn": {"sampled_skill": "acting", "skills": 5, "skill_steps": 2, "reward_scale": 2.0},
    "smm": {
        "skills": 5,
        "state_scale": 2.0,
        "skill_scale": 2.0,
        "discriminator_scale": 2.0,
        "distinct_skills": "rewarded",
        "vae_hidden": 5,
        "vae_code": 3,
        "vae_beta": 2.0,
        "vae_lr": 0.1,
        "discriminator_lr": 0.1,
    },
    "aps": {
        "skill_dim": 3,
        "skill_steps": 2,
        "neighbours": 2,
        "clip": 0.3,
        "task_frames": 1000,
        "task_samples": 6,
        "task_solver": "swapped",
        "task_features": "pretrained",
    },
    "cic": {
        "skill_dim": 5,
        "skill_steps": 2,
        "finetuning_skill": 0.1,
        "temperature": 0.1,
        "negatives": "others",
        "neighbours": 2,
        "clip": 0.3,
        "divide_by": "std",
        "trains_encoder": False,
    },
}
BASE: dict[str, dict[str, Any]] = {"aps": {"task_frames": 0, "task_samples": 4}}
OF_PIXELS = {"pixel_batch_size", "pixel_trunk", "conv_channels", "critic_trains_encoder", "trains_encoder"}
SHARED = {"ddpg": DDPGConfig, "icm": PretrainedConfig, "diayn": SkilledConfig}


def test_every_option_is_tried() -> None:
    for name, other in OTHER.items():
        own = load_agent(name).config
        parent = own.__mro__[1]
        # Those of all agents are tried in test_precision.py: they hold for the process, not for the agent.
        inherited = set(parent.model_fields if name != "ddpg" else AgentConfig.model_fields)
        expected = set(own.model_fields) - inherited
        # Options that are there in the parent, too, with another default.
        expected |= {key for key in inherited if own.model_fields[key].default != parent.model_fields[key].default}
        if name in SHARED and name != "ddpg":
            shared = SHARED[name]
            expected |= set(shared.model_fields) - set(shared.__mro__[1].model_fields)
        if name == "icm":
            expected |= {"critic_trains_encoder"}
        assert set(other) == expected, name


@functools.cache
def outcome(name: str, kind: ObservationKind, changes: str) -> dict[str, Any]:
    """What both phases come to: schedules, states after some updates, and actions; `changes` is JSON."""
    spec = load_agent(name)
    agent = spec.build(factory.context(kind), resolve_config(spec, "smoke", json.loads(changes)))
    schedules = [agent.schedule.model_dump()]
    for seed in range(3):
        agent.update(batch_for(agent, kind, seed=seed, size=6))
    actions = [play(agent.actor(evaluation=False, seed=0), kind, first=1, steps=5)]
    tuned = agent.for_finetuning(factory.context(kind))
    schedules.append(tuned.schedule.model_dump())
    actor = tuned.actor(evaluation=False, seed=0)
    actions.append(play(actor, kind, first=1, steps=5))
    for seed in range(2):
        tuned.update(batch_for(tuned, kind, seed=seed, size=4))
    actions.append(play(actor, kind, first=1, steps=5))
    states = {"pretrained": agent.state_dict(), "tuned": tuned.state_dict()}
    return states | {"actions": actions, "schedules": schedules}


@pytest.mark.parametrize(("name", "option"), [(name, option) for name, other in OTHER.items() for option in other])
def test_every_option_changes_something(name: str, option: str) -> None:
    kind: ObservationKind = "pixels" if option in OF_PIXELS else "states"
    base = BASE.get(name, {})
    spec = load_agent(name)
    value = OTHER[name][option]
    assert getattr(resolve_config(spec, "smoke", base), option) != value
    before, after = (outcome(name, kind, json.dumps(base | changes)) for changes in ({}, {option: value}))
    assert not same(before, after)
