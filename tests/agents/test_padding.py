"""Episodes that end early: padding counts for nothing, and what would come behind an end has no value."""

import math
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from agent_factory import batch_for, filled, padded, play, same, tensors
from torch import Tensor

from urlbench.agents.common.actor_critic import (
    ActorCritic,
    ActorCriticConfig,
    Trajectory,
    discount_weights,
    imagine,
    lambda_return,
)
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig, start_states
from urlbench.agents.ddpg.backbone import n_step_transitions
from urlbench.core import registry
from urlbench.core.interfaces import Agent, Array
from urlbench.core.types import ObservationKind

AGENTS = sorted(registry.names("agent"))
LEARNERS = [name for name in AGENTS if name != "random"]
LENGTHS = (5, 2, 3, 4)
# As many of them as a batch has, so that the choices of skills and tasks are made.
SIZES = {"task_states": 12, "task_samples": 4, "task_frames": 0, "choice_updates": 2}


def build(name: str, phase: str, kind: ObservationKind = "states") -> Agent:
    spec, config = registry.load_agent(name), factory.smoke_config(name)
    sizes = {key: value for key, value in SIZES.items() if key in spec.config.model_fields}
    where = factory.context(kind, ends_early=True)
    agent: Agent = spec.build(where, config.model_copy(update=sizes))
    if phase == "pretrain":
        return agent
    agent = agent.for_finetuning(where)
    if hasattr(agent, "steps"):
        agent.steps = 100_000  # late enough for a choice
    return agent


def padded_batch(agent: Agent, kind: ObservationKind = "states", seed: int = 0) -> dict[str, Array]:
    lengths = [min(length, 3) for length in LENGTHS] if kind == "pixels" else LENGTHS
    return padded(batch_for(agent, kind, seed=seed, size=len(LENGTHS)), lengths)


def garbage(array: Array) -> Array:
    rng = np.random.default_rng(9)
    return rng.integers(1, 200, array.shape).astype(array.dtype)


def outcome(name: str, phase: str, kind: ObservationKind, padding: Any) -> tuple[Any, ...]:
    agent = build(name, phase, kind)
    metrics = []
    for seed in range(3):
        given = filled(padded_batch(agent, kind, seed), padding)
        metrics.append({key: float(value) for key, value in agent.update(given).items()})
        if hasattr(agent, "steps"):
            agent.steps += 1
    return deepcopy(agent.state_dict()), metrics, play(agent.actor(evaluation=True, seed=0), kind, first=0, steps=2)


@pytest.mark.parametrize(
    ("name", "phase", "kind"),
    [
        *((name, phase, "states") for name in LEARNERS for phase in ("pretrain", "finetune")),
        *((name, "pretrain", "pixels") for name in ("edl-dreamer", "dreamer-rnd", "rnd")),
    ],
)
def test_padding_counts_for_nothing(name: str, phase: str, kind: ObservationKind) -> None:
    zeros, other = (outcome(name, phase, kind, padding) for padding in (np.zeros_like, garbage))
    assert all(math.isfinite(value) for metrics in zeros[1] for value in metrics.values())
    assert zeros[1] == other[1]
    assert same(zeros, other)


@pytest.mark.parametrize("name", LEARNERS)
def test_what_is_no_padding_counts(name: str) -> None:
    outcomes = []
    for change in (0, 1):
        agent = build(name, "pretrain")
        given = padded_batch(agent)
        given["observation"][1, 0] += change
        agent.update(given)
        outcomes.append(agent.state_dict())
    assert not same(*outcomes)


@pytest.mark.parametrize("name", LEARNERS)
@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_where_episodes_end_early_there_is_a_continue_head_and_nothing_else(name: str, phase: str) -> None:
    agents = [
        registry.load_agent(name).build(factory.context(ends_early=ends), factory.smoke_config(name))
        for ends in (False, True)
    ]
    if phase == "finetune":
        agents = [agent.for_finetuning(agent.context) for agent in agents]
    never, early = (agent.state_dict() for agent in agents)
    assert never.keys() == early.keys()
    model = early.pop("world_model", {})
    heads = [key for key in model if key.startswith("continue_head")]
    assert bool(heads) == ("world_model" in never)
    assert same(never.pop("world_model", {}), {key: value for key, value in model.items() if key not in heads})
    for states in (never, early):
        states.pop("world_model_optimiser", None)
    assert same(never, early)


def test_the_continue_head_is_inherited() -> None:
    agent = build("choreographer", "pretrain")
    agent.update(padded_batch(agent))
    old = agent.state_dict()["world_model"]
    new = agent.for_finetuning(factory.context(seed=1, ends_early=True)).state_dict()["world_model"]
    heads = [key for key in old if key.startswith("continue_head")]
    assert heads
    assert all(torch.equal(old[key], new[key]) for key in heads)


# --- World models -----------------------------------------------------------------------------------


def test_a_world_model_learns_where_episodes_end() -> None:
    """Episodes end where the first number of an observation is above 1."""
    config = WorldModelConfig(deter=16, hidden=16, variables=4, classes=4, mlp_units=(32,), lr=3e-3)
    model = initialised(lambda: WorldModel(factory.context(ends_early=True), config), 0)
    optimiser, draws = Optimiser(model.parameters(), config.lr, OptimiserConfig()), Draws(0)

    def episodes(seed: int) -> dict[str, Tensor]:
        numbers = torch.Generator().manual_seed(seed)
        lengths = torch.randint(2, 7, (16, 1), generator=numbers)
        time = torch.arange(6)
        last = time == lengths - 1
        seen = 0.1 * torch.randn(16, 6, 5, generator=numbers)
        seen[..., 0] += 2.0 * last
        zeros = torch.zeros(16, 6)
        first = (time == 0).expand(16, 6)
        return {
            "observation": seen,
            "action": torch.zeros(16, 6, 2),
            "reward": zeros,
            "discount": (~last).float(),
            "is_first": first,
            "mask": time < lengths,
        }

    losses = []
    for seed in range(200):
        result = model.loss(episodes(seed), draws)
        optimiser.step(result.loss)
        losses.append(float(result.metrics["continue_loss"]))
    assert np.mean(losses[-10:]) < 0.25 * losses[0]
    given = episodes(1000)
    with torch.no_grad():
        continues = model.continues(model.loss(given, draws).post.feat)
    assert continues is not None
    goes_on = given["discount"] == 1
    assert continues[given["mask"] & goes_on].mean() > 0.9
    assert continues[given["mask"] & ~goes_on].mean() < 0.3


def test_imagination_starts_where_episodes_go_on() -> None:
    batch = tensors(size=3, length=4)
    post = LatentState(*(torch.arange(12.0).reshape(3, 4, 1) for _ in range(3)))
    assert torch.equal(start_states(post, batch).deter, post.deter.flatten(0, 1))
    time = torch.arange(4)
    batch["mask"] = time < torch.tensor([[4], [2], [4]])
    batch["discount"] = 1.0 - (time == torch.tensor([[3], [1], [9]])).float()  # the third goes on behind the window
    assert start_states(post, batch).deter.flatten().tolist() == [0, 1, 2, 4, 8, 9, 10, 11]


# --- Returns ----------------------------------------------------------------------------------------


def test_weights_by_hand() -> None:
    discount = torch.tensor([[0.9, 0.9], [0.0, 0.45], [0.9, 0.9]], requires_grad=True)
    weights = discount_weights(discount, 3, discount)
    torch.testing.assert_close(weights, torch.tensor([[1.0, 1.0], [0.9, 0.9], [0.0, 0.405]]))
    assert not weights.requires_grad
    constant = torch.full((3, 2), 0.9)
    torch.testing.assert_close(discount_weights(constant, 3, constant), discount_weights(0.9, 3, constant).expand(3, 2))


PLACES = 4
LAST = 2


class Corridor:
    """Places 0, 1, 2, 3, as one-hot vectors: each step leads to the next; the episode ends in place 2.

    Args:
        told: the model knows of the end. Else places go on beyond it.
    """

    def __init__(self, *, told: bool) -> None:
        self.told, self.rssm = told, SimpleNamespace(imagine_step=self._step)

    def _step(self, state: LatentState, action: Tensor, draws: Draws) -> LatentState:
        place = (state.deter.argmax(-1) + 1).clamp(max=PLACES - 1)
        untouched = 0 * action.sum(-1, keepdim=True)  # whatever is done, but with a gradient
        return state._replace(deter=F.one_hot(place, PLACES) + untouched)

    def continues(self, feat: Tensor) -> Tensor | None:
        return (feat[..., 1:].argmax(-1) < LAST).to(feat) if self.told else None


def at(*places: int) -> LatentState:
    nothing = torch.zeros(len(places), 1, 1)
    return LatentState(nothing, F.one_hot(torch.tensor(places), PLACES).float(), nothing)


def walk(start: LatentState, steps: int) -> Trajectory:
    return imagine(Corridor(told=True), start, lambda feat, t: feat[:, :2], steps, Draws(0))  # type: ignore[arg-type]


def test_nothing_behind_an_end_counts_in_returns() -> None:
    discount = walk(at(0, 1), 4).discount(0.5)
    returns = lambda_return(torch.ones(4, 2), torch.zeros(4, 2), None, discount, 1.0)
    # From 0: 1 + 0.5 * (1 + 0.5 * 1); from 1: 1 + 0.5 * 1; in the end itself: 1.
    torch.testing.assert_close(returns[0], torch.tensor([1.75, 1.5]))
    torch.testing.assert_close(returns[2, :1], torch.tensor([1.0]))


def test_starts_are_known_to_go_on_whatever_the_head_says() -> None:
    continues = walk(at(2), 2).continues
    assert continues is not None
    assert continues[:, 0].tolist() == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("told", [True, False])
def test_values_next_to_an_end_are_right_if_the_model_knows_of_it(told: bool) -> None:
    config = ActorCriticConfig(units=(32,), horizon=3, discount=0.9, critic_lr=1e-2, slow_every=1)
    agent = initialised(lambda: ActorCritic(1 + PLACES, 2, config), 0)
    optimisers, draws = agent.make_optimisers(OptimiserConfig(weight_decay=0.0)), Draws(0)
    for _ in range(300):
        imagined = agent.imagine(Corridor(told=told), at(0, 1), draws)  # type: ignore[arg-type]
        reward = imagined.trajectory.feat[..., 1:].sum(-1)  # 1 everywhere
        agent.learn(imagined, reward, optimisers)
    with torch.no_grad():
        values = agent.critic.slow_value(at(0, 1, 2).feat)
    # One in each place until the end; without the head as if it went on for ever, 1 / (1 - 0.9).
    expected = torch.tensor([1 + 0.9 + 0.81, 1 + 0.9, 1.0] if told else [10.0, 10.0, 10.0])
    torch.testing.assert_close(values, expected, atol=0.1, rtol=0)


# --- Model-free transitions -------------------------------------------------------------------------


def test_transitions_end_where_the_episode_did() -> None:
    """Windows of 4 entries: whole; terminated after two steps; cut off by the time limit after one."""
    batch = {
        "observation": torch.arange(12.0).reshape(3, 4, 1),
        "action": torch.arange(12.0).reshape(3, 4, 1),
        "reward": torch.tensor([[9.0, 1.0, 2.0, 3.0], [9.0, 1.0, 2.0, 7.0], [9.0, 1.0, 7.0, 7.0]]),
        "discount": torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]),
        "mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]).bool(),
    }
    found = n_step_transitions(batch, 0.5)
    assert found.reward.tolist() == [1 + 0.5 * 2 + 0.25 * 3, 1 + 0.5 * 2, 1]
    assert found.discount.tolist() == [0.125, 0.0, 0.5]
    assert found.obs.flatten().tolist() == [0, 4, 8]
    assert found.next_obs.flatten().tolist() == [3, 6, 9]
    assert found.action.flatten().tolist() == [1, 5, 9]
