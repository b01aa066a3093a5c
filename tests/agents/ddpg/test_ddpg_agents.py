"""What the DDPG agents do beyond the contracts of all agents."""

import itertools
from dataclasses import replace
from typing import Any

import agent_factory as factory
import numpy as np
import pytest
import torch
from agent_factory import batch_for, play, same, stored
from torch import nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.running_moments import RunningMoments
from urlbench.agents.common.skills import SkillSpace, draw_direction, draw_onehot, draw_point
from urlbench.agents.ddpg.aps import APSConfig, SolvedTask, feature_network, solve_task
from urlbench.agents.ddpg.backbone import Transitions, n_step_transitions, noise_std
from urlbench.agents.ddpg.finetuning import Finetuning
from urlbench.agents.ddpg.learner import DDPGActor, DDPGLearner
from urlbench.agents.ddpg.networks import ImageEncoder, random_shift
from urlbench.agents.ddpg.pretraining import PretrainedConfig, Pretraining
from urlbench.agents.ddpg.proto import sinkhorn
from urlbench.agents.ddpg.skills import Skills
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.errors import UserError
from urlbench.core.interfaces import AgentContext

SKILLED = ("smm", "diayn", "aps", "cic")
PRETRAINED = ("icm", "rnd", "disagreement", "apt", "proto", *SKILLED)
OBSERVATION = np.zeros(5, np.float32)


def pretraining(name: str, **changes: Any) -> Pretraining:
    spec = registry.load_agent(name)
    agent = spec.build(factory.context(), resolve_config(spec, "smoke", changes))
    assert isinstance(agent, Pretraining)
    return agent


# --- Sizes and schedules ----------------------------------------------------------------------------


def million(module: nn.Module) -> float:
    return round(sum(parameter.numel() for parameter in module.parameters()) / 1e6, 2)


@pytest.mark.parametrize(
    ("domain", "observations", "actions", "actor", "critic"),
    [("walker", 24, 6, 1.08, 2.14), ("quadruped", 78, 12, 1.14, 2.20), ("jaco", 55, 9, 1.12, 2.17)],
)
def test_parameter_counts_of_the_published_sizes(
    domain: str, observations: int, actions: int, actor: float, critic: float
) -> None:
    spec = registry.load_agent("ddpg")
    agent = spec.build(AgentContext("states", (observations,), actions, 1, seed=0), spec.config())
    assert isinstance(agent, DDPGLearner)
    assert abs(million(agent.backbone.actor) - actor) <= 0.01
    assert abs(million(agent.backbone.critic) - critic) <= 0.01


def test_images_of_the_published_size_have_39200_features() -> None:
    encoder = ImageEncoder((9, 84, 84))
    assert encoder.features == 39_200
    assert encoder(torch.zeros(2, 9, 84, 84)).shape == (2, 39_200)
    assert registry.load_agent("ddpg").image.model_dump() == {"size": 84, "frame_stack": 3}


@pytest.mark.parametrize(("kind", "repeat", "batch", "every"), [("states", 1, 1024, 2), ("pixels", 2, 256, 4)])
def test_the_published_schedule(kind: Any, repeat: int, batch: int, every: int) -> None:
    agent = factory.build("icm")
    assert isinstance(agent, Pretraining)
    lives = factory.context(kind, repeat=repeat)
    config = PretrainedConfig(hidden=8, pixel_trunk=4, conv_channels=2)
    schedule = Finetuning(lives, config).schedule
    assert schedule.batch_size == batch
    assert schedule.update_every_frames == every  # two steps
    assert schedule.seed_frames == 4000
    assert schedule.random_action_phases == ("pretrain", "finetune")
    assert schedule.batch_length == 4
    assert schedule.replay_capacity_steps == 1_000_000


def test_the_noise_is_linear_between_its_points() -> None:
    points = ((0, 1.0), (100, 0.5), (300, 0.1))
    assert [noise_std(points, step) for step in (0, 50, 100, 200, 300, 10_000)] == pytest.approx(
        [1.0, 0.75, 0.5, 0.3, 0.1, 0.1]
    )
    with pytest.raises(UserError, match="must ascend"):
        resolve_config(registry.load_agent("ddpg"), "paper", {"exploration_std": [[5, 0.1], [5, 0.2]]})


def test_the_training_actor_tells_how_far_it_is() -> None:
    agent = pretraining("icm", exploration_std=((0, 1.0), (10, 0.0)))
    training, evaluation = (agent.actor(evaluation=flag, seed=0) for flag in (False, True))
    for actor, step in ((training, 5), (evaluation, 9)):
        actor.begin_episode()
        actor.before_step(step)
    assert agent.noise_std == 0.5
    restored = pretraining("icm", exploration_std=((0, 1.0), (10, 0.0)))
    restored.load_state_dict(stored(agent.state_dict()))
    assert restored.noise_std == 0.5


# --- Samples ----------------------------------------------------------------------------------------


def test_n_step_returns_by_hand() -> None:
    numbers = torch.arange(4.0)
    batch = {
        "observation": numbers.reshape(1, 4, 1),
        "action": 10 * numbers.reshape(1, 4, 1),
        "reward": torch.tensor([[100.0, 1.0, 2.0, 4.0]]),
        "discount": torch.tensor([[0.0, 1.0, 0.5, 1.0]]),
        "skill": 20 * numbers.reshape(1, 4, 1),
    }
    result = n_step_transitions(batch, 0.5)
    assert result.obs.item() == 0
    assert result.action.item() == 10
    assert result.next_obs.item() == 3
    assert result.reward.item() == 1 + 0.5 * 2 + 0.5 * 0.25 * 4
    assert result.discount.item() == 0.5 * 0.25 * 0.5
    assert result.skill is not None
    assert result.skill.item() == 0
    acting = n_step_transitions(batch, 0.5, "acting").skill
    assert acting is not None
    assert acting.item() == 20


def test_shifts_by_hand() -> None:
    image = torch.arange(9).reshape(1, 1, 3, 3)
    shifted = random_shift(image, torch.tensor([[2, 0]]), pad=1)  # looks one column further right, one row further up
    assert shifted[0, 0].tolist() == [[1, 2, 2], [1, 2, 2], [4, 5, 5]]
    assert torch.equal(random_shift(image, torch.tensor([[1, 1]]), pad=1), image)


def test_shifts_are_drawn_from_all_there_are() -> None:
    drawn = Draws(0).shift(3000, 9)
    assert drawn.unique().tolist() == list(range(9))
    assert (drawn[:, 0] != drawn[:, 1]).any()


# --- Parts ------------------------------------------------------------------------------------------


def test_running_moments_are_those_of_all_numbers() -> None:
    moments, numbers = RunningMoments(), torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 3 + 2
    for batch in numbers:
        moments.update(batch)
    assert moments.mean.item() == pytest.approx(numbers.mean().item(), rel=1e-4)
    assert moments.var.item() == pytest.approx(numbers.var().item(), rel=0.05)
    assert moments.count.item() == pytest.approx(150, rel=1e-4)


def test_neighbours_by_hand() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    plain = KnnReward(2, clip=0.25, divide_by="one")(x)
    # Each row itself at distance 0, and the nearest other at 1, 1 and 2, less the clip.
    torch.testing.assert_close(plain, torch.log1p(torch.tensor([0.75, 0.75, 1.75]) / 2))
    scaled = {how: KnnReward(2, clip=0.0, divide_by=how) for how in ("mean", "std", "variance")}  # type: ignore[arg-type]
    distances = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 2.0])
    for how, scale in (("mean", distances.mean()), ("std", distances.std()), ("variance", distances.var())):
        expected = torch.log1p(torch.tensor([1.0, 1.0, 2.0]) / 2 / scale)
        torch.testing.assert_close(scaled[how](x), expected, rtol=1e-3, atol=0)


def test_rows_that_are_all_alike_have_no_entropy() -> None:
    assert KnnReward(2, clip=0.0, divide_by="mean")(torch.ones(4, 3)).tolist() == [0.0] * 4


def test_balanced_assignments_use_all_prototypes() -> None:
    scores = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([5.0, 0.0, 0.0, 0.0])
    assigned = sinkhorn(scores, 100)
    torch.testing.assert_close(assigned.sum(1), torch.ones(40))
    torch.testing.assert_close(assigned.sum(0), torch.full((4,), 10.0))
    assert scores.softmax(-1).sum(0)[0] > 30


def test_skills_come_from_their_distributions() -> None:
    draws = Draws(0)
    onehots, directions, points = (
        torch.stack([skills.draw(draws) for _ in range(2000)])
        for skills in (
            Skills(SkillSpace(dim, draw, None))
            for dim, draw in ((4, draw_onehot), (3, draw_direction), (2, draw_point))
        )
    )
    assert (onehots.sum(-1) == 1).all()
    torch.testing.assert_close(onehots.mean(0), torch.full((4,), 0.25), atol=0.05, rtol=0)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2000))
    torch.testing.assert_close(directions.mean(0), torch.zeros(3), atol=0.05, rtol=0)
    torch.testing.assert_close(points.mean(0), torch.full((2,), 0.5), atol=0.05, rtol=0)
    assert points.min() < 0.01
    assert 0.99 < points.max() < 1


# --- Fine-tuning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRETRAINED)
@pytest.mark.parametrize("changes", [{}, {"transfer_q_heads": True, "target_start": "critic"}])
def test_what_finetuning_takes_over(name: str, changes: dict[str, Any]) -> None:
    agent = pretraining(name, **changes)
    for seed in range(2):
        agent.update(batch_for(agent, seed=seed))
    tuned = agent.for_finetuning(factory.context())
    old, new = agent.backbone.state_dict(), tuned.backbone.state_dict()
    fresh = pretraining(name, **changes).backbone.state_dict()  # the same start of the same seed
    whole_critic = bool(changes) or name == "proto"
    for key, value in new.items():
        taken = key.startswith(("encoder", "actor", "critic.trunk")) or (key.startswith("critic") and whole_critic)
        copied = old[key.replace("target", "critic")] if key.startswith("target") and changes else None
        assert torch.equal(value, old[key] if taken else fresh[key] if copied is None else copied), key
    assert not torch.equal(old["critic.trunk.linear.weight"], fresh["critic.trunk.linear.weight"])
    assert not any(part["state"] for key, part in tuned.state_dict().items() if key.endswith("optimiser"))
    with pytest.raises(TypeError, match="fine-tuned already"):
        tuned.for_finetuning(factory.context())


def test_ddpg_starts_from_nothing_and_sees_rewards() -> None:
    spec = registry.load_agent("ddpg")
    assert not spec.pretrains
    trained = factory.build("ddpg")
    trained.update(batch_for(trained))
    tuned = trained.for_finetuning(factory.context())
    assert same(tuned.state_dict(), factory.build("ddpg").state_dict())
    assert type(tuned) is Finetuning
    metrics = []
    for rewards in (0.0, 1.0):
        agent, batch = factory.build("ddpg"), batch_for(tuned)
        batch["reward"][:] = rewards
        metrics.append(float(agent.update(batch)["target_value"]))
    assert metrics[1] > metrics[0] + 1


@pytest.mark.parametrize("name", SKILLED)
def test_skills_need_their_own_data(name: str) -> None:
    spec = registry.load_agent(name)
    with pytest.raises(UserError, match="data set"):
        spec.build(factory.context(collects=False), factory.smoke_config(name))
    agent = factory.build("icm", collects=False)
    assert agent.update(batch_for(agent))


# --- Actors and skills ------------------------------------------------------------------------------


def skills_of(actor: Any, *, episodes: int, steps: int) -> list[list[Any]]:
    """The skill of every step, an episode a row."""
    seen, step = [], 0
    for _ in range(episodes):
        actor.begin_episode()
        row = []
        for _ in range(steps):
            actor.before_step(step)
            row.append(actor.recorded()["skill"].tolist())
            step += 1
        seen.append(row)
    return seen


def test_training_changes_skills_and_an_evaluation_keeps_one() -> None:
    agent = pretraining("cic", skill_steps=4)
    rows = skills_of(agent.actor(evaluation=False, seed=0), episodes=3, steps=6)
    changes = [a != b for a, b in itertools.pairwise(itertools.chain(*rows))]
    # At steps 4, 8, 12 and 16, and at the episode starts 6 and 12.
    assert [step for step, changed in enumerate(changes, start=1) if changed] == [4, 6, 8, 12, 16]
    evaluated = skills_of(agent.actor(evaluation=True, seed=0), episodes=3, steps=6)
    assert len({tuple(skill) for row in evaluated for skill in row}) == 1
    # Each episode has an actor of its own; all of one evaluation are told the same number.
    shared = [agent.actor(evaluation=True, seed=seed) for seed in range(3)]
    for actor, seed in zip(shared, (7, 7, 8), strict=True):
        actor.begin_evaluation(seed)
    first, same_evaluation, other = (skills_of(actor, episodes=1, steps=1) for actor in shared)
    assert first == same_evaluation != other
    searching = skills_of(agent.search_actor(seed=0, skill_steps=5, sample=False), episodes=2, steps=6)
    assert len({tuple(skill) for row in searching for skill in row}) == 4


def test_cic_is_finetuned_with_a_constant_skill() -> None:
    tuned = pretraining("cic").for_finetuning(factory.context())
    rows = skills_of(tuned.actor(evaluation=False, seed=0), episodes=2, steps=100)
    assert {number for row in rows for skill in row for number in skill} == {0.5}


def test_search_actions_are_means_or_samples() -> None:
    agent = pretraining("icm")
    means, again = (agent.search_actor(seed=seed, skill_steps=5, sample=False) for seed in (0, 1))
    assert play(means, "states", first=0, steps=3) == play(again, "states", first=0, steps=3)
    samples, others = (agent.search_actor(seed=seed, skill_steps=5, sample=True) for seed in (0, 1))
    assert play(samples, "states", first=0, steps=3) != play(others, "states", first=0, steps=3)


@pytest.mark.usefixtures("acting_by_modules")
def test_the_policy_sees_the_skill_that_is_recorded() -> None:
    agent = pretraining("diayn", skill_steps=1)
    actor = agent.actor(evaluation=True, seed=0)
    seen: list[torch.Tensor] = []
    agent.backbone.actor.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    actor.begin_episode()
    actor.act(OBSERVATION, 0)
    assert seen[0][0, 5:].tolist() == actor.recorded()["skill"].tolist()


def test_a_restored_actor_follows_the_same_skill() -> None:
    agent = pretraining("aps")
    actor, other = agent.actor(evaluation=False, seed=0), agent.actor(evaluation=False, seed=1)
    actor.begin_episode()
    other.load_state_dict(stored(actor.state_dict()))
    assert isinstance(other, DDPGActor)
    assert np.array_equal(actor.recorded()["skill"], other.recorded()["skill"])


def test_agents_without_skills_record_nothing() -> None:
    agent = factory.build("icm")
    actor = agent.actor(evaluation=False, seed=0)
    actor.begin_episode()
    assert not agent.recorded
    assert not actor.recorded()


# --- APS: the task ----------------------------------------------------------------------------------


def test_least_squares_finds_the_task_and_the_released_solver_does_not() -> None:
    numbers = torch.Generator().manual_seed(0)
    phi = torch.randn(500, 3, generator=numbers) @ torch.tensor([[3.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.2]])
    task = torch.tensor([0.0, 0.6, 0.8])
    assert solve_task(phi, phi @ task, "least_squares") @ task > 0.999
    assert solve_task(phi, phi @ task, "swapped") @ task < 0.9


def observed(config: APSConfig, rewards: list[float], frame: int) -> tuple[SolvedTask, torch.Tensor]:
    """A task solver after one batch, and the random task that it would draw."""
    torch.manual_seed(0)
    solved = SolvedTask(config, feature_network(2, config))
    obs = torch.randn(len(rewards), 2)
    nothing = torch.zeros(len(rewards))
    solved.observe(Transitions(obs, obs, torch.tensor(rewards), nothing, obs), frame)
    return solved, draw_direction(Draws(0), torch.zeros(config.skill_dim))


def test_the_task_is_random_until_there_is_enough_to_solve_it() -> None:
    config = APSConfig(hidden=4, skill_dim=3, task_frames=100, task_samples=4)
    for rewards, frame, known in (
        ([1.0, 2.0, 3.0, 4.0], 101, True),
        ([1.0, 2.0, 3.0, 4.0], 100, False),
        ([1.0, 2.0, 3.0], 101, False),
        ([0.0, 0.0, 0.0, 0.0], 101, False),  # nothing to learn from
    ):
        solved, random = observed(config, rewards, frame)
        task = solved.draw(Draws(0))
        assert torch.equal(task, random) != known
        assert task.norm().item() == pytest.approx(1)


def test_features_of_the_task_are_those_of_the_configuration() -> None:
    for choice in ("random", "pretrained"):
        agent = pretraining("aps", task_features=choice)
        agent.update(batch_for(agent))
        tuned = agent.for_finetuning(factory.context())
        assert isinstance(tuned.skills, SolvedTask)
        assert same(tuned.skills.phi.state_dict(), agent.intrinsic.phi.state_dict()) == (choice == "pretrained")


def test_proto_needs_a_queue_of_whole_rounds() -> None:
    with pytest.raises(UserError, match="multiple of prototypes"):
        resolve_config(registry.load_agent("proto"), "paper", {"queue": 1000})


def test_an_evaluation_of_a_solved_task_follows_it() -> None:
    agent = pretraining("aps", task_frames=0, task_samples=3)
    tuned = agent.for_finetuning(replace(factory.context(), seed=1))
    training = tuned.actor(evaluation=False, seed=0)
    training.begin_episode()
    training.before_step(1)
    tuned.update(batch_for(tuned))
    drawn = [skills_of(tuned.actor(evaluation=True, seed=seed), episodes=1, steps=1) for seed in (0, 1)]
    assert drawn[0] == drawn[1]
