"""Skill discovery: a vector-quantised auto-encoder of the world model's deterministic states.

Source: Mazzaglia et al. 2023 (Choreographer), sec. 3.2 and app. B.1; van den Oord et al. 2017 (VQ-VAE), app. A.1.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser
from urlbench.core.precision import products_in
from urlbench.core.types import Spec


class SkillConfig(Spec):
    """Defaults: the released Choreographer code.

    Attributes:
        codes: skills (K).
        code_dim: size of a code.
        decay: of the moving averages that hold the codes.
        commitment: weight of the commitment loss (beta). Both losses are means over rows and dimensions, where
            the paper writes squared norms.
        lr: the paper says 3e-4; the published numbers were made with the actors' 8e-5.
        resampling: re-initialise codes that no state was assigned to; False is the paper's ablation.
        resample_every: updates between two resamplings (M).
        resample_power: codes are re-initialised with states drawn in proportion to their distance from the
            codes to this power: 1 in the released code, 2 in the paper (sec. 3.2).
        count_empty_as_one: the released code counts an empty code as assigned once, so that it shrinks towards
            the origin until it is resampled; False lets it decay like textbook moving averages.
    """

    codes: int = 64
    code_dim: int = 16
    units: tuple[int, ...] = (400, 400, 400, 400)
    decay: float = 0.99
    commitment: float = 1e-4
    lr: float = 8e-5
    resampling: bool = True
    resample_every: int = 200
    resample_power: Literal[1, 2] = 1
    count_empty_as_one: bool = True


class Quantised(NamedTuple):
    """What the codebook makes of embeddings.

    Attributes:
        code: the nearest codes, with the gradient of the embeddings (straight-through), [N, D].
        assigned: which ones, [N].
    """

    code: Tensor
    assigned: Tensor


class Codebook(nn.Module):
    """Codes held as exponential moving averages of the embeddings assigned to them.

    As released, the cluster sizes start at 0 while the sums start at the codes, so the first update throws
    codes far away; resampling repairs it.

    Attributes:
        codes: [K, D], row k is code k.
        usage: assignments since the last resampling, [K].
    """

    EPS = 1e-5

    codes: Tensor
    embed_avg: Tensor
    cluster_size: Tensor
    usage: Tensor

    def __init__(self, codes: int, dim: int, decay: float, *, count_empty_as_one: bool = True) -> None:
        super().__init__()
        self.decay, self.count_empty_as_one = decay, count_empty_as_one
        self.register_buffer("codes", torch.rand(codes, dim))
        self.register_buffer("embed_avg", self.codes.clone())
        self.register_buffer("cluster_size", torch.zeros(codes))
        self.register_buffer("usage", torch.zeros(codes))

    @products_in("float32")
    def quantise(self, x: Tensor) -> Quantised:
        """Replace embeddings [N, D] by their nearest codes."""
        index = torch.cdist(x.detach(), self.codes).argmin(-1)
        return Quantised(x + (self.codes[index] - x).detach(), index)

    @torch.no_grad()
    def update(self, x: Tensor, index: Tensor) -> None:
        """Move the codes towards embeddings `x` [N, D] assigned to codes `index` [N]."""
        assigned = F.one_hot(index, len(self.codes)).to(x.dtype)
        count = assigned.sum(0)
        self.usage += count
        if self.count_empty_as_one:
            count = count.clamp(min=1)
        self.cluster_size.mul_(self.decay).add_((1 - self.decay) * count)
        self.embed_avg.mul_(self.decay).add_((1 - self.decay) * (assigned.T @ x))
        total = self.cluster_size.sum()
        smoothed = (self.cluster_size + self.EPS) / (total + len(self.codes) * self.EPS) * total
        self.codes.copy_(self.embed_avg / smoothed.unsqueeze(-1))

    @torch.no_grad()
    @products_in("float32")
    def resample(self, x: Tensor, draws: Draws, power: Literal[1, 2] = 1) -> tuple[int, int]:
        """Re-initialise unused codes with embeddings far from every code, one after the other.

        Cluster sizes stay as they are, as released; usage counts start again.

        Args:
            x: embeddings of the current batch, [N, D].
            draws: of the rows.
            power: of the distance in the drawing probabilities.

        Returns:
            How many codes were unused, and how many of them were replaced.
        """
        unused = (self.usage == 0).nonzero().flatten().tolist()
        resampled = 0
        for code in unused:
            distance = torch.cdist(x, self.codes).amin(-1) ** power
            if not bool(distance.any()):
                break
            chosen = x[draws.row(distance)]
            self.codes[code] = chosen
            self.embed_avg[code] = chosen
            resampled += 1
        self.usage.zero_()
        return len(unused), resampled


class SkillAutoEncoder(nn.Module):
    """Encoder, codebook and decoder over deterministic states, or whatever has D numbers; skill k is code k.

    Args:
        deter: size of the deterministic state (D).
        config: sizes and settings.
        networks: another encoder, [N, D] to [N, code_dim], and decoder, back, than the usual ones.
    """

    updates: Tensor

    def __init__(self, deter: int, config: SkillConfig, *, networks: tuple[nn.Module, nn.Module] | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder: nn.Module
        self.decoder: nn.Module
        self.encoder, self.decoder = networks or (
            MLP(deter, config.units, config.code_dim, norm=True),
            MLP(config.code_dim, config.units, deter, norm=True),
        )
        self.codebook = Codebook(
            config.codes, config.code_dim, config.decay, count_empty_as_one=config.count_empty_as_one
        )
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def networks(self) -> list[nn.Parameter]:
        """The parameters that the loss trains; the codes move by averages instead."""
        return [*self.encoder.parameters(), *self.decoder.parameters()]

    def learn(self, deter: Tensor, optimiser: Optimiser, draws: Draws) -> dict[str, Tensor | float]:
        """One update of networks and codes; a resampling every `resample_every` updates.

        Args:
            deter: detached deterministic states [N, D].
            optimiser: of `networks()`.
            draws: of the rows that replace unused codes.

        Returns:
            Scalars by name.
        """
        embedding = self.encoder(deter)
        quantised = self.codebook.quantise(embedding)
        reconstruction_loss = F.mse_loss(self.decoder(quantised.code), deter)
        commitment_loss = F.mse_loss(embedding, quantised.code.detach())
        self.codebook.update(embedding.detach(), quantised.assigned)
        grad_norm = optimiser.step(reconstruction_loss + self.config.commitment * commitment_loss)
        metrics: dict[str, Tensor | float] = {
            "skill_reconstruction_loss": reconstruction_loss.detach(),
            "skill_commitment_loss": commitment_loss.detach(),
            "skill_grad_norm": grad_norm,
            "codes_in_batch": float(len(quantised.assigned.unique())),
        }
        self.updates += 1
        if self.config.resampling and int(self.updates) % self.config.resample_every == 0:
            with torch.no_grad():
                embedding = self.encoder(deter)  # with the encoder that was just updated, as released
            unused, resampled = self.codebook.resample(embedding, draws, self.config.resample_power)
            metrics |= {"unused_codes": float(unused), "resampled_codes": float(resampled)}
        return metrics

    def code_reward(self, skill: Tensor, deter: Tensor, *, squared: bool = False) -> Tensor:
        """How close a state is to the one its skill stands for: -||D(c_k) - h||.

        Source: Choreographer, eq. 6; the norm is unsquared as in its app. B and the released code, its main
        text squares it.

        Args:
            skill: skill indices [N].
            deter: imagined deterministic states [H + 1, N, D]; the gradient flows into them alone.
            squared: the main text's form.

        Returns:
            [H + 1, N].
        """
        with torch.no_grad():
            goal = self.decoder(self.codebook.codes)[skill]
        distance = torch.linalg.vector_norm(goal - deter, dim=-1)
        return -(distance**2) if squared else -distance
