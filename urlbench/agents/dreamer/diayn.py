"""Dreamer pretrained with skills that a discriminator can tell apart.

Source: Eysenbach et al. 2019, "Diversity Is All You Need" (DIAYN), in the form released with Rajeswar et al. 2023: the
discriminator sees model states, skills are learned in imagination and one of them is fine-tuned.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.actor_critic import ActorCritic, Trajectory
from urlbench.agents.common.finetuning import SkillChoice
from urlbench.agents.common.masks import unmasked
from urlbench.agents.common.networks import relu_mlp
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.skills import SkillSpace, distinctness, draw_onehot
from urlbench.agents.common.world_model import WorldModel, WorldModelLoss
from urlbench.agents.dreamer.pretraining import IntrinsicReward, Method, SkilledConfig, choice_step
from urlbench.agents.dreamer.spec import pretrained_spec
from urlbench.core.interfaces import AgentContext


class DIAYNConfig(SkilledConfig):
    """Defaults: the released code.

    Attributes:
        skills: how many (K).
        hidden: width of the discriminator's two layers; None for the size of the model state, as published.
        discriminator_lr: its learning rate.
        skill_score: what was meant is the mean over sequences of return times log-probability of the sequence's
            actions (`mean_of_products`). In the released code two axes are broadcast against each other, so that it is
            mean return times mean log-probability (`product_of_means`), whichever sequence was rewarded.
        scored_actions: as released, actions are judged in the states that they led to (`leading`), not in those that
            they were `taken` in.
    """

    pretrain_entropy: float = 0.1
    skills: int = 50
    hidden: int | None = None
    discriminator_lr: float = 3e-4
    skill_score: Literal["product_of_means", "mean_of_products"] = "product_of_means"
    scored_actions: Literal["leading", "taken"] = "leading"


class SkillDiscriminator(IntrinsicReward):
    """log q(z | s) - log p(z) of model states, differentiable in them."""

    def __init__(self, context: AgentContext, config: DIAYNConfig, world_model: WorldModel) -> None:
        super().__init__()
        feat_dim = world_model.rssm.feat_dim
        hidden = config.hidden or feat_dim
        self.discriminator = relu_mlp(feat_dim, (hidden, hidden), config.skills)
        optimiser = Optimiser(self.discriminator.parameters(), config.discriminator_lr, config.optimiser)
        self.optimisers = {"discriminator": optimiser}

    def learn(self, batch: Mapping[str, Tensor], model: WorldModelLoss) -> dict[str, Tensor]:
        """A step on the skills that were followed."""
        mask = batch.get("mask")
        logits = self.discriminator(unmasked(model.post.feat, mask))
        skill = unmasked(batch["skill"], mask).argmax(-1)
        loss = F.cross_entropy(logits, skill)
        self.optimisers["discriminator"].step(loss)
        accuracy = (logits.argmax(-1) == skill).to(logits.dtype).mean()
        return {"discriminator_loss": loss.detach(), "discriminator_accuracy": accuracy}

    def judge(self, trajectory: Trajectory, world_model: WorldModel, skill: Tensor | None) -> Tensor:
        """Of the skill that the trajectory follows."""
        assert skill is not None, "an algorithm with skills"
        return distinctness(self.discriminator(trajectory.feat), skill)


def skill_scores(
    behaviour: ActorCritic,
    skills: Tensor,
    feat: Tensor,
    action: Tensor,
    reward: Tensor,
    how: Literal["mean_of_products", "product_of_means"],
    mask: Tensor | None = None,
) -> Tensor:
    """How much the rewarded actions are those of each skill.

    Args:
        behaviour: whose policy it is.
        skills: [K, D].
        feat: model states [B, T, F].
        action: that are judged in them, [B, T, A].
        reward: [B, T].
        how: see `DIAYNConfig.skill_score`.
        mask: [B, T], see `unmasked`.

    Returns:
        [K].
    """
    log_prob = torch.stack([behaviour.actor(behaviour.sees(feat, skill)).log_prob(action) for skill in skills])
    if mask is not None:
        log_prob, reward = log_prob.masked_fill(~mask, 0), reward.masked_fill(~mask, 0)
    log_prob = log_prob.sum(2)  # [K, B]
    returns = reward.sum(1)
    if how == "product_of_means":
        return log_prob.mean(1) * returns.mean()
    return (log_prob * returns).mean(1)


class ScoredSkill(SkillChoice):
    """The skill of the highest score in the first replay batch that holds a reward.

    Args:
        context: where the agent lives.
        config: settings.
        pretrained: the pretrained intrinsic reward; not used.
    """

    def __init__(self, context: AgentContext, config: DIAYNConfig, pretrained: SkillDiscriminator) -> None:
        super().__init__(choice_step(config, context))
        self.config = config

    @torch.no_grad()
    def observe(self, batch: Mapping[str, Tensor], post: LatentState, behaviour: ActorCritic) -> Tensor | None:
        """The released code takes the first skill where there is no reward."""
        feat, action, reward, mask = post.feat, batch["action"], batch["reward"], batch.get("mask")
        if not bool(unmasked(reward, mask).any()):
            return None
        if self.config.scored_actions == "taken":
            feat, action, reward = feat[:, :-1], action[:, 1:], reward[:, 1:]
            mask = None if mask is None else mask[:, 1:]
        skills = torch.eye(self.config.skills, device=feat.device, dtype=feat.dtype)
        scores = skill_scores(behaviour, skills, feat, action, reward, self.config.skill_score, mask)
        return skills[scores.argmax()]


SPEC = pretrained_spec(
    name="dreamer-diayn",
    description="Dreamer pretrained with skills that a discriminator can tell apart",
    paper="Eysenbach et al. 2019, Diversity Is All You Need (ICLR)",
    config=DIAYNConfig,
    method=Method(
        reward=SkillDiscriminator,
        skills=lambda config: SkillSpace(config.skills, draw_onehot, config.skill_steps),
        choice=ScoredSkill,
    ),
    smoke={"skills": 8, "hidden": 32},
    small={"skills": 16, "hidden": 128, "discriminator_lr": 1e-3},
    finetuning_settings=("skill_score", "scored_actions"),
)
