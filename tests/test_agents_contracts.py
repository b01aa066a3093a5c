"""What every registered agent promises: it builds, learns, is saved and restored bit for bit, and is fine-tuned."""

import math
from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch, batch_for, play, same, stored

from urlbench import registry
from urlbench.agents.choreographer import Choreographer, ChoreographerFinetuning, RandomSkillActor
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.draws import Draws
from urlbench.agents.skill_schedule import SkillSchedule
from urlbench.config import resolve_config
from urlbench.interfaces import Agent
from urlbench.types import ObservationKind

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
    before = stored(agent.state_dict())
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


@pytest.mark.parametrize("name", AGENTS)
@both_phases
def test_evaluating_changes_nothing(name: str, phase: str) -> None:
    agent = build(name, "states", phase)
    agent.update(batch_for(agent))
    training = agent.actor(evaluation=False, seed=0)
    play(training, "states", first=0, steps=2)
    before, actor_before = stored(agent.state_dict()), stored(training.state_dict())
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
    state = stored(agent.state_dict())
    restored = factory.build(name, kind, seed=1)
    restored.load_state_dict(state)

    def search(one: Agent, seed: int) -> list[list[float]]:
        return play(one.zero_shot_actor(seed=seed, skill_steps=2, sample=sample), kind, first=4, steps=5)

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
def test_finetuning_starts_afresh_but_for_what_was_learned(name: str) -> None:
    pretrained = factory.build(name)
    pretrained.update(batch_for(pretrained))
    before = stored(pretrained.state_dict())
    tuned = [pretrained.for_finetuning(factory.context(seed=seed)) for seed in (0, 0, 1)]
    assert same(tuned[0].state_dict(), tuned[1].state_dict())
    tuned[0].update(batch_for(tuned[0], seed=1))
    assert same(before, pretrained.state_dict())


# --- Choreographer ----------------------------------------------------------------------------------


def test_choreographer_finetuning_takes_the_model_and_the_skills_only() -> None:
    pretrained = factory.build("choreographer", seed=0)
    pretrained.update(batch())
    tuned = pretrained.for_finetuning(factory.context(seed=1))
    fresh = factory.build("choreographer", seed=1).for_finetuning(factory.context(seed=1))
    old, new, untouched = pretrained.state_dict(), tuned.state_dict(), fresh.state_dict()
    for name, value in new["world_model"].items():
        source = untouched if name.startswith("reward_head") else old
        assert torch.equal(value, source["world_model"][name])
    for name, value in new["controller"].items():
        inner = name.removeprefix("executor.")
        assert torch.equal(
            value, old["skill_policy"][f"actor.{inner}"] if inner != name else untouched["controller"][name]
        )
    assert not any(new[name]["state"] for name in new if name.endswith("_optimiser"))
    assert new["smoothing"]


def test_choreographer_finetuning_is_not_finetuned_again() -> None:
    tuned = factory.build("choreographer").for_finetuning(factory.context())
    with pytest.raises(TypeError, match="fine-tuned already"):
        tuned.for_finetuning(factory.context())


def test_offline_pretraining_needs_no_exploration() -> None:
    agent = factory.build("choreographer", collects=False)
    metrics = agent.update(batch())
    assert not any(key.startswith(("exploration", "lbs")) for key in metrics)
    assert not any(key.startswith(("explorer", "lbs")) for key in agent.state_dict())
    with pytest.raises(ValueError, match="fixed data set"):
        agent.actor(evaluation=False, seed=0)
    agent.for_finetuning(factory.context()).update(batch())


def test_a_component_more_changes_no_other_components_start() -> None:
    online, offline = (factory.build("choreographer", collects=collects).state_dict() for collects in (True, False))
    assert set(offline) < set(online)
    assert all(same(offline[name], online[name]) for name in offline)


def test_a_second_agent_changes_nothing_of_the_first() -> None:
    alone = factory.build("choreographer")
    other = factory.build("choreographer", seed=1)
    other.update(batch(seed=5))
    beside = factory.build("choreographer")
    other.update(batch(seed=6))
    alone.update(batch())
    beside.update(batch())
    assert same(alone.state_dict(), beside.state_dict())


def test_pixels_have_a_smaller_replay() -> None:
    states, pixels = (factory.build("choreographer", kind).schedule for kind in ("states", "pixels"))
    assert states.replay_capacity_steps == 2_000_000
    assert pixels.replay_capacity_steps == 1_000_000


def test_the_behaviour_waits_for_a_reward_in_a_batch() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    without = batch()
    without["reward"][:] = agent.config.reward_threshold  # at the threshold is not above it
    before = stored(agent.state_dict())
    agent.update(without)
    assert agent.smoothing
    assert same(before["controller"], agent.state_dict()["controller"])
    assert not same(before["world_model"], agent.state_dict()["world_model"])
    agent.update(batch())
    assert not agent.smoothing
    assert not same(before["controller"], agent.state_dict()["controller"])
    agent.update(without)
    assert not agent.smoothing


def test_random_skills_act_until_the_controller_takes_over() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    called: list[int] = []
    agent.controller.actor.register_forward_hook(lambda *_: called.append(1))
    actor, seed_frames = agent.actor(evaluation=False, seed=0), agent.schedule.seed_frames
    evaluator, observation = agent.actor(evaluation=True, seed=0), np.zeros(5, np.float32)
    actor.begin_episode()
    evaluator.begin_episode()
    agent.smoothing = False
    actor.act(observation, seed_frames - 1)
    evaluator.act(observation, 10 * seed_frames)  # the evaluation's own counter does not matter
    assert not called
    actor.act(observation, seed_frames)
    evaluator.act(observation, 0)
    assert len(called) == 2


def searching(**options: Any) -> tuple[Choreographer, RandomSkillActor]:
    """A Choreographer, and an actor of it whose skills are numbers in order and whose other draws are fixed."""
    agent = factory.build("choreographer")
    assert isinstance(agent, Choreographer)
    actor = agent.zero_shot_actor(**({"seed": 0, "skill_steps": 4, "sample": False} | options))
    assert isinstance(actor, RandomSkillActor)
    numbers = iter(range(100))
    actor._random_skill._draw = lambda: torch.tensor([next(numbers)])
    actor._draws.latent = lambda probs: probs.argmax(-1)  # type: ignore[method-assign]
    return agent, actor


def test_a_search_follows_random_skills_for_a_while_each() -> None:
    agent, actor = searching()
    followed: list[int] = []
    codes = agent.config.skills.codes
    agent.skill_policy.actor.register_forward_pre_hook(
        lambda _, inputs: followed.append(int(inputs[0][0, -codes:].argmax()))
    )
    # Two episodes of five steps: the counter runs on, so the skill changes at their starts and at steps 4 and 8.
    play(actor, "states", first=0, steps=5)
    play(actor, "states", first=5, steps=5)
    assert followed == [0, 0, 0, 0, 1, 2, 2, 2, 3, 3]


def test_a_search_takes_the_mean_of_the_skill_policy_or_samples_it() -> None:
    means: list[list[float]] = []
    agent, actor = searching()
    agent.skill_policy.actor.register_forward_hook(lambda _, __, output: means.append(output.mean[0].tolist()))
    assert play(actor, "states", first=0, steps=3) == means
    sampling = searching(sample=True)[1]
    assert play(sampling, "states", first=0, steps=3) != means


def test_a_search_draws_skills_uniformly() -> None:
    agent, _ = searching()
    codes, drawn = agent.config.skills.codes, list[int]()
    actor = agent.zero_shot_actor(seed=3, skill_steps=50, sample=False)
    assert isinstance(actor, RandomSkillActor)
    for _ in range(200 * codes):
        actor.begin_episode()
        drawn.append(int(actor.random_skill().argmax()))
    counts = np.bincount(drawn, minlength=codes)
    assert len(counts) == codes
    assert (np.abs(counts - 200) < 5 * np.sqrt(200)).all()


def test_a_search_does_not_ask_the_exploration_policy() -> None:
    agent, _ = searching()
    before = play(agent.zero_shot_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4)
    with torch.no_grad():
        for parameter in agent.explorer.actor.parameters():
            parameter.add_(1.0)
    assert play(agent.zero_shot_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4) == before
    with torch.no_grad():
        for parameter in agent.skill_policy.actor.parameters():
            parameter.add_(1.0)
    assert play(agent.zero_shot_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4) != before
    offline = factory.build("choreographer", collects=False)
    play(offline.zero_shot_actor(seed=3, skill_steps=2, sample=True), "states", first=0, steps=4)


def test_an_episode_starts_without_memory() -> None:
    agent = factory.build("choreographer")
    actor = agent.actor(evaluation=True, seed=0)
    actor._draws.latent = lambda probs: probs.argmax(-1)  # type: ignore[attr-defined]
    first = play(actor, "states", first=0, steps=3)
    assert play(actor, "states", first=3, steps=3, begin=False) != first
    assert play(actor, "states", first=0, steps=3) == first


# --- Draws and the schedule of skills ---------------------------------------------------------------


def test_draws_follow_the_probabilities() -> None:
    draws, probs = Draws(0), torch.tensor([0.1, 0.0, 0.6, 0.3])
    for draw in (draws.latent, draws.skill):
        counts = torch.bincount(draw(probs.expand(20_000, -1)), minlength=4) / 20_000
        torch.testing.assert_close(counts, probs, atol=0.02, rtol=0)
    rows = torch.stack([draws.row(3 * probs) for _ in range(2000)])
    torch.testing.assert_close(torch.bincount(rows, minlength=4) / 2000, probs, atol=0.05, rtol=0)
    noise = draws.action_noise(torch.zeros(20_000))
    assert abs(float(noise.mean())) < 0.03
    assert abs(float(noise.std()) - 1) < 0.03


def test_a_class_of_probability_zero_is_never_drawn() -> None:
    probs = torch.tensor([0.0, 0.5, 0.5, 0.0]).expand(50_000, -1)
    assert set(Draws(0).latent(probs).tolist()) == {1, 2}


def test_draws_go_on_where_they_were_saved() -> None:
    draws, other, mean = Draws(0), Draws(1), torch.zeros(4)
    draws.action_noise(mean)
    other.load_state_dict(stored(draws.state_dict()))
    assert torch.equal(draws.action_noise(mean), other.action_noise(mean))


def test_skills_change_at_episode_starts_and_periodically() -> None:
    numbers = iter(range(10))
    schedule = SkillSchedule(lambda: next(numbers), every=3)
    assert schedule.skill is None
    schedule.at_episode_start()
    seen = [schedule.skill]
    for step in range(1, 8):
        schedule.at_step(step)
        seen.append(schedule.skill)
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2]


def test_a_restored_agent_knows_how_far_its_training_is() -> None:
    agent = factory.build("choreographer").for_finetuning(factory.context())
    restored = factory.build("choreographer").for_finetuning(factory.context())
    assert isinstance(agent, ChoreographerFinetuning)
    assert isinstance(restored, ChoreographerFinetuning)
    agent.smoothing = False
    training = agent.actor(evaluation=False, seed=0)
    training.begin_episode()
    training.act(np.zeros(5, np.float32), agent.schedule.seed_frames)
    restored.load_state_dict(stored(agent.state_dict()))
    called: list[int] = []
    restored.controller.actor.register_forward_hook(lambda *_: called.append(1))
    play(restored.actor(evaluation=True, seed=0), "states", first=0, steps=1)
    assert called


@both_phases
def test_runs_draw_different_numbers(phase: str) -> None:
    one, other = (build("choreographer", "states", phase, seed=seed).state_dict()["draws"] for seed in (0, 1))
    assert not same(one, other)
