"""Agents' parts learn: seconds on one core, fixed seeds, stated margins."""

import numpy as np
import pytest
import torch
from agent_factory import dynamics_alone
from torch import Tensor

from urlbench.agents.choreographer.meta_controller import MetaController
from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder, SkillConfig
from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.optimiser import Optimiser, OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig
from urlbench.core.interfaces import AgentContext

# Seconds each, and many.
pytestmark = pytest.mark.slow

CONFIG = ActorCriticConfig(units=(32, 32), horizon=8, actor_lr=3e-3, critic_lr=3e-3, slow_every=10)


class Plane:
    """A point on a plane that moves by its action; a stand-in for learned dynamics."""

    def start(self, seed: int, points: int = 64) -> LatentState:
        numbers = torch.Generator().manual_seed(seed)
        stoch = torch.zeros(points, 1, 1)
        return LatentState(stoch, 4 * torch.rand(points, 2, generator=numbers) - 2, stoch)

    def imagine_step(self, state: LatentState, action: Tensor, draws: Draws) -> LatentState:
        return state._replace(deter=state.deter + 0.4 * action)


def closeness(feat: Tensor) -> Tensor:
    """1 at the origin, 0 at distance 1 and less beyond it; `feat` is [..., 3] with the point in its last two."""
    return 1 - feat[..., 1:].norm(dim=-1)


def test_an_actor_critic_learns_to_reach_the_origin() -> None:
    plane, draws, rewards = Plane(), Draws(0), list[float]()
    agent = initialised(lambda: ActorCritic(3, 2, CONFIG), 0)
    optimisers = agent.make_optimisers(OptimiserConfig())
    for i in range(150):
        imagined = agent.imagine(dynamics_alone(plane), plane.start(i), draws)
        rewards.append(float(agent.learn(imagined, closeness(imagined.trajectory.feat), optimisers)["reward"]))
    # Untrained policies get -0.7 to -0.4; the best one reaches the origin after 4 of 8 steps.
    assert rewards[0] < -0.4
    assert np.mean(rewards[-10:]) > 0.3


def test_a_skill_conditioned_actor_learns_one_behaviour_a_skill() -> None:
    plane, draws = Plane(), Draws(0)
    agent = initialised(lambda: ActorCritic(5, 2, CONFIG), 0)
    optimisers = agent.make_optimisers(OptimiserConfig())
    goals = torch.tensor([[1.5, 0.0], [-1.5, 0.0]])
    rewards = []
    for i in range(300):
        start = plane.start(i)
        skill = torch.arange(len(start.deter)) % 2
        onehot = torch.nn.functional.one_hot(skill, 2).float()
        imagined = agent.imagine(dynamics_alone(plane), start, draws, onehot)
        reward = -(imagined.trajectory.deter - goals[skill]).norm(dim=-1)
        rewards.append(float(agent.learn(imagined, reward, optimisers)["reward"]))
    # One behaviour for both skills cannot do better than stay between the goals, 1.5 from each.
    assert np.mean(rewards[:10]) < -1.8
    assert np.mean(rewards[-10:]) > -1.2


class PlaneModel:
    """What a meta-controller asks of a world model."""

    rssm = Plane()

    def continues(self, feat: Tensor) -> None:
        """Episodes never end early."""

    def reward(self, feat: Tensor) -> Tensor:
        return closeness(feat)


def test_a_meta_controller_learns_which_skill_to_follow() -> None:
    skills, draws = 4, Draws(0)
    controller = initialised(lambda: MetaController(3, skills, 2, CONFIG, entropy_scale=1e-3), 0)
    # The skills move left, right, down and up, wherever they are, and are not trained.
    executor = controller.executor
    with torch.no_grad():
        for linear in (*executor.trunk.linears, executor.mean, executor.std):
            linear.weight.zero_()
            linear.bias.zero_()
        executor.trunk.linears[0].weight[:skills, 3:] = torch.eye(skills)
        executor.trunk.linears[1].weight[:skills, :skills] = torch.eye(skills)
        executor.mean.weight[:, :skills] = 2 * torch.tensor([[-1.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 1.0]])
        executor.std.bias.fill_(-8.0)
    optimisers = controller.make_optimisers(OptimiserConfig(weight_decay=0.0))
    optimisers["executor"] = Optimiser(executor.parameters(), 0.0, OptimiserConfig(weight_decay=0.0))
    model, learned = PlaneModel(), []
    for i in range(250):
        learned.append(controller.learn(model, model.rssm.start(i), draws, optimisers))  # type: ignore[arg-type]
    rewards = [float(metrics["imagined_reward"]) for metrics in learned]
    assert rewards[0] < -0.4
    assert np.mean(rewards[-10:]) > 0.1
    assert learned[-1]["meta_entropy"] < 0.6 * learned[0]["meta_entropy"]


def pendulum(seed: int, *, size: int = 8, length: int = 12) -> dict[str, Tensor]:
    """Observations that turn by a fixed angle a step, and reward 1 on one side."""
    phase = 2 * torch.pi * torch.rand(size, 1, generator=torch.Generator().manual_seed(seed))
    angle = phase + 0.5 * torch.arange(length)
    return {
        "observation": torch.stack([angle.cos(), angle.sin(), (2 * angle).cos(), (2 * angle).sin()], -1),
        "action": torch.zeros(size, length, 1),
        "reward": (angle.cos() > 0).float(),
        "is_first": torch.arange(length).expand(size, -1) == 0,
    }


def test_a_world_model_learns_a_deterministic_sequence_and_surprise_knows_it() -> None:
    config = WorldModelConfig(deter=32, hidden=32, variables=4, classes=4, mlp_units=(32, 32), lr=3e-3)
    context = AgentContext("states", (4,), action_dim=1, action_repeat=1, seed=0)
    model = initialised(lambda: WorldModel(context, config), 0)
    lbs = initialised(lambda: LatentBayesianSurprise(model.rssm.feat_dim, (32, 32)), 0)
    draws, history = Draws(0), []
    optimisers = [Optimiser(part.parameters(), config.lr, OptimiserConfig()) for part in (model, lbs)]
    for i in range(250):
        result = model.loss(pendulum(i), draws)
        optimisers[0].step(result.loss)
        optimisers[1].step(lbs.loss(result.post.feat, result.kl))
        history.append(result.metrics)
    constant = 0.5 * np.log(2 * np.pi)  # what a perfect prediction costs a dimension
    observed = [float(metrics["observation_loss"]) - 4 * constant for metrics in history]
    rewarded = [float(metrics["reward_loss"]) - constant for metrics in history]
    # Knowing only the mean of the observations (0) and of the rewards (1/2) costs 1 and 1/8.
    assert np.mean(observed[-20:]) < 0.3
    assert np.mean(rewarded[-20:]) < 0.09
    test = model.loss(pendulum(1000), draws)
    surprise = lbs.reward(test.post.feat)
    assert torch.corrcoef(torch.stack([surprise.flatten(), test.kl.flatten()]))[0, 1] > 0.5


def _skills_of_clusters(*, resampling: bool) -> tuple[int, float]:
    """Codes in use and the reconstruction error, after learning from 16 clusters with 16 codes."""
    centres = 3 * torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    config = SkillConfig(codes=16, code_dim=4, units=(32, 32), lr=3e-3, resampling=resampling, resample_every=10)
    skills = initialised(lambda: SkillAutoEncoder(8, config), 0)
    optimiser, draws = Optimiser(skills.networks(), config.lr, OptimiserConfig()), Draws(0)
    for i in range(500):
        noise = torch.randn(256, 8, generator=torch.Generator().manual_seed(i))
        metrics = skills.learn(centres[torch.arange(256) % 16] + 0.1 * noise, optimiser, draws)
    return int(metrics["codes_in_batch"]), float(metrics["skill_reconstruction_loss"])


def test_resampling_brings_the_codes_into_use() -> None:
    used, error = _skills_of_clusters(resampling=True)
    used_without, error_without = _skills_of_clusters(resampling=False)
    assert used >= 13
    assert used_without <= 10
    assert error < 0.5 * error_without
