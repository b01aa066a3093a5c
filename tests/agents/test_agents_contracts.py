"""What every registered agent promises: it builds, learns, is saved and restored bit for bit, and is fine-tuned."""

import math
from copy import deepcopy

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch_for, play, same, stored
from torch import nn

from urlbench.agents.common.networks import initialised
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import Agent
from urlbench.core.types import ObservationKind

AGENTS = sorted(registry.names("agent"))
# Images go through the same code as those of other agents.
LIKE_OTHERS_FROM_PIXELS = (
    "choreographer-no-resampling",
    "choreographer-single-skill",
    "choreographer-zero-shot",
    "latent-edl",
    "dreamer-aps",
    "dreamer-apt",
    "dreamer-diayn",
    "dreamer-lbs",
    "dreamer-random",
)
KINDS = [
    pytest.param(name, kind, marks=[pytest.mark.slow] if kind == "pixels" and name in LIKE_OTHERS_FROM_PIXELS else [])
    for name in AGENTS
    for kind in registry.load_agent(name).observations
]
PHASES = ("pretrain", "finetune")
every_agent = pytest.mark.parametrize(("name", "kind"), KINDS)
both_phases = pytest.mark.parametrize("phase", PHASES)


def build(name: str, kind: ObservationKind, phase: str, seed: int = 0) -> Agent:
    agent = factory.build(name, kind, seed=seed)
    return agent if phase == "pretrain" else agent.for_finetuning(factory.context(kind, seed=seed))


@every_agent
@both_phases
def test_learns_and_acts(name: str, kind: ObservationKind, phase: str) -> None:
    agent = build(name, kind, phase)
    before = deepcopy(agent.state_dict())
    for seed in range(2):
        metrics = agent.update(batch_for(agent, kind, seed=seed))
        assert all(math.isfinite(float(value)) for value in metrics.values())
    learns = agent.schedule.update_every_frames is not None
    assert same(before, agent.state_dict()) != learns
    assert bool(metrics) == learns
    for evaluation in (False, True):
        actions = np.array(play(agent.actor(evaluation=evaluation, seed=0), kind, first=0, steps=3))
        assert actions.shape == (3, 2)
        assert (np.abs(actions) <= 1).all()


@every_agent
@both_phases
def test_saved_and_restored_goes_on_bit_for_bit(name: str, kind: ObservationKind, phase: str) -> None:
    agent = build(name, kind, phase)
    actor = agent.actor(evaluation=False, seed=7)
    agent.update(batch_for(agent, kind, seed=0))
    play(actor, kind, first=0, steps=3)
    state, actor_state = stored(agent.state_dict()), stored(actor.state_dict())

    restored = build(name, kind, phase, seed=1)  # another seed: nothing may survive from its own start
    restored_actor = restored.actor(evaluation=False, seed=8)
    restored.load_state_dict(state)
    restored_actor.load_state_dict(actor_state)
    assert same(restored.state_dict(), state)
    for seed in (1, 2):
        assert same(
            {key: float(value) for key, value in agent.update(batch_for(agent, kind, seed=seed)).items()},
            {key: float(value) for key, value in restored.update(batch_for(restored, kind, seed=seed)).items()},
        )
        actions = [play(each, kind, first=3 * seed, steps=3, begin=False) for each in (actor, restored_actor)]
        assert actions[0] == actions[1]
    assert same(agent.state_dict(), restored.state_dict())
    assert same(actor.state_dict(), restored_actor.state_dict())


@every_agent
@both_phases
def test_the_seed_decides_everything(name: str, kind: ObservationKind, phase: str) -> None:
    agents = []
    for seed, global_seed in ((3, 0), (3, 1), (4, 0)):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)  # noqa: NPY002 - to show that the global stream is not used
        agent = build(name, kind, phase, seed=seed)
        agent.update(batch_for(agent, kind))
        agents.append(agent)
    states = [agent.state_dict() for agent in agents]
    assert same(states[0], states[1])
    assert same(states[0], states[2]) == (agents[0].schedule.update_every_frames is None)
    actions = [play(agents[0].actor(evaluation=False, seed=seed), kind, first=0, steps=3) for seed in (5, 5, 6)]
    assert actions[0] == actions[1]
    assert actions[0] != actions[2]


@pytest.mark.parametrize("name", AGENTS)
def test_building_and_learning_leave_the_global_random_state_alone(name: str) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    agent = factory.build(name)
    agent.update(batch_for(agent))
    play(agent.actor(evaluation=False, seed=0), "states", first=0, steps=2)
    assert torch.equal(before, torch.get_rng_state())


def test_initial_weights_are_those_of_the_seed_and_no_other_device_is_seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    expected = nn.Linear(3, 2).state_dict()
    seeded: list[int] = []
    for device in (torch.cuda, torch.xpu):
        monkeypatch.setattr(device, "manual_seed_all", seeded.append)
    assert same(initialised(lambda: nn.Linear(3, 2), 5).state_dict(), expected)
    assert seeded == []


@pytest.mark.parametrize("name", AGENTS)
@both_phases
def test_evaluating_changes_nothing(name: str, phase: str) -> None:
    agent = build(name, "states", phase)
    agent.update(batch_for(agent))
    training = agent.actor(evaluation=False, seed=0)
    play(training, "states", first=0, steps=2)
    before, actor_before = deepcopy(agent.state_dict()), deepcopy(training.state_dict())
    evaluations = [play(agent.actor(evaluation=True, seed=1), "states", first=0, steps=3) for _ in range(2)]
    assert evaluations[0] == evaluations[1]
    assert same(before, agent.state_dict())
    assert same(actor_before, training.state_dict())


@every_agent
@pytest.mark.parametrize("sample", [False, True])
def test_searching_goes_on_from_what_is_stored_and_changes_nothing(
    name: str, kind: ObservationKind, sample: bool
) -> None:
    agent = factory.build(name, kind)
    agent.update(batch_for(agent, kind))
    state = deepcopy(agent.state_dict())
    restored = factory.build(name, kind, seed=1)
    restored.load_state_dict(state)

    def search(one: Agent, seed: int) -> list[list[float]]:
        return play(one.search_actor(seed=seed, skill_steps=2, sample=sample), kind, first=4, steps=5)

    actions = np.array(search(agent, 3))
    assert actions.shape == (5, 2)
    assert (np.abs(actions) <= 1).all()
    assert actions.tolist() == search(restored, 3)
    # Without skills and without noise nothing of a DDPG agent's search is left to chance.
    chance = sample or not isinstance(agent, DDPGLearner) or agent.skills is not None
    assert (actions.tolist() != search(agent, 4)) == chance
    assert same(agent.state_dict(), state)
    assert same(restored.state_dict(), state)


@pytest.mark.parametrize("name", AGENTS)
def test_every_preset_resolves(name: str) -> None:
    spec = registry.load_agent(name)
    assert spec.name == name
    for preset in ("paper", *spec.presets):
        config = resolve_config(spec, preset)
        assert type(config) is spec.config
        assert spec.config.model_validate(config.model_dump(mode="json")) == config
    assert resolve_config(spec, "paper") == spec.config()


@pytest.mark.parametrize("name", AGENTS)
def test_finetuning_starts_from_nothing_where_a_suite_has_no_pretraining(name: str) -> None:
    where = factory.context(ends_early=True, repeat=2)
    agent = registry.load_agent(name).build(where, factory.smoke_config(name)).for_finetuning(where)
    actor = agent.actor(evaluation=False, seed=0)
    for step in (0, 100_000):  # before and after skills are chosen
        actor.before_step(step)
        for seed in range(2):
            given = factory.padded(batch_for(agent, seed=seed), (5, 3, 4))
            assert all(math.isfinite(float(value)) for value in agent.update(given).values())
        assert np.isfinite(play(actor, "states", first=0, steps=2)).all()


@pytest.mark.parametrize("name", AGENTS)
def test_finetuning_starts_afresh_but_for_what_was_learned(name: str) -> None:
    pretrained = factory.build(name)
    pretrained.update(batch_for(pretrained))
    before = deepcopy(pretrained.state_dict())
    tuned = [pretrained.for_finetuning(factory.context(seed=seed)) for seed in (0, 0, 1)]
    assert same(tuned[0].state_dict(), tuned[1].state_dict())
    tuned[0].update(batch_for(tuned[0], seed=1))
    assert same(before, pretrained.state_dict())


@pytest.mark.parametrize("name", AGENTS)
def test_going_on_with_another_task_keeps_what_was_learned(name: str) -> None:
    agent = build(name, "states", "finetune")
    batch = batch_for(agent)
    agent.update(batch)
    learned = deepcopy(agent.state_dict())
    moved = agent.for_transfer(factory.context())
    state = moved.state_dict()
    assert state.keys() == learned.keys()
    # Choreographer waits for a reward of the new task.
    assert {key for key in state if not same(state[key], learned[key])} <= {"smoothing"}
    assert state.get("smoothing", True)
    moved.update(batch)
    play(moved.actor(evaluation=False, seed=0), "states", first=0, steps=2)
