"""Which parameters each loss of the DDPG agents trains."""

import agent_factory as factory
import pytest
import torch
from agent_factory import batch_for
from torch import Tensor, nn

from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.ddpg.pretraining import Pretraining
from urlbench.core.types import ObservationKind

PRETRAINED = ("icm", "rnd", "disagreement", "apt", "proto", "smm", "diayn", "aps", "cic")
BOTH_KINDS: tuple[ObservationKind, ...] = ("states", "pixels")
CASES = [(name, kind, phase) for name in PRETRAINED for kind in BOTH_KINDS for phase in ("pretrain", "finetune")]
CASES += [("ddpg", kind, "finetune") for kind in BOTH_KINDS]
every_case = pytest.mark.parametrize(("name", "kind", "phase"), CASES)


def make(name: str, kind: ObservationKind, phase: str) -> DDPGLearner:
    agent = factory.build(name, kind)
    if phase == "finetune":
        agent = agent.for_finetuning(factory.context(kind))
    assert isinstance(agent, DDPGLearner)
    return agent


def trainable(agent: DDPGLearner) -> dict[str, nn.Parameter]:
    modules = {name: part for name, part in agent.components.items() if isinstance(part, nn.Module)}
    return {
        f"{name}.{inner}": parameter
        for name, module in modules.items()
        for inner, parameter in module.named_parameters()
        if parameter.requires_grad
    }


@every_case
def test_every_loss_trains_its_own_part(
    name: str, kind: ObservationKind, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each parameter has one optimiser, a gradient from its loss, and is changed by that step alone."""
    agent = make(name, kind, phase)
    optimisers = {id(part): which for which, part in agent.components.items() if isinstance(part, Optimiser)}
    changed: dict[str, set[str]] = {}
    step = Optimiser.step

    def watched(self: Optimiser, loss: Tensor) -> Tensor:
        before = {key: parameter.detach().clone() for key, parameter in trainable(agent).items()}
        gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        assert all(gradient.any() for gradient in gradients)
        norm = step(self, loss)
        after = trainable(agent)
        changed[optimisers[id(self)]] = {key for key in before if not torch.equal(before[key], after[key])}
        return norm

    monkeypatch.setattr(Optimiser, "step", watched)
    monkeypatch.setattr("urlbench.agents.ddpg.proto.Prototypes.normalise_prototypes", lambda self: None)
    agent.update(batch_for(agent, kind, size=6))

    encoder = {key for key in trainable(agent) if key.startswith("backbone.encoder.")}
    owners = {
        "actor_optimiser": {key for key in trainable(agent) if key.startswith("backbone.actor.")},
        "critic_optimiser": {key for key in trainable(agent) if key.startswith("backbone.critic.")},
    }
    if name == "ddpg":
        owners["critic_optimiser"] |= encoder
    elif name == "smm" and phase == "pretrain":
        vae = {key for key in trainable(agent) if key.startswith("intrinsic.vae.")}
        owners["intrinsic_vae_optimiser"] = vae
        discriminator = {key for key in trainable(agent) if key.startswith("intrinsic.")} - vae
        owners["intrinsic_discriminator_optimiser"] = discriminator | encoder
    elif phase == "pretrain":
        (intrinsic,) = (which for which in changed if which.startswith("intrinsic_"))
        owners[intrinsic] = {key for key in trainable(agent) if key.startswith("intrinsic.")} | encoder
    assert changed == owners
    assert all(parameter.grad is None for parameter in trainable(agent).values())
    untrained = set(trainable(agent)) - set().union(*owners.values())
    assert untrained == (encoder if phase == "finetune" and name != "ddpg" else set())
    assert bool(encoder) == (kind == "pixels")


@pytest.mark.parametrize("name", PRETRAINED)
def test_the_tasks_rewards_mean_nothing_in_pretraining(name: str) -> None:
    agents = [factory.build(name) for _ in range(2)]
    for agent, rewards in zip(agents, (0.0, 100.0), strict=True):
        batch = batch_for(agent)
        batch["reward"][:] = rewards
        agent.update(batch)
    for one, other in zip(*(agent.components.values() for agent in agents), strict=True):  # type: ignore[attr-defined]
        if isinstance(one, nn.Module):
            assert all(
                torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
            )


@pytest.mark.parametrize("name", PRETRAINED)
def test_intrinsic_rewards_have_no_gradient(name: str) -> None:
    agent = factory.build(name, "pixels")
    assert isinstance(agent, Pretraining)
    learned = agent.intrinsic.learn(agent.transitions(batch_for(agent, "pixels", size=6), gradients=True), agent._draws)
    assert not learned.reward.requires_grad
    assert learned.reward.shape == (6,)
    assert learned.reward.isfinite().all()
    assert not any(value.requires_grad for value in learned.metrics.values())


@pytest.mark.parametrize(
    ("name", "obs", "next_obs"),
    [
        ("icm", True, False),  # an encoder that is taught to be predictable learns to see nothing
        ("disagreement", True, False),
        ("apt", True, True),  # features of both sides are shaped by the inverse model, as released
        ("proto", True, False),
        ("smm", True, False),
        ("diayn", False, True),
        ("aps", False, True),
        ("cic", True, True),
    ],
)
def test_which_observations_teach_the_encoder(
    name: str, obs: bool, next_obs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = factory.build(name)
    assert isinstance(agent, Pretraining)
    batch = agent.transitions(batch_for(agent, size=6), gradients=True)
    seen = {"obs": batch.obs.clone().requires_grad_(), "next_obs": batch.next_obs.clone().requires_grad_()}
    taught: set[str] = set()

    def watched(self: Optimiser, loss: Tensor) -> Tensor:
        gradients = torch.autograd.grad(loss, list(seen.values()), allow_unused=True)
        found = {which for which, gradient in zip(seen, gradients, strict=True) if gradient is not None}
        assert self is not agent.intrinsic.optimisers.get("vae") or not found, "this loss is least for a blind encoder"
        taught.update(found)
        return loss

    monkeypatch.setattr(Optimiser, "step", watched)
    agent.intrinsic.learn(batch._replace(**seen), agent._draws)
    assert taught == {which for which, teaches in (("obs", obs), ("next_obs", next_obs)) if teaches}


def test_protos_targets_follow_slowly() -> None:
    agent = factory.build("proto", "pixels")
    assert isinstance(agent, Pretraining)
    reward, tau = agent.intrinsic, agent.config.target_tau  # type: ignore[attr-defined]
    pairs = [(agent.backbone.encoder, reward.target_encoder), (reward.predictor, reward.target_predictor)]
    before = [[parameter.clone() for parameter in target.parameters()] for _, target in pairs]  # type: ignore[union-attr]
    agent.update(batch_for(agent, "pixels", size=6))
    for (online, target), old in zip(pairs, before, strict=True):
        for new, was, now in zip(online.parameters(), old, target.parameters(), strict=True):  # type: ignore[union-attr]
            assert not torch.equal(new, was)
            torch.testing.assert_close(now, tau * new + (1 - tau) * was, rtol=1e-5, atol=0)
