"""Dreamer pretrained by latent Bayesian surprise.

Source: Mazzaglia et al. 2022, "Curiosity-Driven Exploration via Latent Bayesian Surprise".
"""

from collections.abc import Mapping

from torch import Tensor

from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.world_model import WorldModel, WorldModelLoss
from urlbench.agents.dreamer.pretraining import IntrinsicReward, Method, PretrainedConfig
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class LBSConfig(PretrainedConfig):
    """Defaults: the released code.

    Attributes:
        lbs_lr: of the surprise predictor.
    """

    lbs_lr: float = 3e-4


class Surprise(IntrinsicReward):
    """The surprise that a state's observation is predicted to be; see `LatentBayesianSurprise`."""

    def __init__(self, context: AgentContext, config: LBSConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.lbs = LatentBayesianSurprise(world_model.rssm.feat_dim, config.actor_critic.units)
        self.optimisers = {"lbs": Optimiser(self.lbs.parameters(), config.lbs_lr, config.optimiser)}

    def learn(self, batch: Mapping[str, Tensor], model: WorldModelLoss) -> dict[str, Tensor]:
        """Regress the surprise at the observations seen."""
        mask = batch.get("mask")
        loss = self.lbs.loss(unmasked(model.post.feat, mask), unmasked(model.kl, mask))
        self.optimisers["lbs"].step(loss)
        return {"lbs_loss": loss.detach()}

    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """Differentiable in the states."""
        return self.lbs.reward(trajectory.feat)


SPEC = pretrained_spec(
    name="dreamer-lbs",
    description="Dreamer pretrained by latent Bayesian surprise",
    paper="Mazzaglia et al. 2022, Curiosity-Driven Exploration via Latent Bayesian Surprise (AAAI)",
    config=LBSConfig,
    method=Method(reward=Surprise),
    small={"lbs_lr": 1e-3},
)
