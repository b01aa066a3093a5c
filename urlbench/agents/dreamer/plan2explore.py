"""Plan2Explore: Dreamer pretrained by the disagreement of an ensemble.

Source: Sekar et al. 2020, "Planning to Explore via Self-Supervised World Models", in the form released with Rajeswar et
al. 2023: the models predict embeddings of the next observation.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.world_model import WorldModel, WorldModelLoss
from urlbench.agents.dreamer.pretraining import IntrinsicReward, Method, PretrainedConfig
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class P2EConfig(PretrainedConfig):
    """Defaults: the released code.

    Attributes:
        models: in the ensemble.
        hidden: width of their one hidden layer; None for that of the embedding, 1536 from pixels as published.
        p2e_lr: of the ensemble.
    """

    models: int = Field(default=5, gt=1)
    hidden: int | None = None
    p2e_lr: float = 3e-4


class Disagreement(IntrinsicReward):
    """The variance of the ensemble's predictions of the next embedding."""

    def __init__(self, context: AgentContext, config: P2EConfig, world_model: WorldModel) -> None:
        super().__init__()
        embed, hidden = world_model.embed_dim, config.hidden or world_model.embed_dim
        inputs = world_model.rssm.feat_dim + context.action_dim
        self.models = nn.ModuleList(MLP(inputs, (hidden,), embed, activation=F.relu_) for _ in range(config.models))
        self.optimisers = {"models": Optimiser(self.models.parameters(), config.p2e_lr, config.optimiser)}

    def predictions(self, feat: Tensor, action: Tensor) -> Tensor:
        """Of each model [M, ..., E], in model states [..., F] after actions [..., A]."""
        x = torch.cat([feat, action], -1)
        return torch.stack([model(x) for model in self.models])

    def learn(self, batch: Mapping[str, Tensor], model: WorldModelLoss) -> dict[str, Tensor]:
        """Norm of the error (not squared), mean over models; the action of an entry led to it."""
        predicted = self.predictions(model.post.feat[:, :-1], batch["action"][:, 1:])
        error = (model.embed[:, 1:] - predicted).norm(dim=-1)  # [M, B, T - 1]
        loss = error.mean() if "mask" not in batch else error[:, batch["mask"][:, 1:]].mean()
        self.optimisers["models"].step(loss)
        return {"p2e_loss": loss.detach()}

    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """0 at the start state, and in the others the disagreement about what would be seen there.

        Differentiable in the state before, not in the action taken there.
        """
        predicted = self.predictions(trajectory.feat[:-1], trajectory.action.detach())
        reward = predicted.var(0).mean(-1)
        return torch.cat([torch.zeros_like(reward[:1]), reward])


SPEC = pretrained_spec(
    name="dreamer-p2e",
    description="Plan2Explore: Dreamer pretrained by the disagreement of an ensemble",
    paper="Sekar et al. 2020, Planning to Explore via Self-Supervised World Models (ICML)",
    config=P2EConfig,
    method=Method(reward=Disagreement),
    small={"p2e_lr": 1e-3},
)
