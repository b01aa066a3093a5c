"""Dreamer pretrained by the entropy of imagined states.

Source: Liu & Abbeel 2021, "Behavior From the Void: Unsupervised Active Pre-Training" (APT), on the deterministic states
of a world model as in Rajeswar et al. 2023.
"""

from pydantic import Field
from torch import Tensor

from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.world_model import WorldModel
from urlbench.agents.dreamer.pretraining import IntrinsicReward, Method, PretrainedConfig
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class APTConfig(PretrainedConfig):
    """Defaults: the released code.

    Attributes:
        neighbours: counted, the state itself included (k).
        clip: subtracted from each distance.
    """

    neighbours: int = Field(default=12, gt=0)
    clip: float = 0.0


class StateEntropy(IntrinsicReward):
    """How far a state is from its neighbours among all imagined states of the batch.

    It has no gradient, so it reaches the actor through the critic alone.
    """

    def __init__(self, context: AgentContext, config: APTConfig, world_model: WorldModel) -> None:
        super().__init__()
        self.knn = KnnReward(config.neighbours, clip=config.clip, divide_by="one")

    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """Of the deterministic states."""
        deter = trajectory.deter
        reward: Tensor = self.knn(deter.flatten(0, 1))
        return reward.unflatten(0, deter.shape[:2])


SPEC = pretrained_spec(
    name="dreamer-apt",
    description="Dreamer pretrained by the entropy of imagined states",
    paper="Liu & Abbeel 2021, Behavior From the Void: Unsupervised Active Pre-Training (NeurIPS)",
    config=APTConfig,
    method=Method(reward=StateEntropy),
)
