"""APS: active pretraining with successor features.

Source: Liu & Abbeel 2021, "APS: Active Pretraining with Successor Features", in the form released with Laskin et al.
2021 (URLB). The successor features are trained on the whole reward, not on the features.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.networks import MLP, initialised, relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skills import SkillSpace, draw_direction
from urlbench.agents.common.successor_features import solve_task, task_reward
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, SkilledConfig
from urlbench.agents.ddpg.skills import Skills
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext
from urlbench.core.seeding import derive_seed


class APSConfig(SkilledConfig):
    """Defaults: the released URLB code, but for `task_solver`.

    Attributes:
        skill_dim: size of a task vector and of the features (K).
        skill_steps: agent steps that a task is followed for.
        neighbours: counted in the batch, the observation itself included (k).
        clip: subtracted from each scaled distance.
        task_frames: fine-tuning frames after which the task is solved for, from then on every `skill_steps`.
        task_samples: latest sampled transitions that it is solved from.
        task_solver: the paper's `least_squares`; or `swapped`, see `solve_task`. Code was released with the latter,
            but for a solver whose order of arguments had changed, so it is not known which made the published numbers.
        task_features: the released code does not carry the features over, so the task is solved for in those of a
            network with random weights; `pretrained` carries them over.
    """

    skill_dim: int = 10
    skill_steps: int = 5
    neighbours: int = Field(default=12, gt=0)
    clip: float = 1e-4
    task_frames: int = 4096
    task_samples: int = Field(default=4096, gt=0)
    task_solver: Literal["least_squares", "swapped"] = "least_squares"
    task_features: Literal["random", "pretrained"] = "random"


def _tasks(config: APSConfig) -> SkillSpace:
    return SkillSpace(config.skill_dim, draw_direction, config.skill_steps)


def feature_network(backbone_features: int, config: APSConfig) -> MLP:
    """phi: encoded observations [N, F] to features [N, K]."""
    return relu_mlp(backbone_features, (config.hidden, config.hidden), config.skill_dim)


class SuccessorReward(IntrinsicReward):
    """Entropy of the features, and how far they point along the task."""

    def __init__(self, context: AgentContext, config: APSConfig, backbone: Backbone) -> None:
        super().__init__()
        self.features = backbone.features
        self.phi = feature_network(self.features, config)
        self.knn = KnnReward(config.neighbours, clip=config.clip, divide_by="mean")
        parameters = [*self.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {"phi": Optimiser(parameters, config.lr, ADAM)}

    def reward_parts(self, next_obs: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy of the raw features and inner product of the unit ones with the task, both [N]."""
        phi = self.phi(next_obs)
        return self.knn(phi), task_reward(phi, task)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step that turns the features towards the task; then both rewards."""
        assert batch.skill is not None, "the samples of an agent with skills hold them"
        loss = -task_reward(self.phi(batch.next_obs), batch.skill).mean()
        self.optimisers["phi"].step(loss)
        with torch.no_grad():
            entropy, along = self.reward_parts(batch.next_obs, batch.skill)
        metrics = {"task_loss": loss.detach(), "entropy_reward": entropy.mean(), "task_reward": along.mean()}
        return Learned(entropy + along, metrics)


class SolvedTask(Skills):
    """Random tasks at first; then the one that the sampled rewards ask for.

    Args:
        config: settings.
        phi: the features.
    """

    features: Tensor
    rewards: Tensor
    seen: Tensor
    task: Tensor
    ready: Tensor

    def __init__(self, config: APSConfig, phi: MLP) -> None:
        super().__init__(_tasks(config))
        self.config, self.phi = config, phi.requires_grad_(False)
        self.register_buffer("features", torch.zeros(config.task_samples, config.skill_dim))
        self.register_buffer("rewards", torch.zeros(config.task_samples))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("ready", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, batch: Transitions, frame: int) -> None:
        """Keep the batch's unit features, whose network never changes, and rewards; the oldest first."""
        count = len(self.rewards)
        phi = F.normalize(self.phi(batch.obs), dim=-1)
        self.features.copy_(torch.cat([self.features, phi])[-count:])
        self.rewards.copy_(torch.cat([self.rewards, batch.reward])[-count:])
        self.seen += len(batch.reward)
        self.ready.copy_(self.seen.new_tensor(frame > self.config.task_frames))

    def draw(self, draws: Draws) -> Tensor:
        """The solved task [K]; a random one until there is enough to solve it from."""
        random = super().draw(draws)
        known = min(int(self.seen), len(self.rewards))
        if not bool(self.ready) or known < len(self.rewards):
            return random
        task = solve_task(self.features, self.rewards, self.config.task_solver)
        # Rewards that are all zero point nowhere; the released code goes on with a task that is not a number.
        return task if bool(task.isfinite().all()) else random


def _finetuning_skills(config: APSConfig, context: AgentContext, reward: SuccessorReward) -> SolvedTask:
    phi = initialised(
        lambda: feature_network(reward.features, config), derive_seed(context.seed, "init", "task_features")
    )
    if config.task_features == "pretrained":
        phi.load_state_dict(reward.phi.state_dict())
    return SolvedTask(config, phi)


SPEC = pretrained_spec(
    name="aps",
    description="DDPG with successor features of an entropy reward, solved for a task's direction",
    paper="Liu & Abbeel 2021, APS: Active Pretraining with Successor Features (ICML)",
    config=APSConfig,
    method=Method(
        reward=SuccessorReward,
        skills=lambda config: Skills(_tasks(config)),
        finetuning_skills=_finetuning_skills,
        successor=True,
    ),
    smoke={"skill_dim": 4, "neighbours": 3, "task_frames": 1000, "task_samples": 64},
    small={"skill_dim": 5, "task_frames": 2048, "task_samples": 1024},
    finetuning_settings=("task_frames", "task_samples", "task_solver", "task_features"),
)
