"""Intrinsic rewards of observations: the reward head learns them from the replay and judges imagined states.

Source: the released code of Rajeswar et al. 2023, where the reward head never shapes the model's states.
"""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from urlbench.agents.common.actor_critic import Trajectory
from urlbench.agents.common.masks import unmasked_mean
from urlbench.agents.common.world_model import WorldModel
from urlbench.agents.dreamer.pretraining import IntrinsicReward


class ReplayReward(IntrinsicReward):
    """Rewards that take the place of the task's before the world model learns from a batch."""

    @abstractmethod
    def learn_and_reward(
        self, batch: Mapping[str, Tensor], world_model: WorldModel
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One update, then rewards [B, T] without gradient, of which those of padding do not matter; metrics.

        Args:
            batch: as the replay gives it.
            world_model: before its update.
        """

    def relabel(
        self, batch: Mapping[str, Tensor], world_model: WorldModel
    ) -> tuple[Mapping[str, Tensor], dict[str, Tensor]]:
        """The batch with these rewards."""
        reward, metrics = self.learn_and_reward(batch, world_model)
        return {**batch, "reward": reward}, metrics | {"intrinsic_reward": unmasked_mean(reward, batch.get("mask"))}

    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """What the reward head has learned; differentiable in the states."""
        return world_model.reward(trajectory.feat)
