"""Actions against those of the modules, bit for bit; `benchmarks/plain_acting.py` is the oracle."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from agent_factory import batch_for, build, context, play, same, settled
from torch import Tensor

from urlbench.agents.common import acting
from urlbench.agents.common.networks import MLP
from urlbench.core import registry
from urlbench.core.interfaces import Actor, Agent
from urlbench.core.types import ObservationKind

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
AGENTS = [name for name in sorted(registry.names("agent")) if name != "random"]


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import plain_acting

    return plain_acting


def learner(name: str, phase: str, kind: ObservationKind) -> Agent:
    agent = build(name, kind)
    return settled(agent.for_finetuning(context(kind))) if phase == "finetune" else agent


def actors_of(agent: Agent) -> list[Actor]:
    """One that trains, one that is evaluated, one in search of goals."""
    return [
        agent.actor(evaluation=False, seed=3),
        agent.actor(evaluation=True, seed=3),
        agent.search_actor(seed=3, skill_steps=4, sample=True),
    ]


def episodes(agent: Agent, kind: ObservationKind) -> tuple[list[Any], list[Any], list[Any]]:
    """Each actor's actions before and after an update, which it must see, and its state in the end."""
    actors = actors_of(agent)
    before = [play(actor, kind, first=4000, steps=6) for actor in actors]
    agent.update(batch_for(agent, kind, size=8, length=agent.schedule.batch_length))
    after = [play(actor, kind, first=4006, steps=3, begin=False) for actor in actors]
    after = [actions + play(actor, kind, first=4000, steps=6) for actor, actions in zip(actors, after, strict=True)]
    return before, after, [actor.state_dict() for actor in actors]


@pytest.mark.parametrize(
    ("name", "phase", "kind"),
    [
        *((name, phase, "states") for name in AGENTS for phase in ("pretrain", "finetune")),
        *((name, "finetune", "pixels") for name in ("icm", "dreamer-rnd", "choreographer")),
    ],
)
def test_actors_act_as_the_modules_do(plain: ModuleType, name: str, phase: str, kind: ObservationKind) -> None:
    found = episodes(learner(name, phase, kind), kind)
    with plain.plain_actors():
        expected = episodes(learner(name, phase, kind), kind)
    assert same(found, expected)


@pytest.mark.parametrize("change", [lambda x: x.add_(1.0), lambda x: x.copy_(torch.ones_like(x))])
def test_changed_parameters_are_seen(change: Callable[[Tensor], Tensor]) -> None:
    net, x = MLP(3, (4,), 2, norm=True), torch.ones(1, 3)
    function = acting.mlp(net)
    with torch.no_grad():
        before = function(x)
        for parameter in net.parameters():
            change(parameter)
        assert torch.equal(function(x), net(x))
        assert not torch.equal(function(x), before)


@pytest.mark.parametrize("activation", [F.elu, F.relu, torch.tanh])
@pytest.mark.parametrize(
    ("inputs", "hidden", "outputs", "norm"),
    [(24, (1024,), 6, False), (1224, (400, 400, 400, 400), None, False), (24, (400, 400), 5, True), (1, (1,), 1, True)],
)
def test_a_network_of_published_size_says_the_same(
    inputs: int, hidden: tuple[int, ...], outputs: int | None, norm: bool, activation: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    net = MLP(inputs, hidden, outputs, norm=norm, activation=activation)
    x = torch.randn(1, inputs)
    given = x.clone()
    with torch.inference_mode():
        assert torch.equal(acting.mlp(net)(x), net(x))
    assert torch.equal(x, given), "what is given is left as it was"


def test_what_is_not_linear_is_refused() -> None:
    with pytest.raises(AssertionError, match="is not linear"):
        acting.linear(torch.nn.Conv2d(1, 1, 1))
