"""Latent Bayesian surprise, the intrinsic reward that collects Choreographer's data.

Source: Mazzaglia et al. 2022 (LBS); Mazzaglia et al. 2023 (Choreographer), app. A.
"""

from torch import Tensor, nn

from urlbench.agents.common.distributions import unit_normal_nll
from urlbench.agents.common.networks import MLP


class LatentBayesianSurprise(nn.Module):
    """Predicts KL[posterior || prior] of a model state; the prediction is the reward of imagined states.

    The paper describes the reward as the KL itself, which an imagined state has not; the released code
    learns this regression.

    Args:
        feat_dim: size of the model state (F).
        units: hidden layers.
    """

    def __init__(self, feat_dim: int, units: tuple[int, ...]) -> None:
        super().__init__()
        self.predictor = MLP(feat_dim, units, 1)

    def loss(self, feat: Tensor, kl: Tensor) -> Tensor:
        """Unit-variance Gaussian NLL of `kl` [...] given `feat` [..., F], both detached; the mean."""
        return unit_normal_nll(self.reward(feat.detach()), kl.detach()).mean()

    def reward(self, feat: Tensor) -> Tensor:
        """Predicted surprise [...] at `feat` [..., F], differentiable in it."""
        reward: Tensor = self.predictor(feat).squeeze(-1)
        return reward
