"""The fine-tuning of a DDPG agent: the backbone, rewarded by a task.

Source: the protocol of Laskin et al. 2021 (URLB), sec. 4, and its released code.
"""

from collections.abc import Mapping
from typing import SupportsFloat

from urlbench.agents.ddpg.backbone import DDPGConfig
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.ddpg.skills import Skills
from urlbench.core.interfaces import Agent, AgentContext, Array
from urlbench.core.precision import many_rows


class Finetuning(DDPGLearner):
    """Learns from a task's reward.

    Args:
        context: where it lives.
        config: settings.
        skills: which skill to follow; None for agents without.
        successor: see `Method`.
    """

    def __init__(
        self, context: AgentContext, config: DDPGConfig, skills: Skills | None = None, *, successor: bool = False
    ) -> None:
        super().__init__(
            context,
            config,
            nstep=config.nstep,
            skills=skills,
            trains_encoder=config.critic_trains_encoder,
            successor=successor,
        )

    @many_rows()
    def update(self, batch: Mapping[str, Array]) -> Mapping[str, SupportsFloat]:
        """The backbone learns; whoever chooses skills sees the batch, too."""
        transitions = self.transitions(batch, gradients=self.config.critic_trains_encoder)
        if self.skills is not None:
            self.skills.observe(transitions, self.steps * self.context.action_repeat)
        return self.learn_policy(transitions)

    def for_finetuning(self, context: AgentContext) -> Agent:
        """Refused: fine-tuning starts from a pretrained agent."""
        raise TypeError("this agent is fine-tuned already; call for_finetuning on a pretrained one")
