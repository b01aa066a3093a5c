"""The world model: encoder, RSSM, decoder, reward head and, where episodes end early, continue head; one loss.

Source: Hafner et al. 2021 (DreamerV2), eq. 2, with KL balancing; sizes as in Mazzaglia et al. 2023
(Choreographer), app. B.1.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.distributions import unit_normal_nll
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import CategoricalLatents, Latents
from urlbench.agents.common.masks import unmasked, unmasked_mean
from urlbench.agents.common.networks import MLP, ConvDecoder, ConvEncoder
from urlbench.agents.common.rssm import RSSM, LatentState
from urlbench.agents.common.running_moments import Standardiser
from urlbench.core.interfaces import AgentContext, Array
from urlbench.core.types import AddedLater, Spec


class WorldModelConfig(Spec):
    """Defaults: the released Choreographer code.

    Attributes:
        deter: size of the deterministic state (D).
        hidden: width of the layers around the recurrent cell.
        variables: discrete latent variables (V).
        classes: classes of each (C).
        symlog_states: see states as sign(x) log(1 + |x|) (Hafner et al. 2023, DreamerV3), so that velocities do not
            drown positions; published: False. Images are never changed by it.
        standardise_states: see each number of a state observation (after symlog) less its mean and divided by its
            standard deviation, both over the replay batches so far; published: False. Numbers that vary little, as the
            torso's height does among velocities, count as much as the others.
        mlp_units: hidden layers of the reward head and of the state encoder and decoder.
        conv_depth: channels of the first convolution, from pixels.
        kl_balance: share of the KL's gradient that trains the prior; None for the plain KL of Dreamer's first version,
            which trains both in full.
        free_nats: below this mean KL the KL loss has no gradient.
        reward_clip: what the reward head is trained on; published: `identity`.
        reward_shapes_model: let the reward loss train the whole model. The released configuration says so
            for fine-tuning, but another file overrides it, so the published numbers come from False.
    """

    deter: int = 200
    hidden: int = 200
    variables: int = 32
    classes: int = 32
    symlog_states: bool = False
    standardise_states: Annotated[bool, AddedLater] = False
    mlp_units: tuple[int, ...] = (400, 400, 400, 400)
    conv_depth: int = 48
    kl_balance: float | None = 0.8
    free_nats: float = 1.0
    lr: float = 3e-4
    reward_clip: Literal["identity", "sign", "tanh"] = "identity"
    reward_shapes_model: bool = False

    @property
    def latents(self) -> Latents:
        """The stochastic state's distribution."""
        return CategoricalLatents(self.variables, self.classes)

    @property
    def elu_images(self) -> bool:
        """See `ConvDecoder.elu_output`."""
        return False


class WorldModelLoss(NamedTuple):
    """The loss and what the other components learn from.

    Attributes:
        loss: scalar.
        post: detached posterior states [B, T, ...].
        kl: detached KL[posterior || prior] per state, without free nats, [B, T].
        embed: detached embeddings of the observations, [B, T, E].
        metrics: scalars by name.
    """

    loss: Tensor
    post: LatentState
    kl: Tensor
    embed: Tensor
    metrics: dict[str, Tensor]


def kl_loss(
    latents: Latents,
    post: Tensor,
    prior: Tensor,
    *,
    balance: float | None = 0.8,
    free_nats: float = 1.0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The KL loss; free nats are applied to the mean over batch and time, not to single states.

    Source: Hafner et al. 2021 (DreamerV2), alg. 2; without balance Hafner et al. 2020 (Dreamer), eq. 10.

    Args:
        latents: whose KL it is.
        post: parameters of the posterior, [B, T, V, P].
        prior: those of the prior, [B, T, V, P].
        balance: weight of the term that trains the prior; None if one term trains both.
        free_nats: lower bound of each mean.
        mask: [B, T], see `unmasked`.

    Returns:
        Loss (scalar) and detached KL per state [B, T].
    """
    floor = post.new_tensor(free_nats)
    if balance is None:
        kl = latents.kl(post, prior)
        return torch.maximum(unmasked_mean(kl, mask), floor), kl.detach()
    trains_prior = latents.kl(post.detach(), prior)
    trains_post = latents.kl(post, prior.detach())
    loss = balance * torch.maximum(unmasked_mean(trains_prior, mask), floor)
    loss = loss + (1 - balance) * torch.maximum(unmasked_mean(trains_post, mask), floor)
    return loss, trains_prior.detach()


def preprocess(observation: Tensor, *, symlog_states: bool = False) -> Tensor:
    """Images (uint8) to [-0.5, 0.5]; state observations as they are, or their symlog."""
    if observation.dtype != torch.uint8:
        return torch.sign(observation) * torch.log1p(observation.abs()) if symlog_states else observation
    return observation.to(torch.get_default_dtype()) / 255 - 0.5


def clip_reward(reward: Tensor, how: Literal["identity", "sign", "tanh"]) -> Tensor:
    """Rewards as the reward head sees them."""
    return {"identity": lambda r: r, "sign": torch.sign, "tanh": torch.tanh}[how](reward)


def start_states(post: LatentState, batch: Mapping[str, Tensor]) -> LatentState:
    """Where imagination starts: in every state of a batch but those of padding and those that ended their episode.

    Args:
        post: model states [B, T, ...].
        batch: as the replay gives it.

    Returns:
        N states.
    """
    goes_on = batch["mask"] & (batch["discount"] > 0) if "mask" in batch else None
    return LatentState(*(unmasked(x, goes_on) for x in post))


def to_tensors(batch: Mapping[str, Array], device: str) -> dict[str, Tensor]:
    """A replay batch on `device`: on a CPU it shares memory with `batch`, to a GPU it travels while the CPU goes on."""
    tensors = {key: torch.as_tensor(value) for key, value in batch.items()}
    if torch.device(device).type != "cuda":
        return {key: tensor.to(device) for key, tensor in tensors.items()}
    # Only from pinned memory does a copy not wait. Its allocator gives none of it away before the copy is done.
    return {key: tensor.pin_memory().to(device, non_blocking=True) for key, tensor in tensors.items()}


class WorldModel(nn.Module):
    """Encoder, RSSM, decoder, reward head and, if episodes end early, continue head.

    Args:
        context: observation kind and shape, action size, whether episodes end early.
        config: sizes and loss settings.

    Attributes:
        embed_dim: size of the embeddings (E).
    """

    def __init__(self, context: AgentContext, config: WorldModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.decoder: nn.Module
        units = config.mlp_units
        if context.observation_kind == "pixels":
            self.encoder = encoder = ConvEncoder(config.conv_depth)
            self.embed_dim = encoder.embed_dim
        else:
            self.encoder, self.embed_dim = MLP(context.observation_shape[0], units, None, norm=True), units[-1]
        self.rssm = RSSM(
            self.embed_dim,
            context.action_dim,
            deter=config.deter,
            hidden=config.hidden,
            latents=config.latents,
        )
        if context.observation_kind == "pixels":
            self.decoder = ConvDecoder(self.rssm.feat_dim, config.conv_depth, elu_output=config.elu_images)
        else:
            self.decoder = MLP(self.rssm.feat_dim, units, context.observation_shape[0], norm=True)
        self.reward_head = MLP(self.rssm.feat_dim, units, 1)
        self.continue_head = MLP(self.rssm.feat_dim, units, 1) if context.ends_early else None
        standardises = config.standardise_states and context.observation_kind == "states"
        self.standardiser = Standardiser(context.observation_shape[0]) if standardises else None

    def seen(self, observation: Tensor) -> Tensor:
        """Raw observations as encoder and decoder see them."""
        seen = preprocess(observation, symlog_states=self.config.symlog_states)
        if self.standardiser is None:
            return seen
        standardised: Tensor = self.standardiser(seen)
        return standardised

    def embed(self, observation: Tensor) -> Tensor:
        """Raw observations [..., O] or [..., 3, H, W] to embeddings [..., E]."""
        embedding: Tensor = self.encoder(self.seen(observation))
        return embedding

    def reward(self, feat: Tensor) -> Tensor:
        """Predicted reward [...] of model states [..., F]."""
        reward: Tensor = self.reward_head(feat).squeeze(-1)
        return reward

    def continues(self, feat: Tensor) -> Tensor | None:
        """The probability [...] that an episode goes on behind model states [..., F]; None where it always does."""
        return None if self.continue_head is None else self.continue_head(feat).squeeze(-1).sigmoid()

    def loss(self, batch: Mapping[str, Tensor], draws: Draws) -> WorldModelLoss:
        """KL + observation NLL + reward NLL + continue NLL, each a mean over batch and time, each with scale 1.

        Args:
            batch: `observation` [B, T, ...], `action` [B, T, A], `reward` [B, T], `is_first` [B, T]; if episodes end
                early also `discount` and `mask` [B, T].
            draws: of the latents.
        """
        mask = batch.get("mask")
        if self.standardiser is not None:
            observed = preprocess(batch["observation"], symlog_states=self.config.symlog_states)
            self.standardiser.update(unmasked(observed, mask))
        target = self.seen(batch["observation"])
        embed = self.encoder(target)
        post, prior = self.rssm.observe(batch["action"], embed, batch["is_first"], draws)
        balance, free_nats = self.config.kl_balance, self.config.free_nats
        model_loss, kl = kl_loss(
            self.rssm.latents, post.params, prior.params, balance=balance, free_nats=free_nats, mask=mask
        )
        feat = post.feat
        observation_nll = unit_normal_nll(self.decoder(feat), target, event_dims=target.dim() - 2)
        observation_loss = unmasked_mean(observation_nll, mask)
        # Published: the reward head learns from the states but does not shape them (see the configuration).
        reward_feat = feat if self.config.reward_shapes_model else feat.detach()
        reward = clip_reward(batch["reward"], self.config.reward_clip)
        reward_loss = unmasked_mean(unit_normal_nll(self.reward(reward_feat), reward), mask)
        loss = model_loss + observation_loss + reward_loss
        metrics = {
            "kl": unmasked_mean(kl, mask),
            "kl_loss": model_loss.detach(),
            "observation_loss": observation_loss.detach(),
            "reward_loss": reward_loss.detach(),
        }
        if self.continue_head is not None:
            logit = self.continue_head(feat).squeeze(-1)
            nll = F.binary_cross_entropy_with_logits(logit, batch["discount"], reduction="none")
            continue_loss = unmasked_mean(nll, mask)
            loss = loss + continue_loss
            metrics["continue_loss"] = continue_loss.detach()
        return WorldModelLoss(loss, post.detach(), kl, embed.detach(), metrics)
