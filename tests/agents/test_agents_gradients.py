"""Which parameters each loss trains, and where gradients stop."""

from typing import Any

import agent_factory as factory
import pytest
import torch
from agent_factory import TINY, batch, same, stored, tensors
from torch import Tensor, nn

from urlbench.agents.choreographer.choreographer import Choreographer, ChoreographerFinetuning
from urlbench.agents.choreographer.discovery import skill_reward
from urlbench.agents.common.actor_critic import ActorCriticConfig, Critic
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import knn_entropy
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig

# Below one nat the KL has no gradient, and an untrained model is below it.
NO_FREE_NATS = TINY.model_copy(update={"world_model": TINY.world_model.model_copy(update={"free_nats": 0.0})})


@pytest.fixture(autouse=True)
def _fixed_numbers() -> None:
    torch.manual_seed(0)


def agents() -> list[Choreographer | ChoreographerFinetuning]:
    pretrained = Choreographer(factory.context(), NO_FREE_NATS)
    return [
        pretrained,
        Choreographer(factory.context(collects=False), NO_FREE_NATS),
        pretrained.for_finetuning(factory.context()),
    ]


def trainable(agent: Choreographer | ChoreographerFinetuning) -> dict[str, nn.Parameter]:
    modules = {name: part for name, part in agent.components.items() if isinstance(part, nn.Module)}
    return {
        f"{name}.{inner}": parameter
        for name, module in modules.items()
        for inner, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("agent", agents(), ids=("pretraining", "offline", "finetuning"))
def test_every_parameter_has_exactly_one_optimiser(agent: Choreographer | ChoreographerFinetuning) -> None:
    optimised = [
        id(parameter)
        for part in agent.components.values()
        if isinstance(part, Optimiser)
        for parameter in part.parameters
    ]
    assert len(optimised) == len(set(optimised))
    assert set(optimised) == {id(parameter) for parameter in trainable(agent).values()}


@pytest.mark.parametrize("agent", agents(), ids=("pretraining", "offline", "finetuning"))
def test_every_parameter_gets_a_gradient(
    agent: Choreographer | ChoreographerFinetuning, monkeypatch: pytest.MonkeyPatch
) -> None:
    touched: dict[int, bool] = {}
    step = Optimiser.step

    def watched(self: Optimiser, loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            touched[id(parameter)] = touched.get(id(parameter), False) or bool(gradient.any())
        return step(self, loss)

    monkeypatch.setattr(Optimiser, "step", watched)
    agent.update(batch())
    without = [name for name, parameter in trainable(agent).items() if not touched.get(id(parameter))]
    assert not without


@pytest.mark.parametrize("agent", agents(), ids=("pretraining", "offline", "finetuning"))
def test_an_update_leaves_no_gradient_behind(agent: Choreographer | ChoreographerFinetuning) -> None:
    agent.update(batch())
    assert all(parameter.grad is None for parameter in trainable(agent).values())


def test_each_step_changes_its_own_module_only(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Choreographer(factory.context(), TINY.model_copy(update={"skill_decay_bug": False}))
    optimisers = {id(part): name for name, part in agent.components.items() if isinstance(part, Optimiser)}
    changed: dict[str, set[str]] = {}
    step = Optimiser.step

    def watched(self: Optimiser, loss: Tensor) -> Tensor:
        before = {name: parameter.detach().clone() for name, parameter in trainable(agent).items()}
        norm = step(self, loss)
        after = trainable(agent)
        changed[optimisers[id(self)]] = {name for name in before if not torch.equal(before[name], after[name])}
        return norm

    monkeypatch.setattr(Optimiser, "step", watched)
    agent.update(batch())
    owners = {
        "world_model_optimiser": "world_model.",
        "lbs_optimiser": "lbs.",
        "explorer_actor_optimiser": "explorer.actor.",
        "explorer_critic_optimiser": "explorer.critic.net.",
        "skills_optimiser": "skills.",
        "skill_actor_optimiser": "skill_policy.actor.",
        "skill_critic_optimiser": "skill_policy.critic.net.",
    }
    assert set(changed) == set(owners)
    for name, prefix in owners.items():
        assert changed[name] == {parameter for parameter in trainable(agent) if parameter.startswith(prefix)}


def _model_gradients(reward: Tensor, *, shapes: bool) -> dict[str, Tensor]:
    config = WorldModelConfig(**TINY.world_model.model_dump() | {"reward_shapes_model": shapes})
    agent = Choreographer(factory.context(), TINY.model_copy(update={"world_model": config}))
    loss = agent.world_model.loss(tensors() | {"reward": reward}, Draws(0)).loss
    names, parameters = zip(*agent.world_model.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))


@pytest.mark.parametrize("shapes", [False, True])
def test_rewards_shape_the_model_only_if_asked_to(shapes: bool) -> None:
    reward = tensors()["reward"]
    one, other = (_model_gradients(values, shapes=shapes) for values in (reward, reward + 1))
    different = {name.partition(".")[0] for name in one if not torch.equal(one[name], other[name])}
    assert different == ({"reward_head", "rssm", "encoder"} if shapes else {"reward_head"})


def test_what_the_model_hands_on_is_detached() -> None:
    model = WorldModel(factory.context(), TINY.world_model)
    result = model.loss(tensors(), Draws(0))
    assert result.loss.requires_grad
    assert not any(part.requires_grad for part in (*result.post, result.kl, *result.metrics.values()))


def test_the_entropy_reward_has_no_gradient_and_the_code_reward_has_one_into_the_states_alone() -> None:
    deter = torch.randn(4, 3, TINY.world_model.deter, requires_grad=True)
    assert not knn_entropy(deter.flatten(0, 1), 3).requires_grad
    skills = Choreographer(factory.context(), TINY).skills
    code, entropy = skill_reward(skills, torch.tensor([0, 1, 2]), deter, neighbours=3, clip=0.0, squared=False)
    assert not entropy.requires_grad
    code.sum().backward()
    assert deter.grad is not None
    assert deter.grad.any(-1).all()
    assert all(parameter.grad is None for parameter in skills.parameters())


def test_surprise_is_learned_without_touching_the_states() -> None:
    lbs, feat = LatentBayesianSurprise(4, (8,)), torch.randn(3, 4, requires_grad=True)
    kl = torch.rand(3, requires_grad=True)
    lbs.loss(feat, kl).backward()
    assert feat.grad is None
    assert kl.grad is None
    lbs.reward(feat).sum().backward()
    assert feat.grad is not None


def test_the_critics_regression_reaches_neither_states_nor_targets() -> None:
    critic = Critic(4, ActorCriticConfig(units=(8,)))
    states, target = torch.randn(3, 2, 4, requires_grad=True), torch.randn(2, 2, requires_grad=True)
    critic.loss(states, target, 0.99).backward()
    assert states.grad is None
    assert target.grad is None
    assert all(parameter.grad is not None for parameter in critic.net.parameters())
    assert not any(parameter.requires_grad for parameter in critic.slow.parameters())


@pytest.mark.parametrize(("fraction", "share"), [(1.0, 1.0), (0.25, 0.25)])
def test_the_slow_critic_stands_still_between_copies(fraction: float, share: float) -> None:
    critic = Critic(2, ActorCriticConfig(units=(3,), slow_every=3, slow_fraction=fraction))

    def change() -> None:
        with torch.no_grad():
            for parameter in critic.net.parameters():
                parameter.add_(1.0)
        critic.refresh_slow()

    change()
    first = stored(critic.slow.state_dict())
    assert same(first, critic.net.state_dict())  # the first copy is always complete
    for _ in range(2):
        change()
        assert same(first, critic.slow.state_dict())
    change()
    for name, value in critic.slow.state_dict().items():
        expected = (1 - share) * first[name] + share * critic.net.state_dict()[name]
        torch.testing.assert_close(value, expected)


def test_the_world_models_decay_of_the_skills_is_the_published_bug() -> None:
    changes: dict[str, Any] = {
        "optimiser": OptimiserConfig(weight_decay=0.1),
        "skills": TINY.skills.model_copy(update={"lr": 0.0}),
    }
    for bug, decays in ((True, 2), (False, 1)):
        agent = Choreographer(factory.context(), TINY.model_copy(update=changes | {"skill_decay_bug": bug}))
        before = [parameter.detach().clone() for parameter in agent.skills.networks()]
        agent.update(batch())
        for old, new in zip(before, agent.skills.networks(), strict=True):
            torch.testing.assert_close(new.detach(), old * 0.9**decays)
