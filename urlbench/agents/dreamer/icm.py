"""Dreamer pretrained by curiosity, the error of a dynamics model.

Source: Pathak et al. 2017, "Curiosity-driven Exploration by Self-supervised Prediction" (ICM), in the form released
with Rajeswar et al. 2023: the features are the world model's embeddings, which curiosity does not shape, so there is no
inverse model to shape them (the released code has one and never trains it).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from urlbench.agents.common.masks import unmasked_mean
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.world_model import WorldModel
from urlbench.agents.dreamer.pretraining import Method, PretrainedConfig
from urlbench.agents.dreamer.replay_reward import ReplayReward
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class ICMConfig(PretrainedConfig):
    """Defaults: the released code.

    Attributes:
        hidden: width of the model's one hidden layer; None for that of the embedding, 1536 from pixels as published.
        icm_lr: of the model.
        reward_scale: of the error inside the reward's logarithm.
    """

    hidden: int | None = None
    icm_lr: float = 3e-4
    reward_scale: float = 1.0


class Curiosity(ReplayReward):
    """log(1 + scale * |error|) of a model that predicts the next embedding, after it has learned from the batch."""

    def __init__(self, context: AgentContext, config: ICMConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.config = config
        embed, hidden = world_model.embed_dim, config.hidden or world_model.embed_dim
        self.forward_model = relu_mlp(embed + context.action_dim, (hidden,), embed)
        self.optimisers = {"model": Optimiser(self.forward_model.parameters(), config.icm_lr, config.optimiser)}

    def errors(self, embed: Tensor, action: Tensor) -> Tensor:
        """Euclidean norms [B, T - 1] of the errors of predicting embeddings 1 ... T - 1.

        Args:
            embed: [B, T, E].
            action: that led to each, [B, T, A].
        """
        predicted = self.forward_model(torch.cat([embed[:, :-1], action[:, 1:]], -1))
        return (embed[:, 1:] - predicted).norm(dim=-1)

    def learn_and_reward(
        self, batch: Mapping[str, Tensor], world_model: WorldModel
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The first entry of a sequence, which nothing predicts, gets 1 as released."""
        with torch.no_grad():
            embed = world_model.embed(batch["observation"])
        mask = batch["mask"][:, 1:] if "mask" in batch else None
        loss = unmasked_mean(self.errors(embed, batch["action"]), mask)
        self.optimisers["model"].step(loss)
        with torch.no_grad():
            reward = torch.log1p(self.config.reward_scale * self.errors(embed, batch["action"]))
        return torch.cat([torch.ones_like(reward[:, :1]), reward], 1), {"icm_loss": loss.detach()}


SPEC = pretrained_spec(
    name="dreamer-icm",
    description="Dreamer pretrained by the error of a dynamics model",
    paper="Pathak et al. 2017, Curiosity-driven Exploration by Self-supervised Prediction (ICML)",
    config=ICMConfig,
    method=Method(reward=Curiosity),
    small={"icm_lr": 1e-3},
)
