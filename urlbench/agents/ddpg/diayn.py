"""DIAYN: skills that a discriminator can tell apart.

Source: Eysenbach et al. 2019, "Diversity Is All You Need", in the form released with Laskin et al. 2021 (URLB).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skills import SkillSpace, distinctness, draw_onehot
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, SkilledConfig
from urlbench.agents.ddpg.skills import Skills
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class DIAYNConfig(SkilledConfig):
    """Defaults: the released URLB code.

    In fine-tuning, too, skills are drawn at random every `skill_steps`: the released code has no search for the best.

    Attributes:
        skills: how many (K).
        skill_steps: agent steps that a skill is followed for.
        reward_scale: of the reward.
    """

    skills: int = 16
    skill_steps: int = 50
    reward_scale: float = 1.0


class SkillDiscriminator(IntrinsicReward):
    """log q(z | s') - log p(z), after the discriminator has learned from the batch."""

    def __init__(self, context: AgentContext, config: DIAYNConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.discriminator = relu_mlp(backbone.features, (config.hidden, config.hidden), config.skills)
        parameters = [*self.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {"discriminator": Optimiser(parameters, config.lr, ADAM)}

    def reward(self, logits: Tensor, skill: Tensor) -> Tensor:
        """The reward [N] of one-hot skills [N, K] under the discriminator's logits [N, K]."""
        return self.config.reward_scale * distinctness(logits, skill)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of the discriminator's cross-entropy; then the reward."""
        assert batch.skill is not None, "the samples of an agent with skills hold them"
        skill = batch.skill.argmax(-1)
        logits = self.discriminator(batch.next_obs)
        loss = F.cross_entropy(logits, skill)
        self.optimisers["discriminator"].step(loss)
        with torch.no_grad():
            reward = self.reward(self.discriminator(batch.next_obs), batch.skill)
        accuracy = (logits.argmax(-1) == skill).to(logits.dtype).mean()
        return Learned(reward, {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy})


def _skills(config: DIAYNConfig) -> Skills:
    return Skills(SkillSpace(config.skills, draw_onehot, config.skill_steps))


SPEC = pretrained_spec(
    name="diayn",
    description="DDPG with 16 skills that a discriminator can tell apart",
    paper="Eysenbach et al. 2019, Diversity Is All You Need (ICLR)",
    config=DIAYNConfig,
    method=Method(
        reward=SkillDiscriminator,
        skills=_skills,
        finetuning_skills=lambda config, context, reward: _skills(config),
    ),
)
