"""Dreamer agents learn: fixed seeds, stated margins, on a plane (see `plane_training`)."""

import dataclasses
import functools
from typing import Any

import numpy as np
import pytest
import torch
from plane_training import CONTEXT, DREAMER_SETTINGS, Plane, covered, play, train

from urlbench.agents.common.finetuning import Finetuning
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.world_model_learner import BehaviourLearner
from urlbench.agents.random import RandomAgent, RandomConfig
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import Agent, Array
from urlbench.core.registry import load_agent

torch.set_num_threads(1)

REWARDS = ("lbs", "apt", "p2e", "icm", "rnd", "diayn", "aps")
RATES = ("lbs_lr", "p2e_lr", "icm_lr", "rnd_lr", "discriminator_lr", "features_lr")
STEPS = 1500


def build(name: str, seed: int = 1, **changes: Any) -> Agent:
    spec = load_agent(f"dreamer-{name}" if name else "dreamer")
    settings = DREAMER_SETTINGS | {rate: 3e-3 for rate in RATES if rate in spec.config.model_fields} | changes
    return spec.build(dataclasses.replace(CONTEXT, seed=seed), resolve_config(spec, "smoke", settings))


@functools.cache
def pretrained(name: str) -> tuple[Agent, Array]:
    """The agent, and all positions of its training."""
    agent = build(name)
    return agent, train(agent, Plane(), steps=STEPS, seed=1)


def closeness(position: Array) -> float:
    """1 at a place in the upper right, 0 at distance 1, less beyond it."""
    return 1 - float(np.linalg.norm(position - 0.8))


def mean_closeness(positions: Array) -> float:
    return float(np.mean([closeness(position) for position in positions]))


@pytest.mark.slow
def test_the_backbone_learns_to_reach_a_place() -> None:
    agent = build("", schedule=DREAMER_SETTINGS["schedule"] | {"update_every_frames": 5})
    positions = train(agent, Plane(closeness), steps=2000, seed=1)
    # Staying where it starts gives -0.13 a step; the way there takes 8 of 30.
    assert mean_closeness(positions[:300]) < 0.1
    assert mean_closeness(positions[-400:]) > 0.4


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDS)
def test_intrinsic_rewards_lead_to_more_places(name: str) -> None:
    random = RandomAgent(CONTEXT, RandomConfig())
    floor = max(covered(train(random, Plane(), steps=STEPS, seed=seed)) for seed in range(5))
    assert covered(pretrained(name)[1]) > 1.5 * floor


@pytest.mark.slow
@pytest.mark.parametrize("name", ["diayn", "aps"])
def test_skills_end_in_different_places(name: str) -> None:
    agent, _ = pretrained(name)
    assert isinstance(agent, BehaviourLearner)
    ends = []
    for seed in range(12):
        actor = agent.search_actor(seed=seed, skill_steps=10_000, sample=True)
        assert isinstance(actor, PolicyActor)
        actor.begin_episode()
        skill = actor.skill
        actor._random_skill._draw = lambda skill=skill: skill  # type: ignore[misc]
        ends.append([positions[-1] for positions, _ in play(actor, Plane(), 3)])
    places = np.array(ends)  # [skills, episodes, 2]
    within = places.var(1, ddof=1).mean(0).sum()
    between = places.mean(1).var(0, ddof=1).sum()
    # Of skills that are alike, means of 3 episodes would differ by a third of what the episodes differ by.
    assert between > within


@pytest.mark.slow
def test_a_skill_is_chosen_and_finetuned_to_reach_a_place() -> None:
    # With the released score of a skill the choice does not depend on which episodes were rewarded.
    agent = build("diayn", skill_score="mean_of_products", scored_actions="taken")
    train(agent, Plane(), steps=STEPS, seed=1)
    tuned = agent.for_finetuning(CONTEXT)
    assert isinstance(tuned, Finetuning)
    positions = train(tuned, Plane(closeness), steps=3000, seed=1)
    assert tuned.chosen_skill is not None
    assert mean_closeness(positions[-400:]) > 0.4
