"""Updates of agents with a world model against the pieces as they are written: in float64, to many digits."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from agent_factory import context, settled, smoke_config, stored
from exact_updates import flat, learned
from torch import nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import nearest_distances, smallest
from urlbench.agents.common.networks import ConvDecoder
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.core import registry
from urlbench.core.interfaces import Agent

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
LEARNERS = [
    (name, phase)
    for name in ("choreographer", "dreamer-apt", "dreamer-lbs", "dreamer-p2e", "latent-edl")
    for phase in ("pretrain", "finetune")
]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_update

    return plain_update


def learner(name: str, phase: str) -> Agent:
    agent = registry.load_agent(name).build(context(), smoke_config(name))
    return settled(agent.for_finetuning(context())) if phase == "finetune" else agent


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "phase"), LEARNERS)
def test_an_agent_learns_what_the_plain_pieces_teach_it(plain: ModuleType, name: str, phase: str) -> None:
    numbers, metrics = learned(learner(name, phase))
    with plain.plain_pieces(same_draws=True):
        expected_numbers, expected_metrics = learned(learner(name, phase))
    # Entropies in the product form of distances lose half the digits where rows are almost alike.
    torch.testing.assert_close(numbers, expected_numbers, rtol=1e-7, atol=1e-9)
    assert [one.keys() for one in metrics] == [one.keys() for one in expected_metrics]
    for one, expected in zip(metrics, expected_metrics, strict=True):
        assert one == pytest.approx(expected, rel=1e-7, abs=1e-9)
    start = flat(learner(name, phase).state_dict())
    assert any((numbers[key] - start[key]).abs().max() > 1e-5 for key in numbers)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("elu_output", [False, True])
def test_images_and_gradients_are_those_of_transposed_convolutions(plain: ModuleType, elu_output: bool) -> None:
    torch.manual_seed(0)
    decoder = ConvDecoder(9, depth=2, elu_output=elu_output)
    feat = torch.randn(3, 2, 9, requires_grad=True)
    wanted = [feat, *decoder.parameters()]
    results = []
    for image in (decoder(feat), plain.decoder(decoder, feat)):
        assert image.shape == (3, 2, 3, 64, 64)
        results.append([image, *torch.autograd.grad((image**2).sum(), wanted)])
    torch.testing.assert_close(*results, rtol=1e-11, atol=1e-12)
    assert all(bool(gradient.any()) for gradient in results[0][1:])


@pytest.mark.parametrize(("rows", "k"), [(1, 1), (2, 2), (100, 1), (101, 7), (101, 101), (997, 30)])
def test_neighbours_are_those_of_the_whole_matrix(plain: ModuleType, rows: int, k: int) -> None:
    x = torch.tanh(torch.randn(rows, 20, generator=torch.Generator().manual_seed(0)).cumsum(0))
    x[rows // 2] = x[0]
    # Equal rows are up to 1e-3 apart in the product form in float32, as it says; what counts is the searching.
    x = x.double()
    found, expected = nearest_distances(x, k).sort(-1).values, plain.nearest_distances(x, k).sort(-1).values
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("group", [1, 2, 5, 10, 60])
@pytest.mark.parametrize("k", [1, 2, 13, 60])
def test_the_smallest_are_those_of_topk_bit_for_bit(group: int, k: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for x in (torch.randn(50, 60, generator=generator), torch.randint(4, (50, 60), generator=generator)):
        expected = x.sort(-1).values[:, :k]
        assert torch.equal(smallest(x, k, group).sort(-1).values, expected)


def test_draws_are_those_of_the_inverse_distribution_function(plain: ModuleType) -> None:
    probs = torch.randn(500, 8, 32, generator=torch.Generator().manual_seed(0)).mul(3).softmax(-1)
    probs[:, 0, 5:] = 0
    assert torch.equal(Draws(3).latent(probs), plain.index(Draws(3), probs))


def test_plain_draws_are_from_the_same_distribution(plain: ModuleType) -> None:
    probs, rows = torch.tensor([0.5, 0.0, 0.2, 0.3]), 40_000
    for drawn in (Draws(3).latent(probs.expand(rows, 4)), plain.multinomial(Draws(3), probs.expand(rows, 4))):
        # Four standard deviations of a frequency are at most 4 * (1/4 / rows) ** (1/2) = 0.01.
        torch.testing.assert_close(drawn.bincount(minlength=4) / rows, probs, rtol=0, atol=0.01)


def test_an_optimiser_saved_before_goes_on_as_it_did() -> None:
    """Checkpoints written before Adam was fused say so, and are continued bit for bit."""

    def optimiser(net: nn.Module) -> Optimiser:
        return Optimiser(net.parameters(), 1e-2, OptimiserConfig())

    def learn(net: nn.Module, steps: int, how: Optimiser) -> None:
        for _ in range(steps):
            how.step((net(torch.ones(3, 20)) ** 2).mean())

    nets = [nn.Linear(20, 30) for _ in range(3)]
    whole, resumed, half = (optimiser(net) for net in nets)
    for net in nets[1:]:
        net.load_state_dict(nets[0].state_dict())
    old = stored(whole.state_dict())
    old["param_groups"][0]["fused"] = None
    for how in (whole, half):
        how.load_state_dict(old)
    learn(nets[0], 6, whole)
    learn(nets[2], 3, half)
    resumed.load_state_dict(stored(half.state_dict()))
    nets[1].load_state_dict(nets[2].state_dict())
    learn(nets[1], 3, resumed)
    assert torch.equal(nets[1].weight, nets[0].weight)
    assert resumed.state_dict()["param_groups"][0]["fused"] is None
