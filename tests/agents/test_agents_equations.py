"""The agents' equations against hand-worked numbers, limits and brute force."""

import math

import pytest
import torch
from agent_factory import TINY, context, tensors
from torch import Tensor

from urlbench.agents.choreographer.vq_vae import Codebook, SkillAutoEncoder, SkillConfig
from urlbench.agents.common import knn_entropy as knn_module
from urlbench.agents.common.actor_critic import StreamNorm, actor_loss, discount_weights, lambda_return
from urlbench.agents.common.distributions import ClampedNormal, categorical_kl, onehot, unit_normal_nll
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import knn_entropy
from urlbench.agents.common.latents import CategoricalLatents
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import RSSM
from urlbench.agents.common.world_model import WorldModel, clip_reward, kl_loss, preprocess


@pytest.fixture(autouse=True)
def _fixed_numbers() -> None:
    torch.manual_seed(0)


# --- Returns and losses on imagined trajectories ----------------------------------------------------


def test_lambda_0_is_the_one_step_return() -> None:
    reward, value, last = torch.randn(4, 3), torch.randn(4, 3), torch.randn(3)
    expected = reward + 0.9 * torch.cat([value[1:], last[None]])
    torch.testing.assert_close(lambda_return(reward, value, last, 0.9, 0.0), expected)


def test_lambda_1_is_the_discounted_sum() -> None:
    reward, last = torch.tensor([1.0, 2.0, 4.0]), torch.tensor(8.0)
    result = lambda_return(reward, torch.randn(3), last, 0.5, 1.0)
    torch.testing.assert_close(result, torch.tensor([1 + 1 + 1 + 1, 2 + 2 + 2, 4 + 4]).float())


def test_lambda_return_is_the_mixture_of_n_step_returns() -> None:
    steps, gamma, lam = 5, 0.9, 0.7
    reward, value, last = torch.randn(steps), torch.randn(steps), torch.randn(())
    values = torch.cat([value, last[None]])

    def n_step(t: int, n: int) -> Tensor:
        discounted = [gamma**i * reward[t + i] for i in range(n)]
        return torch.stack(discounted).sum() + gamma**n * values[t + n]

    result = lambda_return(reward, value, last, gamma, lam)
    for t in range(steps):
        longest = steps - t
        expected = sum((1 - lam) * lam ** (n - 1) * n_step(t, n) for n in range(1, longest))
        expected = expected + lam ** (longest - 1) * n_step(t, longest)
        torch.testing.assert_close(result[t], expected)


def test_the_return_takes_discounts_per_step_and_no_bootstrap() -> None:
    reward, value = torch.randn(4, 2), torch.randn(4, 2)
    constant = torch.full((4, 2), 0.9)
    torch.testing.assert_close(
        lambda_return(reward, value, None, constant, 0.8), lambda_return(reward, value, torch.zeros(2), 0.9, 0.8)
    )
    ended = torch.zeros(4, 2)
    torch.testing.assert_close(lambda_return(reward, value, value[0], ended, 0.8), reward)


def test_the_actors_loss_by_hand() -> None:
    target, entropy = torch.tensor([[100.0], [1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
    assert actor_loss(target, 0.5).item() == pytest.approx(-(1 * 1 + 0.5 * 2) / 2)
    assert actor_loss(target, 0.5, entropy, 0.1).item() == pytest.approx(-(1 * 1.3 + 0.5 * 2.4) / 2)
    assert discount_weights(0.5, 3, target).flatten().tolist() == [1.0, 0.5, 0.25]


def test_the_reward_normaliser_divides_by_a_running_magnitude() -> None:
    norm = StreamNorm(0.75)
    assert norm(torch.tensor([3.0, -3.0])).tolist() == pytest.approx([2.0, -2.0])  # 0.75 * 1 + 0.25 * 3 = 1.5
    assert norm.magnitude.item() == pytest.approx(1.5)
    assert StreamNorm(1.0)(torch.tensor([7.0])).item() == pytest.approx(7.0)


# --- Distributions ----------------------------------------------------------------------------------


def test_kl_against_torch() -> None:
    one, other = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=one), torch.distributions.Categorical(logits=other)
    ).sum(-1)
    torch.testing.assert_close(categorical_kl(one, other), expected)


def test_the_balance_splits_the_gradient_of_the_kl() -> None:
    post, prior = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    loss, kl = kl_loss(CategoricalLatents(*post.shape[-2:]), post, prior, balance=0.8, free_nats=0.0)
    whole = torch.autograd.grad(categorical_kl(post, prior).mean(), (post, prior))
    balanced = torch.autograd.grad(loss, (post, prior))
    torch.testing.assert_close(loss, kl.mean())
    torch.testing.assert_close(balanced[0], 0.2 * whole[0])
    torch.testing.assert_close(balanced[1], 0.8 * whole[1])


def test_a_clamped_sample_keeps_its_gradient() -> None:
    mean, std = torch.tensor([0.9, 0.0], requires_grad=True), torch.tensor([1.0, 1.0])
    sample = ClampedNormal(mean, std).sample(torch.tensor([5.0, 0.5]))
    assert sample.tolist() == pytest.approx([1 - 1e-6, 0.5])
    sample.sum().backward()
    assert mean.grad is not None
    assert mean.grad.tolist() == [1.0, 1.0]


def test_the_normals_log_prob_and_entropy_against_torch() -> None:
    mean, std, action = torch.randn(3, 2), torch.rand(3, 2) + 0.1, torch.randn(3, 2)
    normal = torch.distributions.Normal(mean, std)
    torch.testing.assert_close(ClampedNormal(mean, std).log_prob(action), normal.log_prob(action).sum(-1))
    torch.testing.assert_close(ClampedNormal(mean, std).entropy(), normal.entropy().sum(-1))
    unit = torch.distributions.Normal(mean, 1.0)
    torch.testing.assert_close(unit_normal_nll(mean, action), -unit.log_prob(action))


def test_straight_through_is_one_hot_with_the_probabilities_gradient() -> None:
    probs = torch.tensor([[0.2, 0.5, 0.3]], requires_grad=True)
    sample = onehot(torch.tensor([2]), probs)
    assert sample.tolist() == [[0.0, 0.0, 1.0]]
    weight = torch.tensor([[1.0, 2.0, 3.0]])
    (gradient,) = torch.autograd.grad((sample * weight).sum(), probs)
    assert torch.equal(gradient, weight)


# --- World model ------------------------------------------------------------------------------------


def test_a_first_entry_forgets_what_came_before() -> None:
    rssm = RSSM(4, 2, deter=3, hidden=5, latents=CategoricalLatents(2, 2))
    draws = Draws(0)
    draws.latent = lambda probs: probs.argmax(-1)  # type: ignore[method-assign]
    action, embed, first = torch.randn(1, 6, 2), torch.randn(1, 6, 4), torch.zeros(1, 6, dtype=torch.bool)
    first[0, 0] = first[0, 3] = True
    whole, _ = rssm.observe(action, embed, first, draws)
    tail, _ = rssm.observe(action[:, 3:], embed[:, 3:], first[:, 3:], draws)
    torch.testing.assert_close(whole.deter[:, 3:], tail.deter)
    joined, _ = rssm.observe(action, embed, first & (torch.arange(6) == 0), draws)
    assert not torch.allclose(joined.deter[:, 3:], tail.deter)


def test_the_models_loss_is_the_sum_of_its_parts() -> None:
    model = WorldModel(context(), TINY.world_model)
    result = model.loss(tensors(), Draws(0))
    parts = [result.metrics[name] for name in ("kl_loss", "observation_loss", "reward_loss")]
    torch.testing.assert_close(result.loss, torch.stack(parts).sum())
    assert result.kl.shape == (3, 5)
    assert result.post.feat.shape == (3, 5, model.rssm.feat_dim)


def test_images_are_scaled_and_numbers_are_not() -> None:
    image = torch.tensor([0, 255], dtype=torch.uint8)
    assert preprocess(image).tolist() == [-0.5, 0.5]
    numbers = torch.tensor([300.0, -7.0])
    assert preprocess(numbers) is numbers
    assert preprocess(image, symlog_states=True).tolist() == [-0.5, 0.5]
    assert preprocess(torch.tensor([0.0, 1.0, -3.0]), symlog_states=True).tolist() == pytest.approx(
        [0.0, math.log(2), -math.log(4)]
    )
    assert clip_reward(numbers, "sign").tolist() == [1.0, -1.0]


# --- Entropy from neighbours ------------------------------------------------------------------------


def brute_force_entropy(x: Tensor, k: int, clip: float) -> Tensor:
    distance = (x.double()[:, None] - x.double()[None]).norm(dim=-1)
    return (distance.sort(-1).values[:, :k] - clip).clamp(min=0).mean(-1)


@pytest.mark.parametrize("elements", [1, 50, 7 * 50, 50 * 50, 10**6])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_neighbours_in_chunks_equal_brute_force(elements: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knn_module, "CHUNK_ELEMENTS", elements)
    x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)) + 10
    x[7] = x[30]
    torch.testing.assert_close(
        knn_entropy(x, k, clip=1e-2).double(), brute_force_entropy(x, k, 1e-2), atol=1e-4, rtol=1e-5
    )


def test_a_row_is_its_own_first_neighbour() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    assert knn_entropy(x, 1).tolist() == [0.0, 0.0, 0.0]
    assert knn_entropy(x, 2, clip=0.0).tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert knn_entropy(x, 3, clip=0.25).tolist() == pytest.approx(
        [(0.75 + 2.75) / 3, (0.75 + 1.75) / 3, (1.75 + 2.75) / 3]
    )


def test_rounding_leaves_nothing_of_the_distance_to_itself() -> None:
    x = 10 * torch.randn(400, 200)
    assert not knn_entropy(x, 1, clip=0.0).any()


@pytest.mark.parametrize("k", [0, -1, 4])
def test_more_neighbours_than_rows_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"k={k} neighbours asked of 3 rows"):
        knn_entropy(torch.randn(3, 2), k)


def test_memory_at_paper_size_is_bounded() -> None:
    rows = 16 * 50 * 50
    held_at_once = max(1, knn_module.CHUNK_ELEMENTS // rows) * rows * 4
    assert held_at_once < 2**30


@pytest.mark.slow
@pytest.mark.slow
def test_neighbours_at_paper_size() -> None:
    x = torch.randn(16 * 50 * 50, 200, generator=torch.Generator().manual_seed(0))
    some, y = torch.arange(0, len(x), 3989), x.double()
    distance = (y[some][:, None] - y[None, :4000]).norm(dim=-1)  # an upper bound from a tenth of them
    entropy = knn_entropy(x, 30)
    assert (entropy[some] <= distance.topk(30, largest=False).values.mean(-1)).all()
    exact = torch.stack([(y - y[i]).norm(dim=-1).topk(30, largest=False).values.mean() for i in some])
    torch.testing.assert_close(entropy[some].double(), exact - 1e-4 * 29 / 30, atol=1e-4, rtol=1e-5)


# --- Skills -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("as_one", "expected"), [(True, [99.0, 198.0]), (False, [0.0, 0.0])])
def test_what_an_empty_code_counts_as(as_one: bool, expected: list[float]) -> None:
    book = Codebook(2, 2, 0.99, count_empty_as_one=as_one)
    book.codes.copy_(torch.tensor([[0.0, 0.0], [1.0, 2.0]]))
    book.embed_avg.copy_(book.codes)
    x = torch.tensor([[0.1, 0.0]])
    book.update(x, book.quantise(x).assigned)
    assert book.usage.tolist() == [1.0, 0.0]
    assert book.cluster_size.tolist() == pytest.approx([0.01, 0.01 if as_one else 0.0])
    if as_one:  # as published: the first update throws an unused code to 99 times itself
        assert book.codes[1].tolist() == pytest.approx(expected, rel=1e-3)
    else:
        assert book.codes[1].norm() > 1e3


def test_the_nearest_code_is_passed_on_with_the_embeddings_gradient() -> None:
    book = Codebook(2, 1, 0.99)
    book.codes.copy_(torch.tensor([[0.0], [1.0]]))
    x = torch.tensor([[0.4], [0.6], [3.0]], requires_grad=True)
    quantised = book.quantise(x)
    assert quantised.assigned.tolist() == [0, 1, 1]
    assert quantised.code.flatten().tolist() == [0.0, 1.0, 1.0]
    (quantised.code * torch.tensor([[1.0], [2.0], [3.0]])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [1.0, 2.0, 3.0]


class CountedRows(Draws):
    """Remembers the weights that rows are drawn from."""

    def __init__(self) -> None:
        super().__init__(0)
        self.weights: list[Tensor] = []

    def row(self, probs: Tensor) -> Tensor:
        self.weights.append(probs / probs.sum())
        return super().row(probs)


@pytest.mark.parametrize("power", [1, 2])
def test_unused_codes_are_drawn_in_proportion_to_the_distance(power: int) -> None:
    skills = SkillAutoEncoder(
        3,
        SkillConfig(codes=2, code_dim=2, units=(4,), resample_every=1, resample_power=power),  # type: ignore[arg-type]
    )
    skills.codebook.codes.copy_(torch.tensor([[0.0, 0.0], [100.0, 100.0]]))
    draws, deter = CountedRows(), torch.randn(6, 3)
    optimiser = Optimiser(skills.networks(), 0.0, OptimiserConfig(weight_decay=0.0))
    metrics = skills.learn(deter, optimiser, draws)
    assert metrics["unused_codes"] == metrics["resampled_codes"] == 1.0
    embedding = skills.encoder(deter)
    assert any(torch.equal(skills.codebook.codes[1], row) for row in embedding)
    # The other code moved by its average; the distance to it decided.
    distance = (embedding - skills.codebook.codes[0]).norm(dim=-1)
    torch.testing.assert_close(draws.weights[0], distance**power / (distance**power).sum(), atol=1e-4, rtol=1e-3)


def test_the_code_reward_is_the_distance_or_its_square() -> None:
    skills = SkillAutoEncoder(3, SkillConfig(codes=2, code_dim=2, units=(4,)))
    goal = skills.decoder(skills.codebook.codes)[1].detach()
    deter = (goal + torch.tensor([3.0, 0.0, 4.0])).expand(2, 1, 3)
    assert skills.code_reward(torch.tensor([1]), deter).flatten().tolist() == pytest.approx([-5.0, -5.0])
    squared = skills.code_reward(torch.tensor([1]), deter, squared=True)
    assert squared.flatten().tolist() == pytest.approx([-25.0, -25.0], rel=1e-5)


# --- Optimiser --------------------------------------------------------------------------------------


def test_one_step_by_hand() -> None:
    parameter, bystander = torch.nn.Parameter(torch.tensor([1.0, 1.0])), torch.tensor([2.0])
    config = OptimiserConfig(eps=0.5, clip_norm=1.0, weight_decay=0.1)
    optimiser = Optimiser([parameter], 0.2, config, also_decay=[bystander])
    norm = optimiser.step((parameter * torch.tensor([30.0, 40.0])).sum())
    assert norm.item() == pytest.approx(50.0)
    clipped = [0.6, 0.8]  # Adam's first step is g / (|g| + eps)
    assert parameter.tolist() == pytest.approx([0.9 - 0.2 * g / (g + 0.5) for g in clipped])
    assert bystander.item() == pytest.approx(1.8)
