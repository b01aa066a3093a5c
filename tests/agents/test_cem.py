"""The cross-entropy method: it finds the best sequence, among what is drawn and what is proposed."""

import pytest
import torch
from torch import Tensor

from urlbench.agents.common.cem import CEMConfig, cem
from urlbench.agents.common.draws import Draws

BEST = torch.tensor([[0.5, -0.3], [0.9, 0.0], [-0.7, 0.2]])  # [H, A]


def closeness(sequences: Tensor) -> Tensor:
    return -((sequences - BEST.unsqueeze(1)) ** 2).sum((0, 2))


def search(config: CEMConfig, **options: Tensor) -> tuple[Tensor, Tensor]:
    found = cem(closeness, torch.zeros(3, 2), torch.ones(3, 2), config, Draws(0), **options)
    assert found.elites.shape[1] == len(found.weights)
    assert float(found.weights.sum()) == pytest.approx(1)
    return found.mean, found.elites[:, 0]


@pytest.mark.parametrize("temperature", [None, 5.0])
@pytest.mark.parametrize("momentum", [0.0, 0.2])
def test_it_finds_the_best_sequence(temperature: float | None, momentum: float) -> None:
    config = CEMConfig(iterations=20, samples=200, elites=20, temperature=temperature, momentum=momentum)
    for sequence in search(config):
        torch.testing.assert_close(sequence, BEST, atol=0.05, rtol=0)


def test_what_is_drawn_stays_within_the_limit() -> None:
    mean, best = search(CEMConfig(iterations=20, samples=200, elites=20, limit=0.6))
    torch.testing.assert_close(best, BEST.clamp(-0.6, 0.6), atol=0.05, rtol=0)
    assert mean.abs().max() <= 0.6


def test_proposals_compete() -> None:
    config = CEMConfig(iterations=1, samples=10, elites=1)
    assert torch.equal(search(config, proposals=BEST.unsqueeze(1))[1], BEST)
    assert not torch.equal(search(config)[1], BEST)


def test_elites_count_alike_or_by_their_value() -> None:
    def first_of_all(sequences: Tensor) -> Tensor:
        return torch.arange(float(sequences.shape[1])).flip(0)

    start = (torch.zeros(1, 1), torch.ones(1, 1))
    alike, weighed, all_kept = (
        cem(first_of_all, *start, CEMConfig(iterations=1, samples=8, elites=elites, temperature=temperature), Draws(0))
        for elites, temperature in ((4, None), (4, 1.0), (100, None))
    )
    torch.testing.assert_close(alike.mean[0, 0], alike.elites[0, :, 0].mean())
    torch.testing.assert_close(alike.std[0, 0], alike.elites[0, :, 0].std(correction=0))
    torch.testing.assert_close(weighed.weights, torch.tensor([7.0, 6.0, 5.0, 4.0]).softmax(0))
    assert all_kept.elites.shape == (1, 8, 1)
