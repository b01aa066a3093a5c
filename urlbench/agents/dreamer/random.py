"""Dreamer pretrained by random actions: what a world model alone is worth.

Source: the random baseline of Rajeswar et al. 2023 and of Mazzaglia et al. 2023 (Choreographer), tab. 1.
"""

from collections.abc import Mapping
from typing import SupportsFloat

from urlbench.agents.common.random_actor import RandomActor
from urlbench.agents.common.world_model import to_tensors
from urlbench.agents.common.world_model_learner import WorldModelLearner
from urlbench.agents.dreamer.config import DreamerConfig
from urlbench.agents.dreamer.finetuning import DreamerFinetuning
from urlbench.agents.dreamer.spec import SMALL, SMOKE
from urlbench.core.interfaces import Actor, AgentContext, AgentSpec, Array
from urlbench.core.precision import many_rows
from urlbench.core.seeding import derive_seed


class RandomPretraining(WorldModelLearner):
    """Acts at random and learns the world model; the released one has a policy, too, which it never trains.

    Args:
        context: where it lives.
        config: settings.
    """

    def __init__(self, context: AgentContext, config: DreamerConfig) -> None:
        super().__init__(context, config)
        self.config = config

    def actor(self, *, evaluation: bool, seed: int) -> Actor:
        """Uniform actions, in evaluation too."""
        return RandomActor(self.context.action_dim, derive_seed(seed, "actor"))

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The world model alone."""
        return self.learn_world_model(to_tensors(batch, self.context.device))[1]

    def for_finetuning(self, context: AgentContext) -> DreamerFinetuning:
        """An agent with this one's encoder, dynamics and decoder, and an untrained policy."""
        agent = DreamerFinetuning(context, self.config)
        agent.inherit_world_model(self.world_model)
        return agent


SPEC = AgentSpec(
    name="dreamer-random",
    description="Dreamer pretrained by random actions",
    paper="a baseline of Rajeswar et al. 2023, Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels",
    observations=("states", "pixels"),
    pretrains=True,
    config=DreamerConfig,
    build=RandomPretraining,
    finetuning_settings=(
        "actor_critic",
        "critic_targets",
        "finetune_entropy",
        "planning",
        "planner",
        "world_model.reward_shapes_finetuned_model",
    ),
    presets={"smoke": SMOKE, "small": SMALL},
)
