"""Every option of the Dreamer agents, of the planner and of the ablations changes something."""

import functools
import json
import typing
from collections.abc import Iterator
from typing import Any

import agent_factory as factory
import pytest
from agent_factory import batch_for, play, same, tiny

from urlbench.agents.dreamer.finetuning import Finetuning
from urlbench.core.registry import load_agent
from urlbench.core.types import ObservationKind, Spec

# Another value for every option that an agent does not share with Choreographer or with an agent named before it.
OTHER: dict[str, dict[str, Any]] = {
    "dreamer": {
        "world_model.reward_shapes_finetuned_model": False,
        "world_model.image_mean": "identity",
        "finetune_entropy": 0.1,
        "critic_targets": "lambda_return",
        "planning": False,
        "planner.horizon": 4,
        "planner.iterations": 1,
        "planner.samples": 7,
        "planner.elites": 2,
        "planner.policy_share": 0.5,
        "planner.init_std": 1.0,
        "planner.min_std": 0.5,
        "planner.temperature": 5.0,
        "planner.momentum": 0.5,
        "planner.start_frames": 10,
    },
    "dreamer-lbs": {
        "reward_momentum": 0.5,
        "pretrain_entropy": 0.1,
        "transfer_actor": False,
        "transfer_critic": True,
        "lbs_lr": 0.1,
    },
    "dreamer-apt": {"neighbours": 2, "clip": 0.1},
    "dreamer-p2e": {"models": 2, "hidden": 5, "p2e_lr": 0.1},
    "dreamer-icm": {"hidden": 5, "icm_lr": 0.1, "reward_scale": 2.0},
    "dreamer-rnd": {
        "hidden": 5,
        "outputs": 5,
        "rnd_lr": 0.1,
        "observation_limit": 0.5,
        "reward_observations": "once",
        "target": "fixed",
    },
    "dreamer-diayn": {
        "skill_steps": 2,
        "skills": 3,
        "hidden": 5,
        "discriminator_lr": 0.1,
    },
    "dreamer-aps": {
        "skill_dim": 4,
        "hidden": 5,
        "features_lr": 0.1,
        "neighbours": 2,
        "clip": 0.3,
        "task_states": 10,
        "task_solver": "swapped",
        "task_features": "pretrained",
    },
    "choreographer-single-skill": {"choice_updates": 2},
}
# They may leave the choice among few skills as it is; test_dreamer_agents has them choose by hand.
ELSEWHERE = {"skill_score", "scored_actions"}
# What makes the option show.
BASE: dict[str, dict[str, Any]] = {
    "dreamer": {
        "finetune_entropy": 0.01,
        "planning": True,
        "planner": {"horizon": 3, "iterations": 2, "samples": 8, "elites": 4, "policy_share": 0.25, "start_frames": 0},
    },
    "dreamer-rnd": {"optimiser": {"weight_decay": 1e-3}},
    "choreographer-single-skill": {"choice_updates": 1},
}


def options(config: type[Spec], prefix: str = "") -> Iterator[str]:
    for name, field in config.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and typing.get_origin(kind) is None and issubclass(kind, Spec):
            yield from options(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_every_option_is_tried() -> None:
    tried = {*options(load_agent("choreographer").config)}
    names = [*OTHER, *factory.dreamer_agents(), *factory.ABLATIONS]
    for name in names:
        own = set(OTHER.get(name, ()))
        assert set(options(load_agent(name).config)) - tried - ELSEWHERE <= own, name
        tried |= own


@functools.cache
def outcome(name: str, kind: ObservationKind, changes: str) -> dict[str, Any]:
    """What both phases come to: states after some updates, and actions; `changes` is JSON."""
    small = {"size": 2, "length": 3} if kind == "pixels" else {"size": 4, "length": 5}
    settings = {"schedule": {"seed_frames": 0}} | BASE.get(name, {})
    for key, value in json.loads(changes).items():
        outer, dot, inner = key.partition(".")
        settings[outer] = settings.get(outer, {}) | {inner: value} if dot else value
    agent = load_agent(name).build(factory.context(kind), tiny(name, **settings))
    for seed in range(2):
        agent.update(batch_for(agent, kind, seed=seed, **small))
    actions = [play(agent.actor(evaluation=False, seed=0), kind, first=1, steps=3)]
    tuned = agent.for_finetuning(factory.context(kind))
    assert isinstance(tuned, Finetuning)
    actor = tuned.actor(evaluation=False, seed=0)
    actions += [play(actor, kind, first=1, steps=2)]
    tuned.steps = 60  # skills are chosen by now
    for seed in range(2):
        tuned.update(batch_for(tuned, kind, seed=seed, **small))
    actions.append(play(actor, kind, first=10, steps=2))
    return {"pretrained": agent.state_dict(), "tuned": tuned.state_dict(), "actions": actions}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), [(name, option) for name, other in OTHER.items() for option in other])
def test_every_option_changes_something(name: str, option: str) -> None:
    kind: ObservationKind = "pixels" if option == "world_model.image_mean" else "states"
    before, after = (outcome(name, kind, json.dumps(changes)) for changes in ({}, {option: OTHER[name][option]}))
    assert not same(before, after)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHER)
def test_the_same_options_change_nothing(name: str) -> None:
    before = outcome(name, "states", "{}")
    outcome.cache_clear()
    assert same(before, outcome(name, "states", "{}"))
