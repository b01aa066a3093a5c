"""What Dreamer agents with skills share."""

from urlbench.agents.dreamer.backbone import DreamerWorldModelConfig
from urlbench.agents.dreamer.pretraining import PretrainedConfig
from urlbench.core.interfaces import AgentContext


class SkilledWorldModelConfig(DreamerWorldModelConfig):
    """Defaults: the released code.

    Attributes:
        reward_shapes_finetuned_model: agents with skills keep the pretraining's setting.
    """

    reward_shapes_finetuned_model: bool = False


class SkilledConfig(PretrainedConfig):
    """What skills add.

    Attributes:
        skill_steps: agent steps that a random skill is followed for.
    """

    world_model: SkilledWorldModelConfig = SkilledWorldModelConfig()
    skill_steps: int = 50


def choice_step(config: SkilledConfig, context: AgentContext) -> int:
    """The agent step of the fine-tuning at which a skill is chosen, as released.

    The first step after the seed frames that the period of skills divides, if that is counted in frames (where acting
    counts it in agent steps).
    """
    repeat = context.action_repeat
    seed, period = config.schedule.seed_frames // repeat, max(1, config.skill_steps // repeat)
    return (seed // period + 1) * period
