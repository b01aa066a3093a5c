"""The pieces of a world-model agent's update that urlbench computes in another way than written, as they are written.

They are what the fast ones must equal (`tests/test_plain_update.py`) and are measured against (`update_speed.py`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents import knn_entropy
from urlbench.agents.draws import Draws
from urlbench.agents.networks import MLP
from urlbench.agents.optimiser import Optimiser
from urlbench.agents.rssm import RSSM, LatentState, NormedGRUCell


@torch.no_grad()
def nearest_distances(x: Tensor, k: int) -> Tensor:
    """Distances [N, k] of each row of `x` [N, D] to its k nearest, itself included, from all N x N at once."""
    x = x - x.mean(0)
    squared = (x * x).sum(-1)
    distance = (squared[:, None] + squared - 2 * x @ x.T).fill_diagonal_(0)
    return distance.clamp(min=0).sqrt().topk(k, largest=False).values


def mlp(self: MLP, x: Tensor) -> Tensor:
    """Activations [..., outputs] for [..., inputs], none of them in place."""
    activation = F.relu if self.activation is F.relu_ else F.elu
    for i, linear in enumerate(self.linears):
        x = linear(x)
        x = activation(x if self.norms is None else self.norms[i](x))
    return x if self.out is None else self.out(x)


def gru_cell(self: NormedGRUCell, x: Tensor, deter: Tensor) -> Tensor:
    """The next state [..., D], the equation as it is written."""
    gates = self.linear(torch.cat([x, deter], -1))
    reset, candidate, update = (gates if self.norm is None else self.norm(gates)).chunk(3, -1)
    candidate = torch.tanh(torch.sigmoid(reset) * candidate)
    update = torch.sigmoid(update + self.UPDATE_BIAS)
    return update * candidate + (1 - update) * deter


def observe(
    self: RSSM, action: Tensor, embed: Tensor, is_first: Tensor, draws: Draws
) -> tuple[LatentState, LatentState]:
    """Posterior and prior [B, T, ...], both of one step after the other, with the embedding next to the state."""
    state, posts, priors = self.initial(len(action)), list[LatentState](), list[LatentState]()
    for t in range(action.shape[1]):
        keep = (~is_first[:, t]).to(action.dtype).unsqueeze(-1)
        deter = self._advance(state.stoch * keep.unsqueeze(-1), state.deter * keep, action[:, t] * keep)
        hidden = F.elu(self.post1(torch.cat([deter, embed[:, t]], -1)))
        state = self._draw(deter, self._unflatten(self.post2(hidden)), draws)
        posts.append(state)
        priors.append(state._replace(logits=self.prior_logits(deter)))
    post, prior = (LatentState(*(torch.stack(x, 1) for x in zip(*states, strict=True))) for states in (posts, priors))
    return post, prior


def index(self: Draws, probs: Tensor) -> Tensor:
    """Classes [...] drawn from `probs` [..., C]: the first whose cumulative probability is above a uniform number."""
    cdf = probs.cumsum(-1)
    uniform = torch.rand((*probs.shape[:-1], 1), generator=self._generator, device=probs.device, dtype=probs.dtype)
    drawn = torch.searchsorted(cdf, uniform * cdf[..., -1:], right=True)
    return drawn.squeeze(-1).clamp(max=probs.shape[-1] - 1)


def optimiser_step(self: Optimiser, loss: Tensor) -> Tensor:
    """Gradients, their norm, their clipping, decay and Adam, for one parameter after the other."""
    for group in self._adam.param_groups:
        group["foreach"] = group["fused"] = False
    gradients = torch.autograd.grad(loss, self.parameters)
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
    limit = self._config.clip_norm
    with torch.no_grad():
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient if limit is None else gradient * (limit / (norm + 1e-6)).clamp(max=1)
        for decayed in self._decayed:
            decayed.mul_(1 - self._config.weight_decay)
    self._adam.step()
    self._adam.zero_grad()
    return norm.detach()


@contextmanager
def plain_pieces() -> Iterator[None]:
    """Inside, agents update with the pieces above. An agent does one or the other all its life: Adam's kind stays."""
    with ExitStack() as stack:
        pieces: tuple[tuple[object, str, object], ...] = (
            (knn_entropy, "nearest_distances", nearest_distances),
            (MLP, "forward", mlp),
            (NormedGRUCell, "forward", gru_cell),
            (nn.functional, "elu_", F.elu),
            (RSSM, "observe", observe),
            (Draws, "_index", index),
            (Optimiser, "step", optimiser_step),
        )
        for place, name, piece in pieces:
            stack.enter_context(mock.patch.object(place, name, piece))
        yield
