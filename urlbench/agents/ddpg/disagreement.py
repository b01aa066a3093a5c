"""Disagreement: the variance of an ensemble of dynamics models.

Source: Pathak et al. 2019, "Self-Supervised Exploration via Disagreement", in the form released with Laskin et al.
2021 (URLB).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, PretrainedConfig
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class DisagreementConfig(PretrainedConfig):
    """Defaults: the released URLB code.

    Attributes:
        models: in the ensemble.
    """

    models: int = 5


class Disagreement(IntrinsicReward):
    """The ensemble's variance after it has learned from the batch; models start as PyTorch starts them."""

    def __init__(self, context: AgentContext, config: DisagreementConfig, backbone: Backbone) -> None:
        super().__init__()
        features, inputs = backbone.features, backbone.features + context.action_dim
        self.models = nn.ModuleList(
            MLP(inputs, (config.hidden,), features, activation=F.relu_) for _ in range(config.models)
        )
        parameters = [*self.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {"models": Optimiser(parameters, config.lr, ADAM)}

    def predictions(self, obs: Tensor, action: Tensor) -> Tensor:
        """Next features [M, N, F] of every model."""
        x = torch.cat([obs, action], -1)
        return torch.stack([model(x) for model in self.models])

    def reward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Unbiased variance over the models, mean over the features, [N]."""
        return self.predictions(obs, action).var(0).mean(-1)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of all models on the norms of their errors; then the reward."""
        # A target that gave gradients would teach the encoder to see nothing.
        error = (batch.next_obs.detach() - self.predictions(batch.obs, batch.action)).norm(dim=-1).mean()
        self.optimisers["models"].step(error)
        with torch.no_grad():
            return Learned(self.reward(batch.obs, batch.action), {"model_error": error.detach()})


SPEC = pretrained_spec(
    name="disagreement",
    description="DDPG rewarded by the disagreement of five dynamics models",
    paper="Pathak et al. 2019, Self-Supervised Exploration via Disagreement (ICML)",
    config=DisagreementConfig,
    method=Method(reward=Disagreement),
)
