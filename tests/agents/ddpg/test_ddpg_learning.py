"""DDPG agents learn: fixed seeds, stated margins, on a plane (see `plane_training`)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from plane_training import CONTEXT, DDPG_SETTINGS, Plane, covered, play, train

from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.random import RandomAgent, RandomConfig
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import Array
from urlbench.core.registry import load_agent

torch.set_num_threads(1)

# ProtoRL, whose coverage varies the most, has a test of its own.
REWARDS = ("icm", "rnd", "disagreement", "apt", "smm", "diayn", "aps", "cic")
# ProtoRL needs room to remember where it was: the 32 candidates of the preset `smoke` are forgotten after four updates,
# and with them it covers no more than random actions do with some seeds.
PROTO = {"prototypes": 64, "prototype_dim": 32, "projector_hidden": 64, "queue": 512}
STEPS = 2500


def build(name: str, seed: int = 1, **changes: Any) -> DDPGLearner:
    spec = load_agent(name)
    settings = DDPG_SETTINGS | (PROTO if name == "proto" else {}) | changes
    if "neighbours" in spec.config.model_fields:
        settings["neighbours"] = 8
    agent = spec.build(dataclasses.replace(CONTEXT, seed=seed), resolve_config(spec, "smoke", settings))
    assert isinstance(agent, DDPGLearner)
    return agent


@functools.cache
def pretrained(name: str) -> tuple[DDPGLearner, Array]:
    """The agent, and all positions of its training."""
    agent = build(name)
    return agent, train(agent, Plane(), steps=STEPS, seed=1)


def closeness(position: Array) -> float:
    """1 at a place in the upper right, 0 at distance 1, less beyond it."""
    return 1 - float(np.linalg.norm(position - 0.8))


def test_the_backbone_learns_to_reach_a_place() -> None:
    agent, plane = build("ddpg"), Plane(closeness)
    train(agent, plane, steps=1500)
    (_, untrained), *_ = play(build("ddpg").actor(evaluation=True, seed=0), plane, 1)
    (_, trained), *_ = play(agent.actor(evaluation=True, seed=0), plane, 1)
    # The way there takes 8 of 30 steps.
    assert untrained < 5
    assert trained > 18


@pytest.mark.slow
def test_a_pretrained_agent_is_finetuned_to_reach_a_place() -> None:
    agent = build("icm")
    train(agent, Plane(), steps=600)
    tuned = agent.for_finetuning(CONTEXT)
    train(tuned, Plane(closeness), steps=1500)
    (_, trained), *_ = play(tuned.actor(evaluation=True, seed=0), Plane(closeness), 1)
    assert trained > 18


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDS)
def test_intrinsic_rewards_lead_to_more_places(name: str) -> None:
    random = RandomAgent(CONTEXT, RandomConfig())
    floor = max(covered(train(random, Plane(), steps=STEPS, seed=seed)) for seed in range(5))
    assert covered(pretrained(name)[1]) > 1.5 * floor


@pytest.mark.slow
def test_the_reward_of_prototypes_leads_to_more_places_with_several_seeds() -> None:
    """One seed says nothing: twelve covered 74 to 197 cells, 125 in the mean, where random actions have at most 57.

    Which seeds cover much also depends on the CPU's rounding. Eight of those twelve have a standard error of 14.
    """
    random = RandomAgent(CONTEXT, RandomConfig())
    floor = max(covered(train(random, Plane(), steps=STEPS, seed=seed)) for seed in range(5))
    mean = np.mean([covered(train(build("proto", seed), Plane(), steps=STEPS, seed=seed)) for seed in range(1, 9)])
    assert mean > 1.5 * floor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diayn", "aps", "cic"])
def test_skills_end_in_different_places(name: str) -> None:
    agent, _ = pretrained(name)
    ends = []
    for seed in range(12):
        # An evaluation follows one skill; a few episodes with noise show how far one skill's ends lie apart.
        actor = agent.search_actor(seed=seed, skill_steps=10_000, sample=True)
        skills = agent.skills
        assert skills is not None
        actor.begin_episode()
        skill = actor.recorded()["skill"]
        original, fixed = skills.draw, torch.as_tensor(skill)
        skills.draw = lambda draws, fixed=fixed: fixed  # type: ignore[method-assign]
        ends.append([positions[-1] for positions, _ in play(actor, Plane(), 3)])
        skills.draw = original  # type: ignore[method-assign]
    places = np.array(ends)  # [skills, episodes, 2]
    within = places.var(1, ddof=1).mean(0).sum()
    between = places.mean(1).var(0, ddof=1).sum()
    assert between > 5 * within
