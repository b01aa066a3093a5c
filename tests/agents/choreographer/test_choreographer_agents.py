"""Choreographer: what is transferred to fine-tuning, who acts when, and searches."""

from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch, play, same, stored

from urlbench.agents.choreographer.choreographer import Choreographer, ChoreographerFinetuning
from urlbench.agents.common.latent_actor import PolicyActor


def test_choreographer_finetuning_takes_the_model_and_the_skills_only() -> None:
    pretrained = factory.build("choreographer", seed=0)
    pretrained.update(batch())
    tuned = pretrained.for_finetuning(factory.context(seed=1))
    fresh = factory.build("choreographer", seed=1).for_finetuning(factory.context(seed=1))
    old, new, untouched = pretrained.state_dict(), tuned.state_dict(), fresh.state_dict()
    for name, value in new["world_model"].items():
        source = untouched if name.startswith("reward_head") else old
        assert torch.equal(value, source["world_model"][name])
    for name, value in new["controller"].items():
        inner = name.removeprefix("executor.")
        assert torch.equal(
            value, old["skill_policy"][f"actor.{inner}"] if inner != name else untouched["controller"][name]
        )
    assert not any(new[name]["state"] for name in new if name.endswith("_optimiser"))
    assert new["smoothing"]


def test_choreographer_finetuning_is_not_finetuned_again() -> None:
    tuned = factory.build("choreographer").for_finetuning(factory.context())
    with pytest.raises(TypeError, match="fine-tuned already"):
        tuned.for_finetuning(factory.context())


def test_offline_pretraining_needs_no_exploration() -> None:
    agent = factory.build("choreographer", collects=False)
    metrics = agent.update(batch())
    assert not any(key.startswith(("exploration", "lbs")) for key in metrics)
    assert not any(key.startswith(("explorer", "lbs")) for key in agent.state_dict())
    with pytest.raises(ValueError, match="fixed data set"):
        agent.actor(evaluation=False, seed=0)
    agent.for_finetuning(factory.context()).update(batch())


def test_a_component_more_changes_no_other_components_start() -> None:
    online, offline = (factory.build("choreographer", collects=collects).state_dict() for collects in (True, False))
    assert set(offline) < set(online)
    assert all(same(offline[name], online[name]) for name in offline)


def test_a_second_agent_changes_nothing_of_the_first() -> None:
    alone = factory.build("choreographer")
    other = factory.build("choreographer", seed=1)
    other.update(batch(seed=5))
    beside = factory.build("choreographer")
    other.update(batch(seed=6))
    alone.update(batch())
    beside.update(batch())
    assert same(alone.state_dict(), beside.state_dict())


def test_pixels_have_a_smaller_replay() -> None:
    states, pixels = (factory.build("choreographer", kind).schedule for kind in ("states", "pixels"))
    assert states.replay_capacity_steps == 2_000_000
    assert pixels.replay_capacity_steps == 1_000_000


def test_the_behaviour_waits_for_a_reward_in_a_batch() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    without = batch()
    without["reward"][:] = agent.config.reward_threshold  # at the threshold is not above it
    before = stored(agent.state_dict())
    agent.update(without)
    assert agent.smoothing
    assert same(before["controller"], agent.state_dict()["controller"])
    assert not same(before["world_model"], agent.state_dict()["world_model"])
    agent.update(batch())
    assert not agent.smoothing
    assert not same(before["controller"], agent.state_dict()["controller"])
    agent.update(without)
    assert not agent.smoothing


@pytest.mark.usefixtures("acting_by_modules")
def test_random_skills_act_until_the_controller_takes_over() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    called: list[int] = []
    agent.controller.actor.register_forward_hook(lambda *_: called.append(1))
    actor, seed_frames = agent.actor(evaluation=False, seed=0), agent.schedule.seed_frames
    evaluator, observation = agent.actor(evaluation=True, seed=0), np.zeros(5, np.float32)
    actor.begin_episode()
    evaluator.begin_episode()
    agent.smoothing = False
    actor.act(observation, seed_frames - 1)
    evaluator.act(observation, 10 * seed_frames)  # the evaluation's own counter does not matter
    assert not called
    actor.act(observation, seed_frames)
    evaluator.act(observation, 0)
    assert len(called) == 2


def searching(**options: Any) -> tuple[Choreographer, PolicyActor]:
    """A Choreographer, and an actor of it whose skills are numbers in order and whose other draws are fixed."""
    agent = factory.build("choreographer")
    assert isinstance(agent, Choreographer)
    actor = agent.search_actor(**({"seed": 0, "skill_steps": 4, "sample": False} | options))
    assert isinstance(actor, PolicyActor)
    numbers = iter(torch.eye(agent.config.skills.codes).unsqueeze(1))
    actor._random_skill._draw = lambda: next(numbers)
    actor._draws.latent = lambda probs: probs.argmax(-1)  # type: ignore[method-assign]
    return agent, actor


@pytest.mark.usefixtures("acting_by_modules")
def test_a_search_follows_random_skills_for_a_while_each() -> None:
    agent, actor = searching()
    followed: list[int] = []
    codes = agent.config.skills.codes
    agent.skill_policy.actor.register_forward_pre_hook(
        lambda _, inputs: followed.append(int(inputs[0][0, -codes:].argmax()))
    )
    # Two episodes of five steps: the counter runs on, so the skill changes at their starts and at steps 4 and 8.
    play(actor, "states", first=0, steps=5)
    play(actor, "states", first=5, steps=5)
    assert followed == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3]


@pytest.mark.usefixtures("acting_by_modules")
def test_a_search_takes_the_mean_of_the_skill_policy_or_samples_it() -> None:
    means: list[list[float]] = []
    agent, actor = searching()
    agent.skill_policy.actor.register_forward_hook(lambda _, __, output: means.append(output.mean[0].tolist()))
    assert play(actor, "states", first=0, steps=3) == means
    sampling = searching(sample=True)[1]
    assert play(sampling, "states", first=0, steps=3) != means


def test_a_search_draws_skills_uniformly() -> None:
    agent, _ = searching()
    codes, drawn = agent.config.skills.codes, list[int]()
    actor = agent.search_actor(seed=3, skill_steps=50, sample=False)
    assert isinstance(actor, PolicyActor)
    for _ in range(200 * codes):
        actor.begin_episode()
        drawn.append(int(actor.skill.argmax()))
    counts = np.bincount(drawn, minlength=codes)
    assert len(counts) == codes
    assert (np.abs(counts - 200) < 5 * np.sqrt(200)).all()


def test_a_search_does_not_ask_the_exploration_policy() -> None:
    agent, _ = searching()
    before = play(agent.search_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4)
    with torch.no_grad():
        for parameter in agent.explorer.actor.parameters():
            parameter.add_(1.0)
    assert play(agent.search_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4) == before
    with torch.no_grad():
        for parameter in agent.skill_policy.actor.parameters():
            parameter.add_(1.0)
    assert play(agent.search_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4) != before
    offline = factory.build("choreographer", collects=False)
    play(offline.search_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4)


def test_an_episode_starts_without_memory() -> None:
    agent = factory.build("choreographer")
    actor = agent.actor(evaluation=True, seed=0)
    actor._draws.latent = lambda probs: probs.argmax(-1)  # type: ignore[attr-defined]
    first = play(actor, "states", first=0, steps=3)
    assert play(actor, "states", first=3, steps=3, begin=False) != first
    assert play(actor, "states", first=0, steps=3) == first


@pytest.mark.usefixtures("acting_by_modules")
def test_a_restored_agent_knows_how_far_its_training_is() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    restored = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    assert isinstance(restored, ChoreographerFinetuning)
    agent.smoothing = False
    training = agent.actor(evaluation=False, seed=0)
    training.begin_episode()
    training.act(np.zeros(5, np.float32), agent.schedule.seed_frames)
    restored.load_state_dict(stored(agent.state_dict()))
    called: list[int] = []
    restored.controller.actor.register_forward_hook(lambda *_: called.append(1))
    play(restored.actor(evaluation=True, seed=0), "states", first=0, steps=1)
    assert called


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_runs_draw_different_numbers(phase: str) -> None:
    agents = [factory.build("choreographer", seed=seed) for seed in (0, 1)]
    if phase == "finetune":
        agents = [agent.for_finetuning(factory.context(seed=seed)) for seed, agent in enumerate(agents)]
    one, other = (agent.state_dict()["draws"] for agent in agents)
    assert not same(one, other)
