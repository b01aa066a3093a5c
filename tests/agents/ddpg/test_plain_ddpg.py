"""Updates of the DDPG family against the pieces as they are written: in float64, where both agree to many digits."""

from pathlib import Path
from types import ModuleType

import pytest
import torch
from agent_factory import context, smoke_config
from exact_updates import flat, learned
from torch import nn

from urlbench.agents.ddpg.backbone import soft_update
from urlbench.agents.ddpg.proto import neighbour_distance
from urlbench.core import registry
from urlbench.core.interfaces import Agent

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
PRETRAINED = ("aps", "apt", "cic", "diayn", "disagreement", "icm", "proto", "rnd", "smm")
LEARNERS = [("ddpg", "finetune"), *((name, phase) for name in PRETRAINED for phase in ("pretrain", "finetune"))]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_ddpg

    return plain_ddpg


def learner(name: str, phase: str) -> Agent:
    agent = registry.load_agent(name).build(context(), smoke_config(name))
    return agent.for_finetuning(context()) if phase == "finetune" else agent


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "phase"), LEARNERS)
def test_an_agent_learns_what_the_plain_pieces_teach_it(plain: ModuleType, name: str, phase: str) -> None:
    numbers, metrics = learned(learner(name, phase), size=16, length=4)
    with plain.plain_pieces():
        expected_numbers, expected_metrics = learned(learner(name, phase), size=16, length=4)
    start = flat(learner(name, phase).state_dict())
    torch.testing.assert_close(numbers, expected_numbers, rtol=1e-7, atol=1e-9)
    assert [one.keys() for one in metrics] == [one.keys() for one in expected_metrics]
    for one, expected in zip(metrics, expected_metrics, strict=True):
        assert one == pytest.approx(expected, rel=1e-7, abs=1e-9)
    assert (
        numbers["backbone.actor.trunk.linear.weight"].sub(start["backbone.actor.trunk.linear.weight"]).abs().max()
        > 1e-5
    )


@pytest.mark.parametrize("tau", [0.01, 0.5, 1.0])
def test_a_target_follows_by_the_written_equation(plain: ModuleType, tau: float) -> None:
    source, one, other = (nn.Linear(40, 30) for _ in range(3))
    other.load_state_dict(one.state_dict())
    soft_update(source, one, tau)
    plain.soft_update(source, other, tau)
    torch.testing.assert_close(one.weight, other.weight, rtol=3e-7, atol=1e-8)
    torch.testing.assert_close(one.bias, other.bias, rtol=3e-7, atol=1e-8)


def test_a_module_without_parameters_has_nothing_to_follow() -> None:
    soft_update(nn.Identity(), nn.Identity(), 0.01)


@pytest.mark.parametrize("spread", [1.0, 1e-2, 1e-3])
def test_neighbours_on_the_sphere_are_as_far_as_the_differences_say(plain: ModuleType, spread: float) -> None:
    """Also where all vectors are almost alike, and the distances that they are chosen by have few digits."""
    generator = torch.Generator().manual_seed(0)
    centre = nn.functional.normalize(torch.randn(16, generator=generator), dim=0)
    x, others = (
        nn.functional.normalize(centre + spread * torch.randn(rows, 16, generator=generator), dim=-1)
        for rows in (100, 300)
    )
    others[:50] = x[:50]  # as the queue holds rows of the batch
    for rank in (1, 3):
        found, expected = neighbour_distance(x, others, rank), plain.neighbour_distance(x, others, rank)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert not found[:50].eq(0).any()
    assert neighbour_distance(x, others, 1)[:50].eq(0).all()
