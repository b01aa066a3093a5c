"""RND: the error of predicting what a fixed random network says.

Source: Burda et al. 2019, "Exploration by Random Network Distillation", in the form released with Laskin et al. 2021
(URLB): observations are normalised with the batch's statistics, where the paper has running ones, and rewards with
the running deviation of the errors, where the paper has that of returns.
"""

import copy
from typing import Literal

import torch
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.running_moments import RunningMoments
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, PretrainedConfig
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class RNDConfig(PretrainedConfig):
    """Defaults: the released URLB code.

    Attributes:
        outputs: numbers to predict.
        observation_limit: bound of the normalised observations.
        reward_scale: of the reward.
        rewarded: the observation that an action was taken in, as released, or the one it led to, as the paper says.
    """

    outputs: int = 512
    observation_limit: float = 5.0
    reward_scale: float = 1.0
    rewarded: Literal["obs", "next_obs"] = "obs"


class RandomNetworkDistillation(IntrinsicReward):
    """The predictor's error after it has learned from the batch.

    From pixels, the predictor sees the images through the agent's encoder, and the target through a copy of the
    encoder's start that never changes.

    Attributes:
        moments: of all errors.
    """

    def __init__(self, context: AgentContext, config: RNDConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        norm = nn.BatchNorm2d if context.observation_kind == "pixels" else nn.BatchNorm1d
        self.norm = norm(context.observation_shape[0], affine=False, track_running_stats=False)
        sizes = (backbone.features, (config.hidden, config.hidden), config.outputs)
        self.predictor = relu_mlp(*sizes)
        self.target = nn.Sequential(copy.deepcopy(backbone.encoder), relu_mlp(*sizes)).requires_grad_(False)
        self.moments = RunningMoments()
        # In a list, so that the encoder is not saved as a part of this module.
        self._encoder = [backbone.encoder]
        parameters = [*self.predictor.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {"predictor": Optimiser(parameters, config.lr, ADAM)}

    def normalise(self, observation: Tensor) -> Tensor:
        """Observations [N, ...] with the batch's mean and deviation taken out, bounded."""
        return self.norm(observation).clamp(-self.config.observation_limit, self.config.observation_limit)

    def errors(self, observation: Tensor, target: Tensor) -> Tensor:
        """Mean squared error [N] at normalised observations [N, ...], of which the target network says `target`."""
        predicted = self.predictor(self._encoder[0](observation))
        return (target - predicted).square().mean(-1)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of the predictor; then its error over the running deviation of errors."""
        seen = batch.images if batch.images is not None else (batch.obs, batch.next_obs)
        observation = self.normalise(seen[0 if self.config.rewarded == "obs" else 1])
        with torch.no_grad():
            target = self.target(observation)
        loss = self.errors(observation, target).mean()
        self.optimisers["predictor"].step(loss)
        with torch.no_grad():
            error = self.errors(observation, target)
        self.moments.update(error)
        reward = self.config.reward_scale * error / (self.moments.var.sqrt() + 1e-8)
        return Learned(reward, {"prediction_error": loss.detach()})


SPEC = pretrained_spec(
    name="rnd",
    description="DDPG rewarded by the error of predicting a random network",
    paper="Burda et al. 2019, Exploration by Random Network Distillation (ICLR)",
    config=RNDConfig,
    method=Method(reward=RandomNetworkDistillation),
    smoke={"outputs": 16},
    small={"outputs": 64},
)
