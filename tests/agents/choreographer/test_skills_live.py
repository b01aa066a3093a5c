"""What keeps skills alive where there are few updates, and what is looked at to see that they are."""

from typing import Any

import agent_factory as factory
import pytest
import torch
from agent_factory import TINY, batch, batch_for, padded, same

from urlbench.agents.choreographer import discovery
from urlbench.agents.choreographer.choreographer import Choreographer, ChoreographerConfig
from urlbench.agents.choreographer.discovery import SkillDiscovery
from urlbench.agents.common.distributions import saturation
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
