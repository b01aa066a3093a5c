"""Choreographer's ablations: what each takes away, and that it takes away nothing else."""

from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch, batch_for, play, same, stored, tiny
from torch.nn import functional as F

from urlbench.agents.choreographer.ablations import HighestReward, SingleSkillConfig
from urlbench.agents.choreographer.choreographer import ChoreographerConfig, SkillDiscovery
from urlbench.agents.choreographer.vq_vae import SkillConfig
from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.finetuning import Finetuning
from urlbench.agents.common.world_model import preprocess
from urlbench.core import registry
from urlbench.core.interfaces import Agent
from urlbench.core.types import ObservationKind

WITHOUT_META = ("choreographer-single-skill", "edl-dreamer", "latent-edl")


def build(name: str, kind: ObservationKind = "states", **changes: Any) -> SkillDiscovery:
    agent = registry.load_agent(name).build(factory.context(kind), tiny(name, **changes))
    assert isinstance(agent, SkillDiscovery)
    return agent


def tuned(agent: Agent) -> Finetuning:
    finetuned = agent.for_finetuning(factory.context())
    assert isinstance(finetuned, Finetuning)
    return finetuned


@pytest.mark.parametrize("name", ["choreographer-zero-shot", "choreographer-single-skill"])
def test_fine_tuning_ablations_are_pretrained_like_choreographer(name: str) -> None:
    states = []
    for each in ("choreographer", name):
        agent = build(each)
        for seed in range(3):
            agent.update(batch(seed=seed))
        states.append(agent.state_dict())
    assert same(*states)


def test_without_resampling_unused_codes_stay_unused() -> None:
    assert ChoreographerConfig().skills.resampling
    config = registry.load_agent("choreographer-no-resampling").config()
    assert config.model_dump() == ChoreographerConfig(skills=SkillConfig(resampling=False)).model_dump()
    resampled = []
    for name in ("choreographer", "choreographer-no-resampling"):
        skills = {"resampling": name == "choreographer", "codes": 12}
        agent = build(name, skills=skills)
        metrics = [agent.update(batch(seed=seed)) for seed in range(4)]
        resampled.append(any(float(each.get("resampled_codes", 0)) for each in metrics))
    assert resampled == [True, False]


def test_frozen_skills_do_not_learn_and_the_meta_controller_does() -> None:
    changed = {}
    for name in ("choreographer", "choreographer-zero-shot"):
        agent = build(name).for_finetuning(factory.context())
        before = stored(agent.state_dict())["controller"]
        metrics = agent.update(batch())
        after = agent.state_dict()["controller"]
        changed[name] = {key.partition(".")[0] for key in before if not same(before[key], after[key])}
        assert ("executor_loss" in metrics) == (name == "choreographer")
        assert ("executor_optimiser" in agent.state_dict()) == (name == "choreographer")
    assert changed["choreographer"] == {"actor", "critic", "executor"}
    assert changed["choreographer-zero-shot"] == {"actor", "critic"}


# --- One skill --------------------------------------------------------------------------------------


def observed(choice: HighestReward, skill: list[int], reward: list[float]) -> int | None:
    """What the choice says after a batch of one sequence."""
    replayed = {
        "skill": F.one_hot(torch.tensor([skill]), len(choice.rewards)).float(),
        "reward": torch.tensor([reward]),
    }
    chosen = choice.observe(replayed, None, None)  # type: ignore[arg-type]
    return None if chosen is None else int(chosen.argmax())


def make_choice(updates: int, threshold: float = 1e-4) -> HighestReward:
    return HighestReward(
        SingleSkillConfig(skills=SkillConfig(codes=4), choice_updates=updates, reward_threshold=threshold)
    )


def test_the_skill_of_the_highest_mean_reward_is_chosen() -> None:
    # Skill 2 has the largest sum and skill 1 the largest mean; skill 3 was never followed.
    assert observed(make_choice(1), [0, 2, 2, 2, 1], [0.1, 0.2, 0.2, 0.2, 0.5]) == 1


def test_batches_are_taken_together() -> None:
    choice = make_choice(2)
    assert observed(choice, [0, 1], [1.0, 0.5]) is None
    assert observed(choice, [0, 1], [0.0, 0.6]) == 1


def test_a_skill_that_was_never_followed_is_not_chosen() -> None:
    assert observed(make_choice(1, threshold=-10.0), [0, 1], [-1.0, -2.0]) == 0


def test_nothing_is_chosen_before_there_is_a_reward() -> None:
    choice = make_choice(1, threshold=0.5)
    assert observed(choice, [0, 1], [0.5, 0.1]) is None
    assert observed(choice, [0, 1], [0.2, 0.9]) == 1


@pytest.mark.parametrize("name", WITHOUT_META)
def test_only_the_world_model_learns_before_the_choice(name: str) -> None:
    agent = tuned(build(name, choice_updates=2))
    before = stored(agent.state_dict())
    agent.update(batch_for(agent))
    after = stored(agent.state_dict())
    assert agent.chosen_skill is None
    assert same(before["behaviour"], after["behaviour"])
    assert not same(before["world_model"], after["world_model"])
    agent.update(batch_for(agent, seed=1))
    assert agent.chosen_skill is not None
    assert not same(after["behaviour"], agent.state_dict()["behaviour"])


def test_the_chosen_skill_acts_in_training_and_in_evaluation() -> None:
    agent = tuned(build("choreographer-single-skill", random_skill_steps=2))
    actors = [agent.actor(evaluation=evaluation, seed=0) for evaluation in (False, True)]
    codes = agent.recorded["skill"][0]
    for actor in actors:
        followed = []
        actor.begin_episode()
        for step in range(12):
            actor.act(np.zeros(5, np.float32), step)
            followed.append(int(actor.recorded()["skill"].argmax()))
            actor.after_step(step + 1)
        assert len(set(followed)) > 2
        assert all(followed[i] == followed[i + 1] for i in range(0, 12, 2))
    agent.chosen_skill = torch.eye(codes)[3]
    for actor in actors:
        play(actor, "states", first=12, steps=5, begin=False)
        assert int(actor.recorded()["skill"].argmax()) == 3


def test_the_skill_policy_is_inherited_and_the_critic_is_not() -> None:
    pretrained = build("choreographer-single-skill")
    pretrained.update(batch())
    behaviour = tuned(pretrained).behaviour
    assert same(behaviour.actor.state_dict(), pretrained.skill_policy.actor.state_dict())
    assert not same(behaviour.critic.net.state_dict(), pretrained.skill_policy.critic.net.state_dict())


# --- EDL --------------------------------------------------------------------------------------------


def test_latent_edl_has_no_entropy_reward() -> None:
    metrics = [build(name).update(batch()) for name in ("choreographer", "latent-edl")]
    assert "entropy_reward" in metrics[0]
    assert "entropy_reward" not in metrics[1]
    assert metrics[0]["code_reward"] == pytest.approx(float(metrics[1]["code_reward"]))  # the first policies are equal


@pytest.mark.parametrize("kind", ["states", "pixels"])
@pytest.mark.parametrize("symlog", [False, True])
def test_edls_skills_stand_for_observations(kind: ObservationKind, symlog: bool) -> None:
    agent = build("edl-dreamer", kind, world_model={"symlog_states": symlog})
    numbers = 5 if kind == "states" else 3 * 64 * 64
    replayed = factory.tensors(kind=kind, size=2, length=3)
    model = agent.world_model.loss(replayed, agent._draws)
    examples = agent._objective.examples(replayed, model.post, agent.world_model)
    seen = preprocess(replayed["observation"], symlog_states=symlog).reshape(6, numbers)
    assert torch.equal(examples, seen)
    skill = torch.tensor([0, 4, 2])
    feat = torch.randn(2, 3, agent.world_model.rssm.feat_dim, requires_grad=True)
    trajectory = Trajectory(feat, feat[..., :1], feat[:1, :, :2])
    rewards = agent._objective.rewards(agent.skills, skill, trajectory, agent.world_model)
    with torch.no_grad():
        goals = agent.skills.decoder(agent.skills.codebook.codes)
        for t in range(2):
            for n in range(3):
                decoded = agent.world_model.decoder(feat[t, n]).flatten()
                expected = -(goals[skill[n]] - decoded).norm()
                torch.testing.assert_close(rewards["code_reward"][t, n].detach(), expected)
    rewards["code_reward"].sum().backward()
    assert feat.grad is not None
    assert feat.grad.any(-1).all()
