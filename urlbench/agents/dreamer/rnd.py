"""Dreamer pretrained by the error of predicting what a fixed random network says.

Source: Burda et al. 2019, "Exploration by Random Network Distillation" (RND), in the form released with Rajeswar et al.
2023, which is for pixels only; from states the networks begin with the world model's state encoder instead.
"""

import copy
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.networks import orthogonal_, relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.running_moments import RunningMoments
from urlbench.agents.common.world_model import WorldModel, preprocess
from urlbench.agents.dreamer.pretraining import Method, PretrainedConfig
from urlbench.agents.dreamer.replay_reward import ReplayReward
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class RNDConfig(PretrainedConfig):
    """Defaults: the released code.

    Attributes:
        reward_momentum: off, since the errors are scaled already.
        hidden: width of the two layers behind the encoders; None for that of the embedding, 1536 from pixels as
            published.
        outputs: numbers to predict.
        rnd_lr: of the predictor.
        observation_limit: bound of the normalised observations.
        reward_observations: the released code normalises observations in place, so that those that are rewarded are
            normalised `twice`; or `once`.
        target: as released, the optimiser's weight decay shrinks the random network, too (`decays`); or it is `fixed`.
    """

    reward_momentum: float = 1.0
    hidden: int | None = None
    outputs: int = 512
    rnd_lr: float = 3e-4
    observation_limit: float = 5.0
    reward_observations: Literal["twice", "once"] = "twice"
    target: Literal["decays", "fixed"] = "decays"


class RandomNetworkDistillation(ReplayReward):
    """The predictor's error after it has learned from the batch, over the running deviation of all errors.

    Attributes:
        moments: of all errors.
    """

    def __init__(self, context: AgentContext, config: RNDConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.config = config
        embed, hidden = world_model.embed_dim, config.hidden or world_model.embed_dim

        def network() -> nn.Sequential:
            encoder = copy.deepcopy(world_model.encoder).apply(orthogonal_)
            return nn.Sequential(encoder, relu_mlp(embed, (hidden, hidden), config.outputs))

        self.predictor, self.target = network(), network().requires_grad_(False)
        self.moments = RunningMoments()
        decayed = self.target.parameters() if config.target == "decays" else ()
        optimiser = Optimiser(self.predictor.parameters(), config.rnd_lr, config.optimiser, also_decay=decayed)
        self.optimisers = {"predictor": optimiser}

    def normalise(self, x: Tensor) -> Tensor:
        """Observations [N, ...] with the batch's mean and deviation of each channel or number taken out, bounded."""
        limit = self.config.observation_limit
        return F.batch_norm(x, None, None, training=True).clamp(-limit, limit)

    def errors(self, x: Tensor) -> Tensor:
        """Mean squared error [N] at normalised observations [N, ...]."""
        return (self.target(x) - self.predictor(x)).square().mean(-1)

    def learn_and_reward(
        self, batch: Mapping[str, Tensor], world_model: WorldModel
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A step of the predictor; then the reward."""
        observation = preprocess(batch["observation"], symlog_states=world_model.config.symlog_states)
        mask = batch.get("mask")
        x = self.normalise(unmasked(observation, mask))
        loss = self.errors(x).mean()
        self.optimisers["predictor"].step(loss)
        with torch.no_grad():
            error = self.errors(self.normalise(x) if self.config.reward_observations == "twice" else x)
        self.moments.update(error)
        reward, metrics = error / (self.moments.var.sqrt() + 1e-8), {"rnd_loss": loss.detach()}
        if mask is None:
            return reward.unflatten(0, observation.shape[:2]), metrics
        return reward.new_zeros(mask.shape).masked_scatter(mask, reward), metrics


SPEC = pretrained_spec(
    name="dreamer-rnd",
    description="Dreamer pretrained by the error of predicting a random network",
    paper="Burda et al. 2019, Exploration by Random Network Distillation (ICLR)",
    config=RNDConfig,
    method=Method(reward=RandomNetworkDistillation),
    smoke={"outputs": 16},
    small={"outputs": 64, "rnd_lr": 1e-3},
)
