"""Which parameters each loss of the Dreamer agents and of the ablations trains, and where gradients stop."""

from typing import Any

import agent_factory as factory
import pytest
import torch
from agent_factory import batch_for, dreamer_agents, same, stored, tiny
from torch import Tensor, nn

from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.learner import Learner
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.dreamer.pretraining import Pretraining
from urlbench.core import registry

AGENTS = [*dreamer_agents(), *factory.ABLATIONS]
PHASES = ("pretrain", "finetune")
every_agent = pytest.mark.parametrize("name", AGENTS)
both_phases = pytest.mark.parametrize("phase", PHASES)


def build(name: str, phase: str = "pretrain", **changes: Any) -> Learner:
    """An agent without free nats: below one nat the KL has no gradient, and an untrained model is below it."""
    world_model = {"free_nats": 0.0} | changes.pop("world_model", {})
    if name in factory.ABLATIONS:
        changes["skill_decay_bug"] = False  # else the world model's steps change the skills
    agent = registry.load_agent(name).build(factory.context(), tiny(name, world_model=world_model, **changes))
    agent = agent if phase == "pretrain" else factory.settled(agent.for_finetuning(factory.context()))
    assert isinstance(agent, Learner)
    return agent


def trainable(agent: Learner) -> dict[str, nn.Parameter]:
    modules = {name: part for name, part in agent.components.items() if isinstance(part, nn.Module)}
    return {
        f"{name}.{inner}": parameter
        for name, module in modules.items()
        for inner, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def optimisers(agent: Learner) -> dict[str, Optimiser]:
    return {name: part for name, part in agent.components.items() if isinstance(part, Optimiser)}


@every_agent
@both_phases
def test_every_parameter_has_exactly_one_optimiser(name: str, phase: str) -> None:
    agent = build(name, phase)
    optimised = [id(parameter) for part in optimisers(agent).values() for parameter in part.parameters]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(parameter) for parameter in trainable(agent).values()}


@every_agent
@both_phases
def test_every_parameter_gets_a_gradient_and_changes_in_its_own_step(
    name: str, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = build(name, phase)
    named = {id(part): key for key, part in optimisers(agent).items()}
    touched: set[int] = set()
    changed: dict[str, set[str]] = {}
    step = Optimiser.step

    def watched(self: Optimiser, loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        touched.update(id(p) for p, gradient in zip(self.parameters, gradients, strict=True) if gradient.any())
        before = {key: parameter.detach().clone() for key, parameter in trainable(agent).items()}
        norm = step(self, loss)
        after = trainable(agent)
        changed[named[id(self)]] = {key for key in before if not torch.equal(before[key], after[key])}
        return norm

    monkeypatch.setattr(Optimiser, "step", watched)
    for seed in range(2):  # slow critics are random and fresh before the first update
        agent.update(batch_for(agent, seed=seed))
    parameters = trainable(agent)
    assert not [key for key, parameter in parameters.items() if id(parameter) not in touched]
    for key, optimiser in optimisers(agent).items():
        own = {id(parameter) for parameter in optimiser.parameters}
        assert changed[key] == {inner for inner, parameter in parameters.items() if id(parameter) in own}
    assert all(parameter.grad is None for parameter in parameters.values())


@every_agent
@both_phases
def test_rewards_shape_the_model_where_published(name: str, phase: str) -> None:
    states = []
    for extra in (0.0, 1.0):
        agent = build(name, phase)
        replayed = batch_for(agent)
        replayed["reward"] += extra
        agent.update(replayed)
        states.append(stored(agent.components["world_model"].state_dict()))
    different = {key.partition(".")[0] for key in states[0] if not same(states[0][key], states[1][key])}
    if phase == "finetune":
        with_skills = name in (*factory.DREAMERS_WITH_SKILLS, *factory.ABLATIONS)
        assert different == ({"reward_head"} if with_skills else {"reward_head", "rssm", "encoder"})
    elif name == "dreamer":
        assert different == {"reward_head", "rssm", "encoder"}
    else:  # rewards that are written over the task's leave nothing of it
        assert different == (set() if name in factory.DREAMERS_WITH_REPLAY_REWARDS else {"reward_head"})


@pytest.mark.parametrize(
    ("name", "differentiable"),
    [
        ("dreamer-lbs", True),
        ("dreamer-apt", False),
        ("dreamer-p2e", True),
        ("dreamer-icm", True),
        ("dreamer-rnd", True),
        ("dreamer-diayn", True),
        ("dreamer-aps", False),
    ],
)
def test_where_rewards_have_a_gradient_into_the_states(name: str, differentiable: bool) -> None:
    agent = build(name)
    assert isinstance(agent, Pretraining)
    numbers = torch.Generator().manual_seed(0)
    feat_dim, deter = agent.world_model.rssm.feat_dim, agent.world_model.rssm.deter
    feat = torch.randn(4, 3, feat_dim, generator=numbers).requires_grad_()
    action = torch.randn(3, 3, 2, generator=numbers).requires_grad_()
    skill = None if agent.skills is None else torch.eye(agent.skills.dim)[:3]
    rewards = agent.intrinsic.judge(Trajectory(feat, feat[..., -deter:], action), agent.world_model, skill)
    assert rewards.shape == (4, 3)
    assert rewards.requires_grad == differentiable
    if differentiable:
        into_feat, into_action = torch.autograd.grad(rewards.sum(), (feat, action), allow_unused=True)
        judged = into_feat if name != "dreamer-p2e" else into_feat[:-1]  # it judges a state by the one before
        assert judged.any(-1).all()
        assert into_action is None
