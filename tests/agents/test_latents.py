"""Distributions of the stochastic state: categorical as in DreamerV2, normal as in Dreamer's first version."""

import math

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import tensors
from torch import Tensor, nn
from torch.distributions import Independent, Normal, OneHotCategorical, kl_divergence

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import CategoricalLatents, GaussianLatents, Latents
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import RSSM
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig, kl_loss, start_states

CATEGORICAL, GAUSSIAN = CategoricalLatents(3, 4), GaussianLatents(5)
both = pytest.mark.parametrize("latents", [CATEGORICAL, GAUSSIAN])


def params_of(latents: Latents, seed: int = 0) -> Tensor:
    outputs = torch.randn(6, 7, latents.outputs, generator=torch.Generator().manual_seed(seed))
    return latents.params(outputs).requires_grad_()


@both
def test_samples_have_their_shape_and_the_gradient_of_the_parameters(latents: Latents) -> None:
    params = params_of(latents)
    sample = latents.sample(params, Draws(0))
    assert sample.shape == (6, 7, *latents.shape)
    assert latents.size == math.prod(latents.shape)
    assert torch.autograd.grad((sample**2).sum(), params)[0].any()
    assert latents.mode(params).shape == sample.shape
    assert torch.equal(latents.draw(params.detach(), Draws(0)), sample)


def test_the_mode_of_one_hot_latents_is_their_likeliest_class_and_that_of_normal_ones_their_mean() -> None:
    logits = params_of(CATEGORICAL)
    assert torch.equal(CATEGORICAL.mode(logits).argmax(-1), logits.argmax(-1))
    normal = params_of(GAUSSIAN)
    assert torch.equal(GAUSSIAN.mode(normal), normal[..., :1])


def test_standard_deviations_are_a_softplus_and_a_tenth() -> None:
    params = GAUSSIAN.params(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, -100.0, 0.0, 0.0, 0.0, 3.0]))
    assert params[:, 0].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    expected = [0.1, 0.1 + math.log(2), 0.1 + math.log(2), 0.1 + math.log(2), 0.1 + math.log(1 + math.exp(3))]
    torch.testing.assert_close(params[:, 1], torch.tensor(expected))


def test_normal_samples_are_distributed_as_they_should() -> None:
    params = torch.tensor([[1.0, 0.5]]).expand(20_000, 1, 2)
    sample = GaussianLatents(1).sample(params, Draws(0))
    assert float(sample.mean()) == pytest.approx(1.0, abs=0.02)
    assert float(sample.std()) == pytest.approx(0.5, abs=0.02)


@both
def test_divergences_are_those_of_distribution_objects(latents: Latents) -> None:
    one, other = params_of(latents, 0), params_of(latents, 1)
    if latents is CATEGORICAL:
        objects = [Independent(OneHotCategorical(logits=params), 1) for params in (one, other)]
    else:
        objects = [Independent(Normal(*params.unbind(-1)), 1) for params in (one, other)]
    torch.testing.assert_close(latents.kl(one, other), kl_divergence(*objects))


@both
def test_without_balance_one_divergence_trains_both_sides(latents: Latents) -> None:
    post, prior = params_of(latents, 0), params_of(latents, 1)
    loss, kl = kl_loss(latents, post, prior, balance=None, free_nats=0.0)
    torch.testing.assert_close(loss, latents.kl(post, prior).mean())
    assert torch.equal(kl, latents.kl(post, prior))
    half, _ = kl_loss(latents, post, prior, balance=0.5, free_nats=0.0)
    torch.testing.assert_close(half, loss)
    whole, balanced = (torch.autograd.grad(each, (post, prior), retain_graph=True) for each in (loss, half))
    torch.testing.assert_close([2 * gradient for gradient in balanced], list(whole))
    floor, _ = kl_loss(latents, post, prior, balance=None, free_nats=1e3)
    assert floor.item() == 1e3
    assert not any(gradient.any() for gradient in torch.autograd.grad(floor, (post, prior)))


class GaussianConfig(WorldModelConfig):
    """A small world model in the manner of Dreamer's first version."""

    kl_balance: float | None = None

    @property
    def latents(self) -> Latents:
        return GaussianLatents(6)


SIZES = {"deter": 16, "hidden": 16, "variables": 4, "classes": 4, "mlp_units": (32,), "lr": 3e-3, "free_nats": 0.0}


@pytest.mark.parametrize("config", [WorldModelConfig(**SIZES), GaussianConfig(**SIZES)])  # type: ignore[arg-type]
def test_a_world_model_and_a_policy_in_it_learn_with_either(config: WorldModelConfig) -> None:
    model = initialised(lambda: WorldModel(factory.context(), config), 0)
    optimiser, draws, batch = Optimiser(model.parameters(), config.lr, OptimiserConfig()), Draws(0), tensors(length=8)
    losses = []
    for _ in range(150):
        result = model.loss(batch, draws)
        optimiser.step(result.loss)
        losses.append(float(result.metrics["observation_loss"]))
    noise_floor = 5 * 0.5 * math.log(2 * math.pi)
    assert np.mean(losses[-10:]) - noise_floor < 0.5 * (losses[0] - noise_floor)
    assert float(result.kl.min()) >= 0
    agent = ActorCritic(model.rssm.feat_dim, 2, ActorCriticConfig(units=(8,), horizon=3))
    imagined = agent.imagine(model, start_states(result.post, batch), draws)
    metrics = agent.learn(imagined, model.reward(imagined.trajectory.feat), agent.make_optimisers(OptimiserConfig()))
    assert float(metrics["actor_grad_norm"]) > 0  # the reward reached the actions through the latents


def test_a_normal_model_filters_as_its_equations_say() -> None:
    """With the textbook GRU cell, as in Dreamer's first version; one step by hand."""
    torch.manual_seed(0)
    latents = GaussianLatents(3)
    rssm = RSSM(4, 2, deter=5, hidden=6, latents=latents)
    rssm.cell = nn.GRUCell(6, 5)  # type: ignore[assignment]
    action, embed = torch.randn(2, 1, 2), torch.randn(2, 1, 4)

    class Fixed(Draws):
        def latent_noise(self, mean: Tensor) -> Tensor:
            return torch.full_like(mean, 2.0)

    post, prior = rssm.observe(action, embed, torch.zeros(2, 1).bool(), Fixed(0))
    x = nn.functional.elu(rssm.pre(torch.cat([torch.zeros(2, 3), action[:, 0]], -1)))
    deter = rssm.cell(x, torch.zeros(2, 5))
    mean, raw = rssm.post2(nn.functional.elu(rssm.post1(torch.cat([deter, embed[:, 0]], -1)))).chunk(2, -1)
    std = nn.functional.softplus(raw) + 0.1
    torch.testing.assert_close(post.deter[:, 0], deter)
    torch.testing.assert_close(post.feat[:, 0], torch.cat([mean + 2 * std, deter], -1))
    prior_mean, _ = rssm.prior2(nn.functional.elu(rssm.prior1(deter))).chunk(2, -1)
    torch.testing.assert_close(prior.params[:, 0, :, 0], prior_mean)
