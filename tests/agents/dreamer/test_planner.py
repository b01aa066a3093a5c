"""Dyna-MPC: the search finds good actions, and planning goes on bit for bit."""

from types import SimpleNamespace
from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch, play, same, stored, tiny
from torch import Tensor

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.dreamer.finetuning import DreamerFinetuning, PlanningActor
from urlbench.agents.dreamer.planner import Planner, PlannerConfig
from urlbench.core import registry

SMALL = {"horizon": 3, "iterations": 2, "samples": 8, "elites": 3, "policy_share": 0.25}
OBSERVATION = np.zeros(5, np.float32)


def state(x: float, y: float) -> LatentState:
    stoch = torch.zeros(1, 1, 1)
    return LatentState(stoch, torch.tensor([[x, y]]), stoch)


class PlaneModel:
    """A point on a plane that moves by its action, rewarded for being near the origin."""

    def __init__(self) -> None:
        self.rssm = SimpleNamespace(action_dim=2, imagine_step=self._step)

    def _step(self, state: LatentState, action: Tensor, draws: Draws) -> LatentState:
        return state._replace(deter=state.deter + 0.4 * action)

    def continues(self, feat: Tensor) -> None:
        """Episodes never end early."""

    def reward(self, feat: Tensor) -> Tensor:
        return 1 - feat[..., 1:].norm(dim=-1)


def planner(**changes: Any) -> Planner:
    """Over the plane, with a critic that values all states alike."""
    behaviour = initialised(lambda: ActorCritic(3, 2, ActorCriticConfig(units=(4,), discount=0.5)), 0)
    with torch.no_grad():
        for parameter in behaviour.critic.slow.parameters():
            parameter.zero_()
    return Planner(PlaneModel(), behaviour, PlannerConfig(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(("x", "y"), [(1.5, 0.0), (-1.0, 1.0)])
def test_the_search_finds_the_way(x: float, y: float) -> None:
    plan = planner(temperature=10.0).plan(state(x, y), None, None, Draws(0))
    way = -torch.tensor([x, y]) / torch.tensor([x, y]).abs().max()
    torch.testing.assert_close(plan.action[0], way, atol=0.35, rtol=0)
    torch.testing.assert_close(plan.mean[0], way, atol=0.25, rtol=0)
    assert plan.mean.shape == (5, 2)


def test_values_are_returns_from_the_second_state_on() -> None:
    search = planner()
    actions = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]).repeat(3, 1, 1)  # [H, N, A]
    start = LatentState(*(part.expand(2, *part.shape[1:]) for part in state(1.0, 0.0)))
    gamma, lambda_ = 0.5, 0.95
    expected = []
    for direction in (1, -1):
        reward = [1 - abs(1 + 0.4 * direction * t) for t in range(4)]
        # Values are zero: each further reward is worth gamma * lambda as much; the last state counts by its value.
        expected.append(reward[1] + gamma * lambda_ * reward[2])
    values = search.values(start, actions, None, Draws(0))
    torch.testing.assert_close(values, torch.tensor(expected))


def test_the_search_goes_on_from_the_mean_of_the_step_before() -> None:
    search = planner(iterations=1, samples=4, elites=4, momentum=1.0, policy_share=0.0)
    previous = torch.arange(10.0).reshape(5, 2)
    mean = search.plan(state(0.0, 0.0), previous, None, Draws(0)).mean
    torch.testing.assert_close(mean, torch.cat([previous[1:], torch.zeros(1, 2)]))


def test_deviations_stay_within_bounds() -> None:
    for min_std, init_std in ((0.1, 2.0), (0.7, 0.8)):
        plan = planner(min_std=min_std, init_std=init_std).plan(state(1.5, 0.0), None, None, Draws(0))
        assert (plan.std >= min_std).all()
        assert (plan.std <= init_std).all()


def test_the_policy_proposes() -> None:
    search = planner(samples=1, policy_share=8.0, iterations=1, elites=1)
    with torch.no_grad():
        for parameter in search._behaviour.actor.parameters():
            parameter.zero_()
        search._behaviour.actor.mean.bias.copy_(torch.tensor([-3.0, 0.0]))
        search._behaviour.actor.std.bias.fill_(-20.0)
    proposed = search.proposals(LatentState(*(p.expand(8, *p.shape[1:]) for p in state(1.5, 0.0))), 8, None, Draws(0))
    assert proposed.shape == (5, 8, 2)
    plan = search.plan(state(1.5, 0.0), None, None, Draws(0))
    assert float(plan.action[0, 0]) < -0.5


# --- Planning agents --------------------------------------------------------------------------------


def planning(name: str = "dreamer-lbs", **changes: Any) -> DreamerFinetuning:
    options = {"planning": True, "planner": SMALL | changes, "schedule": {"seed_frames": 10}}
    agent = registry.load_agent(name).build(factory.context(), tiny(name, **options))
    tuned = agent.for_finetuning(factory.context())
    assert isinstance(tuned, DreamerFinetuning)
    return tuned


def calls(agent: DreamerFinetuning, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows with every search of the agent's planner."""
    planner, made = agent.planner, []
    assert planner is not None
    search = planner.plan
    monkeypatch.setattr(planner, "plan", lambda *args: made.append(args) or search(*args))
    return made


def test_planning_starts_when_its_time_has_come(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = planning(start_frames=5)
    searches = calls(agent, monkeypatch)
    training, evaluation = (agent.actor(evaluation=evaluation, seed=0) for evaluation in (False, True))
    play(training, "states", first=0, steps=15)
    play(evaluation, "states", first=100, steps=3)  # the evaluation's own counter does not matter
    assert not searches
    play(training, "states", first=15, steps=1, begin=False)
    play(evaluation, "states", first=0, steps=3)
    assert len(searches) == 4


def test_plans_are_carried_over_within_an_episode_only(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = planning(start_frames=0)
    agent.steps = 10
    searches = calls(agent, monkeypatch)
    actor = agent.actor(evaluation=True, seed=0)
    for _ in range(2):
        play(actor, "states", first=0, steps=2)
    assert [args[1] is None for args in searches] == [True, False, True, False]


def test_planned_actions_are_noisy_in_training_only() -> None:
    agent = planning(start_frames=0, min_std=0.3)
    agent.steps = 10
    noises = []
    for evaluation in (False, True):
        actor = agent.actor(evaluation=evaluation, seed=0)
        assert isinstance(actor, PlanningActor)
        asked: list[Tensor] = []
        actor._draws.action_noise = lambda mean, asked=asked: asked.append(mean) or torch.full_like(mean, 100.0)  # type: ignore[method-assign]
        actions = np.array(play(actor, "states", first=10, steps=2))
        noises.append((np.abs(actions) == 1).all())
    assert noises == [True, False]


def test_a_restored_agent_plans_on_bit_for_bit() -> None:
    one, other = planning(start_frames=0), planning(start_frames=0)
    actor, restored = one.actor(evaluation=False, seed=0), other.actor(evaluation=False, seed=1)
    one.update(batch())
    play(actor, "states", first=10, steps=3)
    other.load_state_dict(stored(one.state_dict()))
    restored.load_state_dict(stored(actor.state_dict()))
    actions = [play(each, "states", first=13, steps=3, begin=False) for each in (actor, restored)]
    assert actions[0] == actions[1]
    assert same(actor.state_dict(), restored.state_dict())


def test_agents_with_skills_plan_once_one_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = planning("dreamer-diayn", start_frames=0)
    searches = calls(agent, monkeypatch)
    actor = agent.actor(evaluation=False, seed=0)
    play(actor, "states", first=10, steps=2)
    assert not searches
    factory.settled(agent)
    play(actor, "states", first=12, steps=2, begin=False)
    assert len(searches) == 2
    assert torch.equal(searches[0][2][0], agent.chosen_skill)
