"""ICM: curiosity, the error of a dynamics model.

Source: Pathak et al. 2017, "Curiosity-driven Exploration by Self-supervised Prediction", in the form released with
Laskin et al. 2021 (URLB).
"""

from typing import Literal

import torch
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, PretrainedConfig
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class ICMConfig(PretrainedConfig):
    """Defaults: the released URLB code.

    Attributes:
        reward_scale: of the forward error inside the reward's logarithm.
        reward_form: as released, log(1 + scale * |error|); the paper's is scale / 2 * |error|^2.
    """

    reward_scale: float = 1.0
    reward_form: Literal["log", "squared"] = "log"


class InverseDynamics(nn.Module):
    """A forward and an inverse model of one hidden layer each, in the space of given features.

    Args:
        features: size of the features (F).
        action_dim: A.
        hidden: width.
    """

    def __init__(self, features: int, action_dim: int, hidden: int) -> None:
        super().__init__()
        self.forward_model = relu_mlp(features + action_dim, (hidden,), features)
        self.inverse_model = relu_mlp(2 * features, (hidden,), action_dim)

    def errors(self, x: Tensor, action: Tensor, next_x: Tensor) -> tuple[Tensor, Tensor]:
        """Euclidean norms of the forward and of the inverse error, both [N].

        Args:
            x: [N, F].
            action: [N, A].
            next_x: [N, F].
        """
        guessed = torch.tanh(self.inverse_model(torch.cat([x, next_x], -1)))
        return self.forward_error(x, action, next_x), (action - guessed).norm(dim=-1)

    def forward_error(self, x: Tensor, action: Tensor, next_x: Tensor) -> Tensor:
        """The first of `errors` alone."""
        predicted = self.forward_model(torch.cat([x, action], -1))
        return (next_x - predicted).norm(dim=-1)


class Curiosity(IntrinsicReward):
    """The forward model's error after it has learned from the batch.

    The released loss is the sum of the two norms; the paper weighs squared errors against each other.
    """

    def __init__(self, context: AgentContext, config: ICMConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.dynamics = InverseDynamics(backbone.features, context.action_dim, config.hidden)
        self.optimisers = {"model": Optimiser([*self.parameters(), *backbone.encoder.parameters()], config.lr, ADAM)}

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of both models; then the reward."""
        next_obs = batch.next_obs.detach()  # else the encoder would learn to see nothing
        forward, inverse = self.dynamics.errors(batch.obs, batch.action, next_obs)
        loss = forward.mean() + inverse.mean()
        self.optimisers["model"].step(loss)
        with torch.no_grad():
            error = self.dynamics.forward_error(batch.obs, batch.action, next_obs)
        metrics = {"forward_error": forward.mean().detach(), "inverse_error": inverse.mean().detach()}
        return Learned(self.reward(error), metrics)

    def reward(self, error: Tensor) -> Tensor:
        """The reward [N] of forward errors [N]."""
        scale = self.config.reward_scale
        return torch.log1p(scale * error) if self.config.reward_form == "log" else 0.5 * scale * error**2


SPEC = pretrained_spec(
    name="icm",
    description="DDPG rewarded by the error of a dynamics model",
    paper="Pathak et al. 2017, Curiosity-driven Exploration by Self-supervised Prediction (ICML)",
    config=ICMConfig,
    method=Method(reward=Curiosity),
)
