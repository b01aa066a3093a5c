"""What the Dreamer agents do beyond the contracts of all agents."""

import itertools
from dataclasses import replace
from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch, batch_for, play, same, stored, tiny
from torch import nn

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, StreamNorm
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.finetuning import Finetuning
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.networks import ConvDecoder
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import draw_direction, draw_onehot
from urlbench.agents.common.world_model_learner import BehaviourLearner, WorldModelLearner
from urlbench.agents.dreamer.aps import SolvedTask
from urlbench.agents.dreamer.diayn import DIAYNConfig, ScoredSkill, skill_scores
from urlbench.agents.dreamer.pretraining import Pretraining, SkilledConfig, choice_step
from urlbench.agents.dreamer.rnd import RandomNetworkDistillation
from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentContext

SKILLED = factory.DREAMERS_WITH_SKILLS
PRETRAINED = [name for name in factory.dreamer_agents() if name not in ("dreamer", "dreamer-random")]
OBSERVATION = np.zeros(5, np.float32)


def pretraining(name: str, seed: int = 0, **changes: Any) -> Pretraining:
    agent = registry.load_agent(name).build(factory.context(seed=seed), tiny(name, **changes))
    assert isinstance(agent, Pretraining)
    return agent


def finetuning(name: str, **changes: Any) -> Finetuning:
    agent = registry.load_agent(name).build(factory.context(), tiny(name, **changes))
    tuned = agent.for_finetuning(factory.context())
    assert isinstance(tuned, Finetuning)
    return tuned


# --- Sizes and settings -----------------------------------------------------------------------------


def million(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


def test_parameter_counts_of_the_published_sizes() -> None:
    walker = AgentContext("pixels", (3, 64, 64), action_dim=6, action_repeat=2, seed=0)
    spec = registry.load_agent("dreamer")
    agent = spec.build(walker, spec.config())
    assert isinstance(agent, BehaviourLearner)
    assert million(agent.world_model) == 13.66
    assert million(agent.behaviour.actor) == 0.98
    assert million(agent.behaviour.critic.net) == 0.97
    assert agent.schedule.replay_capacity_steps == 1_000_000


@pytest.mark.parametrize("name", PRETRAINED)
def test_rewards_are_normalised_and_entropies_weighed_as_published(name: str) -> None:
    spec = registry.load_agent(name)
    config = spec.config()
    momentum = 1.0 if name in ("dreamer-rnd", "dreamer-aps") else 0.95
    agent = pretraining(name)
    assert agent.behaviour.reward_norm.momentum == config.reward_momentum == momentum
    assert agent.behaviour.entropy_scale == config.pretrain_entropy == (0.1 if name == "dreamer-diayn" else 0.0)
    tuned = agent.for_finetuning(factory.context())
    assert isinstance(tuned.behaviour.reward_norm, StreamNorm)
    assert tuned.behaviour.reward_norm.momentum == 1.0
    assert tuned.behaviour.entropy_scale == config.finetune_entropy == (0.0 if name == "dreamer-aps" else 1e-4)


@pytest.mark.parametrize(("image_mean", "elu"), [("elu", True), ("identity", False)])
def test_the_decoders_last_layer_is_as_asked_in_both_phases(image_mean: str, elu: bool) -> None:
    spec = registry.load_agent("dreamer-lbs")
    config = tiny("dreamer-lbs", world_model={"image_mean": image_mean})
    agent = spec.build(factory.context("pixels"), config)
    for each in (agent, agent.for_finetuning(factory.context("pixels"))):
        assert isinstance(each, WorldModelLearner)
        assert isinstance(each.world_model.decoder, ConvDecoder)
        assert each.world_model.decoder.elu_output == elu


# --- From pretraining to fine-tuning ----------------------------------------------------------------


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("critic", [False, True])
def test_finetuning_takes_the_model_and_the_policy(name: str, critic: bool) -> None:
    pretrained = pretraining(name, transfer_critic=critic)
    pretrained.update(batch_for(pretrained))
    old = pretrained.state_dict()
    new = pretrained.for_finetuning(factory.context(seed=1)).state_dict()
    fresh = pretraining(name, seed=1).for_finetuning(factory.context(seed=1)).state_dict()
    for key, value in new["world_model"].items():
        source = fresh if key.startswith("reward_head") else old
        assert torch.equal(value, source["world_model"][key]), key
    for key, value in new["behaviour"].items():
        inherited = key.startswith("actor.") or (critic and key.startswith(("critic.net", "critic.slow")))
        assert torch.equal(value, (old if inherited else fresh)["behaviour"][key]), key
    assert not any(new[key]["state"] for key in new if key.endswith("_optimiser"))


def test_the_policy_can_start_afresh() -> None:
    pretrained = pretraining("dreamer-lbs", transfer_actor=False)
    tuned = pretrained.for_finetuning(factory.context(seed=1))
    fresh = pretraining("dreamer-lbs", seed=1).behaviour.actor
    assert not same(tuned.behaviour.actor.state_dict(), pretrained.behaviour.actor.state_dict())
    assert same(tuned.behaviour.actor.state_dict(), fresh.state_dict())


def test_random_pretraining_acts_at_random_and_learns_the_model_alone() -> None:
    agent = registry.load_agent("dreamer-random").build(factory.context(), tiny("dreamer-random"))
    assert set(agent.state_dict()) == {"draws", "world_model", "world_model_optimiser"}
    actions = np.array(play(agent.actor(evaluation=False, seed=0), "states", first=0, steps=2000))
    assert abs(actions.mean()) < 0.05
    assert abs(actions.std() - 3**-0.5) < 0.02
    agent.update(batch())
    assert isinstance(agent, WorldModelLearner)
    tuned = agent.for_finetuning(factory.context())
    assert isinstance(tuned, Finetuning)
    assert same(tuned.world_model.rssm.state_dict(), agent.world_model.rssm.state_dict())


def test_finetuning_is_not_finetuned_again() -> None:
    tuned = pretraining("dreamer-lbs").for_finetuning(factory.context())
    with pytest.raises(TypeError, match="fine-tuned already"):
        tuned.for_finetuning(factory.context())


def test_the_pretrained_policy_acts_from_the_first_frame_of_a_finetuning() -> None:
    assert "finetune" not in finetuning("dreamer-lbs").schedule.random_action_phases


# --- Rewards ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", factory.DREAMERS_WITH_REPLAY_REWARDS)
def test_the_reward_head_learns_the_intrinsic_reward(name: str) -> None:
    agent = pretraining(name)
    replayed = factory.tensors()
    labelled, metrics = agent.intrinsic.relabel(replayed, agent.world_model)
    assert labelled["reward"].shape == replayed["reward"].shape
    assert not torch.equal(labelled["reward"], replayed["reward"])
    assert (labelled["reward"] >= 0).all()
    assert float(metrics["intrinsic_reward"]) == pytest.approx(float(labelled["reward"].mean()))
    assert all(labelled[key] is replayed[key] for key in replayed if key != "reward")


def test_the_random_network_decays_unless_it_is_fixed() -> None:
    for target, fixed in (("decays", False), ("fixed", True)):
        agent = pretraining("dreamer-rnd", target=target, optimiser={"weight_decay": 0.01})
        assert isinstance(agent.intrinsic, RandomNetworkDistillation)
        before = stored(agent.intrinsic.target.state_dict())
        agent.update(batch())
        assert same(before, agent.intrinsic.target.state_dict()) == fixed


def test_an_entry_that_nothing_predicts_has_reward_1() -> None:
    agent = pretraining("dreamer-icm")
    labelled, _ = agent.intrinsic.relabel(factory.tensors(), agent.world_model)
    assert (labelled["reward"][:, 0] == 1).all()


# --- Skills -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SKILLED)
def test_skills_need_their_own_data(name: str) -> None:
    with pytest.raises(UserError, match="cannot be pretrained from a data set"):
        registry.load_agent(name).build(factory.context(collects=False), tiny(name))


def test_random_skills() -> None:
    draws, like = Draws(0), torch.zeros(4000, 4)
    onehot, direction = draw_onehot(draws, like), draw_direction(draws, like)
    assert set(onehot.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(onehot.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    torch.testing.assert_close(direction.norm(dim=-1), torch.ones(4000))
    torch.testing.assert_close(direction.mean(0), torch.zeros(4), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", SKILLED)
def test_what_the_replay_stores_is_what_acts(name: str) -> None:
    agent = pretraining(name, skill_steps=3)
    actor = agent.actor(evaluation=False, seed=0)
    assert isinstance(actor, PolicyActor)
    actor.begin_episode()
    seen = []
    for step in range(1, 10):
        actor.before_step(step)
        actor.act(OBSERVATION, step)
        assert actor.skill is not None
        recorded = actor.recorded()["skill"]
        assert recorded.shape == agent.recorded["skill"]
        assert np.array_equal(recorded, actor.skill[0].numpy())
        seen.append(recorded.tolist())
    changes = [step for step, (one, other) in enumerate(itertools.pairwise(seen), start=2) if one != other]
    assert set(changes) <= {3, 6, 9}
    assert changes


@pytest.mark.parametrize("name", SKILLED)
def test_a_search_draws_skills_in_its_own_time(name: str) -> None:
    agent = pretraining(name)
    actor = agent.search_actor(seed=0, skill_steps=4, sample=False)
    actor.begin_episode()
    seen = []
    for step in range(1, 13):
        actor.before_step(step)
        actor.act(OBSERVATION, step)
        seen.append(actor.recorded()["skill"].tolist())
    assert all(seen[i] == seen[i + 1] for i in range(12 - 1) if (i + 2) % 4)
    assert len({tuple(skill) for skill in seen}) > 1


@pytest.mark.parametrize(("repeat", "step"), [(2, 2025), (1, 4050)])
def test_skills_are_chosen_at_the_published_step(repeat: int, step: int) -> None:
    assert choice_step(SkilledConfig(), factory.context(repeat=repeat)) == step


@pytest.mark.parametrize("name", SKILLED)
def test_the_choice_waits_for_its_time_and_for_a_reward(name: str) -> None:
    agent = finetuning(name)
    assert isinstance(agent, Finetuning)
    training = agent.actor(evaluation=False, seed=0)
    training.begin_episode()
    before = stored(agent.state_dict())
    replayed = batch(size=5)
    agent.update(replayed)
    assert agent.chosen_skill is None
    assert same(before["behaviour"], agent.state_dict()["behaviour"])
    assert not same(before["world_model"], agent.state_dict()["world_model"])
    training.before_step(choice_step(tiny(name), factory.context()))
    agent.update(replayed | {"reward": 0 * replayed["reward"]})
    assert agent.chosen_skill is None
    agent.update(replayed)
    assert agent.chosen_skill is not None
    assert float(agent.chosen_skill.norm()) == pytest.approx(1)
    assert not same(before["behaviour"], agent.state_dict()["behaviour"])


@pytest.mark.parametrize("name", SKILLED)
def test_a_restored_agent_keeps_its_choice(name: str) -> None:
    agents = [finetuning(name) for _ in range(2)]
    one, other = agents
    one.steps = 10_000
    for seed in range(2):
        one.update(batch(size=5, seed=seed))
    assert one.chosen_skill is not None
    other.load_state_dict(stored(one.state_dict()))
    for each in agents:
        each.update(batch(seed=7))
    assert same(one.state_dict(), other.state_dict())
    acted = [play(each.actor(evaluation=True, seed=0), "states", first=0, steps=3) for each in agents]
    assert acted[0] == acted[1]


def policy_of_skills() -> ActorCritic:
    """Skill k moves towards number k of (-0.5, 0.5), with deviation 1, wherever it is."""
    behaviour = ActorCritic(4, 1, ActorCriticConfig(units=(2,)))
    actor = behaviour.actor
    with torch.no_grad():
        for parameter in actor.parameters():
            parameter.zero_()
        actor.trunk.linears[0].weight[:, 2:] = torch.eye(2)
        actor.mean.weight[:] = torch.atanh(torch.tensor([[-0.5, 0.5]]))
        actor.std.bias.fill_(2 * torch.logit(torch.tensor(0.45)))
    return behaviour


def scored(action: list[list[float]], reward: list[list[float]], **options: Any) -> list[float]:
    actions, rewards = torch.tensor(action).unsqueeze(-1), torch.tensor(reward)
    feat = torch.zeros(*rewards.shape, 2)
    how = options.get("how", "mean_of_products")
    return skill_scores(policy_of_skills(), torch.eye(2), feat, actions, rewards, how).tolist()


def test_scores_of_skills_by_hand() -> None:
    constant = -0.5 * np.log(2 * np.pi)
    # One sequence: log-probabilities summed over time, times the summed reward.
    expected = [2 * (2 * constant - 0.5 * (0.0 + 1.0)), 2 * (2 * constant - 0.5 * (1.0 + 0.0))]
    assert scored([[-0.5, 0.5]], [[0.5, 1.5]]) == pytest.approx(expected)
    # Two sequences, of which the second is rewarded.
    rewarded = scored([[-0.5], [0.5]], [[0.0], [1.0]])
    assert rewarded == pytest.approx([(constant - 0.5) / 2, constant / 2])
    published = scored([[-0.5], [0.5]], [[0.0], [1.0]], how="product_of_means")
    assert published == pytest.approx([(constant - 0.25) / 2] * 2)


@pytest.mark.parametrize(("scored_actions", "chosen"), [("taken", 1), ("leading", 0)])
def test_which_actions_are_scored(scored_actions: Any, chosen: int) -> None:
    # The policy depends on the skill alone, but only in the state before action 0.5.
    config = DIAYNConfig(skills=2, scored_actions=scored_actions)
    choice = ScoredSkill(factory.context(), config, None)  # type: ignore[arg-type]
    behaviour = policy_of_skills()
    with torch.no_grad():
        behaviour.actor.trunk.linears[0].weight[:, 0] = -10  # a state of 1 silences both skills
    feat = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]]])
    post = LatentState(feat.unsqueeze(-2), feat[..., :0], feat.unsqueeze(-2))
    replayed = {"action": torch.tensor([[[-0.5], [0.5], [0.0]]]), "reward": torch.tensor([[0.0, 1.0, 1.0]])}
    skill = choice.observe(replayed, post, behaviour)
    assert skill is not None
    assert int(skill.argmax()) == chosen


def test_the_task_is_solved_from_enough_states_in_the_pretrained_or_other_features() -> None:
    for features, equal in (("pretrained", True), ("random", False)):
        pretrained = pretraining("dreamer-aps", task_features=features)
        tuned = pretrained.for_finetuning(factory.context())
        choice = tuned.components["choice"]
        assert isinstance(choice, SolvedTask)
        assert same(choice.phi.state_dict(), pretrained.intrinsic.phi.state_dict()) == equal  # type: ignore[union-attr]
        assert not any(parameter.requires_grad for parameter in choice.phi.parameters())
    tuned.steps = 10_000
    tuned.update(batch(size=3, length=5))
    assert tuned.chosen_skill is None  # 15 of 20 states
    tuned.update(batch(size=1, length=5))
    assert tuned.chosen_skill is not None


def test_the_task_points_where_the_rewards_do() -> None:
    tuned = pretraining("dreamer-aps").for_finetuning(factory.context())
    choice = tuned.components["choice"]
    assert isinstance(choice, SolvedTask)
    feat = torch.randn(4, 5, tuned.world_model.rssm.feat_dim, generator=torch.Generator().manual_seed(0))
    task = nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5]), dim=0)
    phi = nn.functional.normalize(choice.phi(feat), dim=-1)
    post = LatentState(feat.unsqueeze(-2), feat[..., :0], feat.unsqueeze(-2))
    solved = choice.observe({"reward": 3 * phi @ task}, post, tuned.behaviour)
    assert solved is not None
    torch.testing.assert_close(solved, task, atol=1e-3, rtol=0)


def test_pretraining_from_a_data_set_needs_no_skills() -> None:
    for name in sorted(set(PRETRAINED) - set(SKILLED)):
        context = replace(factory.context(), collects=False)
        agent = registry.load_agent(name).build(context, tiny(name))
        agent.update(batch())
        agent.for_finetuning(factory.context()).update(batch())
