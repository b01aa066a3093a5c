"""APT: a particle estimate of the entropy of learned features.

Source: Liu & Abbeel 2021, "Behavior From the Void: Unsupervised Active Pre-Training", in the form released with Laskin
et al. 2021 (URLB) as `icm_apt`: features come from inverse and forward dynamics, where the paper has contrastive
learning.
"""

from typing import Literal

import torch
from pydantic import Field

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.icm import InverseDynamics
from urlbench.agents.ddpg.networks import Trunk
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, PretrainedConfig
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class APTConfig(PretrainedConfig):
    """Defaults: the released URLB code.

    Attributes:
        representation: size of the features that distances are measured in.
        neighbours: counted in the batch, the observation itself included (k).
        clip: subtracted from each distance.
        divide_by: `mean` scales distances with their running mean, as the paper does with rewards; released: `one`.
        rewarded: the observation that an action was taken in, as released, or the one it led to, as the paper says.
    """

    representation: int = 512
    neighbours: int = Field(default=12, gt=0)
    clip: float = 0.0
    divide_by: Literal["one", "mean"] = "one"
    rewarded: Literal["obs", "next_obs"] = "obs"


class ActivePretraining(IntrinsicReward):
    """How far an observation's features are from their neighbours in the batch."""

    def __init__(self, context: AgentContext, config: APTConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.trunk = Trunk(backbone.features, config.representation)
        self.dynamics = InverseDynamics(config.representation, context.action_dim, config.hidden)
        self.knn = KnnReward(config.neighbours, clip=config.clip, divide_by=config.divide_by)
        parameters = [*self.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {"model": Optimiser(parameters, config.lr, ADAM)}

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of both models and the trunk, which learns from both sides; then the reward."""
        forward, inverse = self.dynamics.errors(self.trunk(batch.obs), batch.action, self.trunk(batch.next_obs))
        self.optimisers["model"].step(forward.mean() + inverse.mean())
        with torch.no_grad():
            representation = self.trunk(batch.obs if self.config.rewarded == "obs" else batch.next_obs)
        metrics = {"forward_error": forward.mean().detach(), "inverse_error": inverse.mean().detach()}
        return Learned(self.knn(representation), metrics)


SPEC = pretrained_spec(
    name="apt",
    description="DDPG rewarded by a particle estimate of the entropy of dynamics features",
    paper="Liu & Abbeel 2021, Behavior From the Void: Unsupervised Active Pre-Training (NeurIPS)",
    config=APTConfig,
    method=Method(reward=ActivePretraining),
    smoke={"representation": 16, "neighbours": 3},
    small={"representation": 64},
)
