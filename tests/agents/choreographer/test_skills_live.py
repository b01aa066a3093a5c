"""What keeps skills alive where there are few updates, and what is looked at to see that they are."""

from typing import Any

import agent_factory as factory
import pytest
import torch
from agent_factory import TINY, batch, batch_for, padded, same

from urlbench.agents.choreographer import discovery
from urlbench.agents.choreographer.choreographer import Choreographer, ChoreographerConfig
from urlbench.agents.choreographer.discovery import SkillDiscovery
from urlbench.agents.common.actor_critic import StreamNorm
from urlbench.agents.common.distributions import saturation
from urlbench.agents.common.running_moments import Standardiser
from urlbench.core import registry

TOLD = ("measured_own_code_reward", "measured_other_code_reward", "measured_idle_code_reward", "measured_saturation")


def learned(config: ChoreographerConfig = TINY, updates: int = 4) -> tuple[Choreographer, list[dict[str, Any]]]:
    agent = Choreographer(factory.context(), config)
    return agent, [dict(agent.update(batch(seed=seed))) for seed in range(updates)]


# --- What is looked at ------------------------------------------------------------------------------


def test_looking_at_skills_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "EVERY", 2)
    looked_at, metrics = learned()
    assert [[name in one for name in TOLD] for one in metrics] == [[False] * 4, [True] * 4] * 2
    monkeypatch.setattr(discovery, "EVERY", 1000)
    alone, others = learned()
    assert not any(name in one for one in others for name in TOLD)
    assert same(looked_at.state_dict(), alone.state_dict())


@pytest.mark.parametrize("name", ["choreographer", "edl-dreamer", "latent-edl"])
def test_a_skill_is_judged_by_what_it_stands_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = factory.build(name)
    assert isinstance(agent, SkillDiscovery)
    monkeypatch.setattr(discovery, "EVERY", 1)

    def code_reward(skills: Any, skill: torch.Tensor, trajectory: Any, world_model: Any) -> torch.Tensor:
        return torch.stack([skill.float()] * len(trajectory.deter))

    codes = agent.config.skills.codes
    monkeypatch.setattr(type(agent._objective), "code_reward", staticmethod(code_reward))
    metrics = agent.update(batch())
    own, other, idle = (float(metrics[measure]) for measure in TOLD[:3])
    assert own == idle != other
    assert 0 <= own <= codes - 1
    assert 0 <= other <= codes - 1


@pytest.mark.parametrize("name", ["choreographer", "dreamer-lbs"])
def test_padding_is_not_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "EVERY", 1)
    told = []
    for padding in (0.0, 100.0):
        agent = registry.load_agent(name).build(factory.context(ends_early=True), factory.smoke_config(name))
        shorter = padded(batch_for(agent), [5, 2, 3])
        metrics = agent.update(factory.filled(shorter, lambda array, padding=padding: array * 0 + padding))
        told.append({key: float(value) for key, value in metrics.items()})
    assert any("saturation" in key for key in told[0])
    assert told[0] == told[1]


def test_one_skill_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "EVERY", 1)
    single = TINY.model_copy(update={"skills": TINY.skills.model_copy(update={"codes": 1})})
    (metrics,) = learned(single, updates=1)[1]
    assert metrics["measured_own_code_reward"] == metrics["measured_other_code_reward"]


def test_saturation_counts_means_beyond_the_limit() -> None:
    assert saturation(torch.tensor([[-0.96, 0.94], [1.0, 0.0]])) == 0.5


def test_a_choice_that_is_certain_has_no_entropy() -> None:
    tuned = Choreographer(factory.context(), TINY).for_finetuning(factory.context())
    out = tuned.controller.actor.out
    assert out is not None
    with torch.no_grad():
        out.weight.zero_()
        out.bias.copy_(torch.tensor([1000.0, 0, 0, 0, 0]))
    assert float(tuned.update(batch())["meta_choice_entropy"]) == 0


# --- Options ----------------------------------------------------------------------------------------


def test_centred_rewards_lose_their_running_mean() -> None:
    norm = StreamNorm(1.0, centred=True)
    assert norm(torch.tensor([3.0, 5.0])).tolist() == pytest.approx([-1.0, 1.0])  # the first mean is the batch's
    assert norm(torch.tensor([24.0])).tolist() == pytest.approx([19.0])  # 0.95 * 4 + 0.05 * 24 = 5
    assert "mean" not in StreamNorm(1.0).state_dict()


def test_standardised_numbers_have_mean_0_and_deviation_1_over_all_batches() -> None:
    standardise, batches = Standardiser(2), torch.randn(3, 5, 4, 2) * torch.tensor([0.1, 30.0]) + 2
    for one in batches:
        standardise.update(one.flatten(0, -2))
    seen = standardise(batches).flatten(0, -2)
    assert seen.mean(0).tolist() == pytest.approx([0, 0], abs=1e-4)
    assert seen.std(0, correction=0).tolist() == pytest.approx([1, 1], rel=1e-3)


def test_a_number_that_never_changes_stays_finite() -> None:
    standardise = Standardiser(1)
    standardise.update(torch.full((4, 1), 7.0))
    assert standardise(torch.tensor([7.0, 7.01])).tolist() == pytest.approx([0, 1], rel=1e-3)


def test_finetuning_sees_observations_as_pretraining_has_left_them() -> None:
    config = TINY.model_copy(update={"world_model": TINY.world_model.model_copy(update={"standardise_states": True})})
    agent, _ = learned(config)
    tuned = agent.for_finetuning(factory.context(seed=1))
    observation = torch.as_tensor(batch(seed=9)["observation"])
    assert torch.equal(tuned.world_model.seen(observation), agent.world_model.seen(observation))
    assert not torch.equal(agent.world_model.seen(observation), observation)


def test_padding_is_not_standardised_with() -> None:
    config = TINY.model_copy(update={"world_model": TINY.world_model.model_copy(update={"standardise_states": True})})
    whole, shorter = batch(), padded(batch(), [5, 2, 3])
    states = []
    for behind in (0.0, 100.0):
        agent = Choreographer(factory.context(ends_early=True), config)
        agent.update(factory.filled(shorter, lambda array, behind=behind: array * 0 + behind))
        states.append(agent.state_dict())
    assert same(*states)
    counted = torch.as_tensor(whole["observation"])[torch.as_tensor(shorter["mask"])]
    assert torch.allclose(states[0]["world_model"]["standardiser.mean"], counted.mean(0))


def test_finetuning_has_its_own_learning_rate() -> None:
    changed = TINY.model_copy(update={"actor_critic": TINY.actor_critic.model_copy(update={"finetune_actor_lr": 0.5})})
    agent, tuned = (
        Choreographer(factory.context(), changed),
        Choreographer(factory.context(), changed).for_finetuning(factory.context()),
    )
    rates = {
        name: part.state_dict()["param_groups"][0]["lr"]
        for one in (agent, tuned)
        for name, part in one.components.items()
        if name.endswith("_optimiser")
    }
    assert rates["meta_optimiser"] == rates["executor_optimiser"] == 0.5
    assert rates["skill_actor_optimiser"] == rates["explorer_actor_optimiser"] == TINY.actor_critic.actor_lr
    assert rates["critic_optimiser"] == TINY.actor_critic.critic_lr


def test_only_the_skill_policies_have_the_skill_discount() -> None:
    agent = Choreographer(factory.context(), TINY.model_copy(update={"skill_discount": 0.5}))
    assert agent.skill_policy.config.discount == agent.skill_policy.critic.config.discount == 0.5
    assert agent.explorer.config.discount == TINY.actor_critic.discount


def test_skill_policies_start_late() -> None:
    start, _ = learned(updates=0)
    late, metrics = learned(TINY.model_copy(update={"skill_policies_start": 2}), updates=3)
    assert ["skill_reward" in one for one in metrics] == [False, False, True]
    waiting, _ = learned(TINY.model_copy(update={"skill_policies_start": 3}), updates=3)
    assert same(waiting.skill_policy.state_dict(), start.skill_policy.state_dict())
    assert not same(late.skill_policy.state_dict(), start.skill_policy.state_dict())
