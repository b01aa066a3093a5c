"""Dreamer pretrained with successor features: APS.

Source: Liu & Abbeel 2021, "APS: Active Pretraining with Successor Features", in the form released with Rajeswar et al.
2023: features and tasks of model states, learned in imagination; in fine-tuning the task is solved for once.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Critic, Trajectory
from urlbench.agents.common.finetuning import SkillChoice
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.networks import MLP, initialised, relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import SkillSpace, draw_direction
from urlbench.agents.common.successor_features import solve_task, task_reward
from urlbench.agents.common.world_model import WorldModel, WorldModelLoss
from urlbench.agents.dreamer.pretraining import IntrinsicReward, Method, SkilledConfig, choice_step
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext
from urlbench.core.seeding import derive_seed


class APSConfig(SkilledConfig):
    """Defaults: the released code, but for `task_solver`.

    Attributes:
        reward_momentum: off, or successor features would change their meaning.
        finetune_entropy: as released; a misspelt key keeps the 1e-4 of the other agents from it.
        skill_dim: size of a task vector and of the features (K).
        hidden: width of the features' two layers; None for the size of the model state, as published.
        features_lr: their learning rate.
        neighbours: counted among all imagined states, the state itself included (k).
        clip: subtracted from each scaled distance.
        task_states: latest sampled model states that the task is solved from; the released code draws batches of one
            moment for it, here they are those of successive updates.
        task_solver: as for APS on DDPG, and for the same reason.
        task_features: as released those of a network with random weights, since the learned ones are not carried over;
            `pretrained` carries them over.
    """

    reward_momentum: float = 1.0
    finetune_entropy: float = 0.0
    skill_dim: int = 5
    hidden: int | None = None
    features_lr: float = 3e-4
    neighbours: int = Field(default=12, gt=0)
    clip: float = 1e-4
    task_states: int = Field(default=4096, gt=0)
    task_solver: Literal["least_squares", "swapped"] = "least_squares"
    task_features: Literal["random", "pretrained"] = "random"


def feature_network(feat_dim: int, config: APSConfig) -> MLP:
    """phi: model states [..., F] to features [..., K]."""
    hidden = config.hidden or feat_dim
    return relu_mlp(feat_dim, (hidden, hidden), config.skill_dim)


class SuccessorReward(IntrinsicReward):
    """Entropy of the features of imagined states, and how far they point along the task; without gradient."""

    def __init__(self, context: AgentContext, config: APSConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.feat_dim = world_model.rssm.feat_dim
        self.phi = feature_network(self.feat_dim, config)
        self.knn = KnnReward(config.neighbours, clip=config.clip, divide_by="mean")
        self.optimisers = {"phi": Optimiser(self.phi.parameters(), config.features_lr, config.optimiser)}

    def learn(self, batch: Mapping[str, Tensor], model: WorldModelLoss) -> dict[str, Tensor]:
        """A step that turns the features towards the task that was followed."""
        mask = batch.get("mask")
        phi, task = self.phi(unmasked(model.post.feat, mask)), unmasked(batch["skill"], mask)
        loss = -task_reward(phi, task).mean()
        self.optimisers["phi"].step(loss)
        return {"task_loss": loss.detach()}

    @torch.no_grad()
    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """Both parts."""
        assert skill is not None, "an algorithm with skills"
        phi = self.phi(trajectory.feat)
        entropy = self.knn(phi.flatten(0, 1)).unflatten(0, phi.shape[:2])
        return entropy + task_reward(phi, skill)


class SuccessorCritic(Critic):
    """Gives successor features, which the task that ends its input turns into values.

    Args:
        inputs: size of the model state and the task.
        config: sizes and settings.
        task_dim: K.
    """

    def __init__(self, inputs: int, config: ActorCriticConfig, task_dim: int) -> None:
        super().__init__(inputs, config, outputs=task_dim)
        self.task_dim = task_dim

    def value(self, net: nn.Module, x: Tensor) -> Tensor:
        """Inner product [...] of the features that `net` gives [..., inputs], and the task."""
        value: Tensor = (net(x) * x[..., -self.task_dim :]).sum(-1)
        return value

    def regression(self, value: Tensor, target: Tensor) -> Tensor:
        """The squared error, as released."""
        return (value - target) ** 2


class SolvedTask(SkillChoice):
    """The task whose direction the rewards of the latest states point in.

    Args:
        context: where the agent lives.
        config: settings.
        pretrained: the pretrained intrinsic reward.

    Attributes:
        features: unit features of these states, [N, K].
        rewards: [N].
        seen: states so far.
    """

    features: Tensor
    rewards: Tensor
    seen: Tensor

    def __init__(self, context: AgentContext, config: APSConfig, pretrained: SuccessorReward) -> None:
        super().__init__(choice_step(config, context))
        self._solver = config.task_solver
        phi = initialised(
            lambda: feature_network(pretrained.feat_dim, config), derive_seed(context.seed, "init", "task_features")
        )
        if config.task_features == "pretrained":
            phi.load_state_dict(pretrained.phi.state_dict())
        self.phi = phi.requires_grad_(False)
        self.register_buffer("features", torch.zeros(config.task_states, config.skill_dim))
        self.register_buffer("rewards", torch.zeros(config.task_states))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, batch: Mapping[str, Tensor], post: LatentState, behaviour: ActorCritic) -> Tensor | None:
        """Rewards that are all zero point nowhere; the released code goes on with a task that is not a number."""
        count, mask = len(self.rewards), batch.get("mask")
        reward, feat = unmasked(batch["reward"], mask), unmasked(post.feat, mask)
        phi = F.normalize(self.phi(feat), dim=-1)
        self.features.copy_(torch.cat([self.features, phi])[-count:])
        self.rewards.copy_(torch.cat([self.rewards, reward])[-count:])
        self.seen += len(reward)
        if int(self.seen) < count or not bool(self.rewards.any()):
            return None
        return solve_task(self.features, self.rewards, self._solver)


SPEC = pretrained_spec(
    name="dreamer-aps",
    description="Dreamer pretrained with successor features of an entropy reward",
    paper="Liu & Abbeel 2021, APS: Active Pretraining with Successor Features (ICML)",
    config=APSConfig,
    method=Method(
        reward=SuccessorReward,
        skills=lambda config: SkillSpace(config.skill_dim, draw_direction, config.skill_steps),
        choice=SolvedTask,
        critic=lambda inputs, config: SuccessorCritic(inputs, config.actor_critic, config.skill_dim),
    ),
    smoke={"hidden": 32, "task_states": 256},
    small={"hidden": 128, "features_lr": 1e-3, "task_states": 1024},
    finetuning_settings=("task_states", "task_solver", "task_features"),
)
