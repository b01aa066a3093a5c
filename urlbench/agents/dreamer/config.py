"""The settings of Dreamer agents: those of the pixel baselines that Choreographer is compared with.

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", on Hafner et
al. 2021 (DreamerV2). Its released code computes in half precision where it can; here everything is float32, or what
`AgentConfig.precision` says.
"""

from typing import Literal, Self

from urlbench.agents.common.actor_critic import ActorCriticConfig
from urlbench.agents.common.optimiser import OptimiserConfig
from urlbench.agents.common.world_model import WorldModelConfig
from urlbench.agents.dreamer.planner import PlannerConfig
from urlbench.core.interfaces import AgentConfig, Schedule


class DreamerWorldModelConfig(WorldModelConfig):
    """Defaults: the released code.

    Attributes:
        reward_shapes_model: of pretraining.
        reward_shapes_finetuned_model: the same for fine-tuning.
        image_mean: what the decoder does to its last layer: as released ELU, by oversight, or nothing.
    """

    reward_shapes_finetuned_model: bool = True
    image_mean: Literal["elu", "identity"] = "elu"

    @property
    def elu_images(self) -> bool:
        """See `ConvDecoder.elu_output`."""
        return self.image_mean == "elu"


class DreamerConfig(AgentConfig):
    """Defaults: the released code.

    Attributes:
        schedule: one update every 10 frames, on 50 sequences of 50 steps. From pixels the replay holds at most
            1M steps, as published.
        finetune_entropy: weight of the policy's entropy in fine-tuning.
        critic_targets: as released, the bonus for the policy's entropy leaks into what the critic learns
            (`with_entropy`), or it does not (`lambda_return`).
        planning: in fine-tuning, plan each action in the world model (Dyna-MPC); published: False.
        planner: how.
    """

    schedule: Schedule = Schedule()
    world_model: DreamerWorldModelConfig = DreamerWorldModelConfig()
    actor_critic: ActorCriticConfig = ActorCriticConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    finetune_entropy: float = 1e-4
    critic_targets: Literal["with_entropy", "lambda_return"] = "with_entropy"
    planning: bool = False
    planner: PlannerConfig = PlannerConfig()

    @property
    def entropy_in_critic(self) -> bool:
        """See `with_entropy`."""
        return self.critic_targets == "with_entropy"

    def of_finetuning(self) -> Self:
        """The settings, those of world model, actor and critic as fine-tuning has them."""
        model = self.world_model
        shapes = {"reward_shapes_model": model.reward_shapes_finetuned_model}
        changed = {"world_model": model.model_copy(update=shapes), "actor_critic": self.actor_critic.of_finetuning()}
        return self.model_copy(update=changed)
