"""SMM: skills that together visit all states alike.

Source: Lee et al. 2019, "Efficient Exploration via State Marginal Matching", in the form released with Laskin et al.
2021 (URLB): the reconstruction error of a variational auto-encoder stands for the negative log-density of states.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP, orthogonal_, relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skills import SkillSpace, draw_onehot
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, SkilledConfig
from urlbench.agents.ddpg.skills import Skills
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class SMMConfig(SkilledConfig):
    """Defaults: the released URLB code.

    In both phases a skill is drawn at random for each episode: the released search for the best one can never
    begin, because it waits for the end of an episode, which it is not shown.

    Attributes:
        skills: how many (K).
        state_scale: of the density's part of the reward.
        skill_scale: of log K, the entropy of the skills.
        discriminator_scale: of the discriminator's part.
        distinct_skills: the released reward adds the cross-entropy -log q(z | s), so skills that cannot be told
            apart earn more (`penalised`); the paper's adds log q(z | s) (`rewarded`).
        vae_hidden: width of the auto-encoder.
        vae_code: size of its code.
        vae_beta: weight of its KL.
        vae_lr: its learning rate.
        discriminator_lr: of the discriminator and, from pixels, of the encoder, which learns from its loss alone: the
            auto-encoder would teach it to see nothing.
    """

    skills: int = 4
    state_scale: float = 1.0
    skill_scale: float = 1.0
    discriminator_scale: float = 1.0
    distinct_skills: Literal["penalised", "rewarded"] = "penalised"
    vae_hidden: int = 150
    vae_code: int = 128
    vae_beta: float = 0.5
    vae_lr: float = 1e-2
    discriminator_lr: float = 1e-3


class VAE(nn.Module):
    """A variational auto-encoder with two ReLU layers on each side.

    Source: Kingma & Welling 2014.

    Args:
        inputs: size of what it encodes (D).
        hidden: width.
        code: size of the code (C).
    """

    def __init__(self, inputs: int, hidden: int, code: int) -> None:
        super().__init__()
        self.encoder = MLP(inputs, (hidden, hidden), None, activation=F.relu_)
        self.mean, self.log_var = nn.Linear(hidden, code), nn.Linear(hidden, code)
        self.apply(orthogonal_)
        self.decoder = relu_mlp(code, (hidden, hidden), inputs)

    def forward(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """KL to the standard normal, summed over the code, and squared errors: [N] and [N, D] for `x` [N, D]."""
        hidden = self.encoder(x)
        mean, log_var = self.mean(hidden), self.log_var(hidden)
        kl = 0.5 * (mean**2 + log_var.exp() - log_var - 1).sum(-1)
        decoded = self.decoder(mean + (0.5 * log_var).exp() * draws.normal(mean))
        return kl, (decoded - x) ** 2


class StateMarginalMatching(IntrinsicReward):
    """How rare a state is, and how its skill can be told, both before learning from the batch."""

    def __init__(self, context: AgentContext, config: SMMConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        self.vae = VAE(backbone.features + config.skills, config.vae_hidden, config.vae_code)
        self.discriminator = relu_mlp(backbone.features, (config.hidden, config.hidden), config.skills)
        parameters = [*self.discriminator.parameters(), *backbone.encoder.parameters()]
        self.optimisers = {
            "vae": Optimiser(self.vae.parameters(), config.vae_lr, ADAM),
            "discriminator": Optimiser(parameters, config.discriminator_lr, ADAM),
        }

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of the auto-encoder and one of the discriminator, and what they said before them."""
        assert batch.skill is not None, "the samples of an agent with skills hold them"
        config = self.config
        kl, squared = self.vae(torch.cat([batch.obs.detach(), batch.skill], -1), draws)
        vae_loss = config.vae_beta * kl.mean() + squared.mean()
        self.optimisers["vae"].step(vae_loss)

        logits = self.discriminator(batch.obs)
        cross_entropy = F.cross_entropy(logits, batch.skill.argmax(-1), reduction="none")
        discriminator_loss = cross_entropy.mean()
        self.optimisers["discriminator"].step(discriminator_loss)

        sign = 1 if config.distinct_skills == "penalised" else -1
        reward = config.state_scale * squared.sum(-1) + config.skill_scale * math.log(config.skills)
        reward = reward + sign * config.discriminator_scale * cross_entropy
        metrics = {"vae_loss": vae_loss.detach(), "discriminator_loss": discriminator_loss.detach()}
        return Learned(reward.detach(), metrics)


def _skills(config: SMMConfig) -> Skills:
    return Skills(SkillSpace(config.skills, draw_onehot, None))


SPEC = pretrained_spec(
    name="smm",
    description="DDPG with 4 skills rewarded by the rarity of states",
    paper="Lee et al. 2019, Efficient Exploration via State Marginal Matching",
    config=SMMConfig,
    method=Method(
        reward=StateMarginalMatching,
        skills=_skills,
        finetuning_skills=lambda config, context, reward: _skills(config),
    ),
    smoke={"vae_hidden": 16, "vae_code": 8},
)
