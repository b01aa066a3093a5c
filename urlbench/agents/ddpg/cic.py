"""CIC: skills whose transitions are recognised by contrastive learning, explored by entropy.

Source: Laskin et al. 2022, "CIC: Contrastive Intrinsic Control for Unsupervised Skill Discovery", and its released
code. The reward is the released one: the entropy of next states' features alone; the paper adds the contrastive
term to the entropy of transitions' features.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.knn_entropy import KnnReward
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.skills import SkillSpace, draw_point
from urlbench.agents.ddpg.backbone import ADAM, Backbone, Transitions
from urlbench.agents.ddpg.pretraining import IntrinsicReward, Learned, Method, SkilledConfig
from urlbench.agents.ddpg.skills import Skills
from urlbench.agents.ddpg.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class CICConfig(SkilledConfig):
    """Defaults: the released CIC code.

    Attributes:
        skill_dim: size of a skill, uniform in the unit cube, and of its embedding (K).
        skill_steps: agent steps that a skill is followed for in pretraining.
        finetuning_skill: in fine-tuning every number of the skill has this value. (The paper speaks of a search
            over such values, which is not in the released code.)
        temperature: of the contrastive loss.
        negatives: the released loss takes e^(1/T), the largest value possible, from the sum over all pairs
            (`constant`) where the row's own pair should be left out (`others`).
        neighbours: counted in the batch, the observation itself included (k).
        clip: subtracted from each scaled distance.
        divide_by: what distances are scaled with: the released code takes the running variance where it means the
            standard deviation.
        trains_encoder: from pixels, the contrastive loss trains the encoder. The released code encodes without
            gradients, so that nothing trains it; the paper has no pixels.
    """

    skill_dim: int = 64
    skill_steps: int = 50
    finetuning_skill: float = 0.5
    temperature: float = 0.5
    negatives: Literal["constant", "others"] = "constant"
    neighbours: int = Field(default=16, gt=0)
    clip: float = 5e-4
    divide_by: Literal["variance", "std", "mean"] = "variance"
    trains_encoder: bool = True


class ContrastiveControl(IntrinsicReward):
    """The entropy of next states' features, after the features have learned from the batch."""

    EPS = 1e-6

    def __init__(self, context: AgentContext, config: CICConfig, backbone: Backbone) -> None:
        super().__init__()
        self.config = config
        hidden, dim = (config.hidden, config.hidden), config.skill_dim
        self.state = relu_mlp(backbone.features, hidden, dim)
        self.transition = relu_mlp(2 * dim, hidden, dim)
        self.skill = relu_mlp(dim, hidden, dim)
        self.knn = KnnReward(config.neighbours, clip=config.clip, divide_by=config.divide_by)
        encoder = backbone.encoder.parameters() if config.trains_encoder else ()
        self.optimisers = {"model": Optimiser([*self.parameters(), *encoder], config.lr, ADAM)}

    def embed(self, batch: Transitions) -> tuple[Tensor, Tensor]:
        """Unit embeddings of skills and of transitions, both [N, K]."""
        assert batch.skill is not None, "the samples of an agent with skills hold them"
        obs, next_obs = batch.obs, batch.next_obs
        if not self.config.trains_encoder:
            obs, next_obs = obs.detach(), next_obs.detach()
        key = self.transition(torch.cat([self.state(obs), self.state(next_obs)], -1))
        return F.normalize(self.skill(batch.skill), dim=-1), F.normalize(key, dim=-1)

    def losses(self, logits: Tensor) -> Tensor:
        """The contrastive loss [N] of `logits` [N, N], rows of skills and columns of transitions.

        Source: van den Oord et al. 2018 (CPC), eq. 4; Laskin et al. 2022, eq. 5.
        """
        own, every = logits.diagonal(), logits.exp().sum(-1)
        if self.config.negatives == "constant":
            without = every - torch.exp(logits.new_tensor(1 / self.config.temperature))
        else:
            without = every - own.exp()
        return -own + torch.log(without.clamp(min=self.EPS) + self.EPS)

    def learn(self, batch: Transitions, draws: Draws) -> Learned:
        """A step of the contrastive loss; then the entropy reward."""
        query, key = self.embed(batch)
        loss = self.losses(query @ key.T / self.config.temperature).mean()
        self.optimisers["model"].step(loss)
        with torch.no_grad():
            features = self.state(batch.next_obs)
        return Learned(self.knn(features), {"contrastive_loss": loss.detach()})


def _constant_skill(config: CICConfig) -> Skills:
    return Skills(
        SkillSpace(config.skill_dim, lambda draws, like: torch.full_like(like, config.finetuning_skill), None)
    )


SPEC = pretrained_spec(
    name="cic",
    description="DDPG with continuous skills: contrastive features, entropy reward",
    paper="Laskin et al. 2022, CIC: Contrastive Intrinsic Control for Unsupervised Skill Discovery (NeurIPS)",
    config=CICConfig,
    method=Method(
        reward=ContrastiveControl,
        skills=lambda config: Skills(SkillSpace(config.skill_dim, draw_point, config.skill_steps)),
        finetuning_skills=lambda config, context, reward: _constant_skill(config),
    ),
    smoke={"skill_dim": 8, "neighbours": 3},
    small={"skill_dim": 16},
    finetuning_settings=("finetuning_skill",),
)
