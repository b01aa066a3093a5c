"""The recurrent state-space model: deterministic path, stochastic latents, prior and posterior.

Source: Hafner et al. 2021 (DreamerV2), sec. 2; sizes as in Choreographer, app. B.1.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import Latents


class LatentState(NamedTuple):
    """A model state.

    Attributes:
        stoch: V variables of C numbers, [..., V, C]: one-hot, say; `Latents` says.
        deter: deterministic state, [..., D].
        params: of the distribution that `stoch` was drawn from, [..., V, P]: logits, say.
    """

    stoch: Tensor
    deter: Tensor
    params: Tensor

    @property
    def feat(self) -> Tensor:
        """[flattened stoch, deter], [..., V * C + D]: what heads, policies and critics see."""
        return torch.cat([self.stoch.flatten(-2), self.deter], -1)

    def detach(self) -> "LatentState":
        """The same values without a gradient."""
        return LatentState(*(x.detach() for x in self))

    def flatten_batch(self) -> "LatentState":
        """[B, T, ...] to [B * T, ...], row by row."""
        return LatentState(*(x.flatten(0, 1) for x in self))


class NormedGRUCell(nn.Module):
    """A GRU cell with one linear layer, layer norm over all gates, and an update bias of -1.

    The reset gate multiplies the candidate's whole pre-activation, unlike in the textbook GRU.

    Args:
        inputs: size of the input.
        deter: size of the state (D).
        norm: layer norm on the 3 * D pre-activations; published models have it.
    """

    UPDATE_BIAS = -1.0

    def __init__(self, inputs: int, deter: int, *, norm: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs + deter, 3 * deter)
        self.norm = nn.LayerNorm(3 * deter) if norm else None

    def forward(self, x: Tensor, deter: Tensor) -> Tensor:
        """The next state [..., D] from input [..., inputs] and state [..., D]."""
        gates = self.linear(torch.cat([x, deter], -1))
        if self.norm is not None:
            gates = self.norm(gates)
        reset, candidate, update = gates.chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update + self.UPDATE_BIAS)
        return torch.lerp(deter, candidate, update)


class RSSM(nn.Module):
    """Filters observations into model states and predicts them without observations.

    Args:
        embed_dim: size of the encoder's output.
        action_dim: A.
        deter: D.
        hidden: width of the layers around the cell.
        latents: the stochastic state's distribution.
    """

    def __init__(self, embed_dim: int, action_dim: int, *, deter: int, hidden: int, latents: Latents) -> None:
        super().__init__()
        self.deter, self.latents, self.action_dim = deter, latents, action_dim
        self.pre = nn.Linear(latents.size + action_dim, hidden)
        self.cell = NormedGRUCell(hidden, deter)
        self.prior1 = nn.Linear(deter, hidden)
        self.prior2 = nn.Linear(hidden, latents.outputs)
        self.post1 = nn.Linear(deter + embed_dim, hidden)
        self.post2 = nn.Linear(hidden, latents.outputs)

    @property
    def feat_dim(self) -> int:
        """Size of `LatentState.feat`."""
        return self.latents.size + self.deter

    def initial(self, batch: int) -> LatentState:
        """The all-zero state of `batch` sequences."""
        weight = self.pre.weight
        params = self.latents.params(weight.new_zeros(batch, self.latents.outputs))
        return LatentState(weight.new_zeros(batch, *self.latents.shape), weight.new_zeros(batch, self.deter), params)

    def imagine_step(self, state: LatentState, action: Tensor, draws: Draws) -> LatentState:
        """The predicted next state after `action` [N, A] in `state` [N]; stoch is drawn from the prior."""
        deter = self._advance(state.stoch, state.deter, action)
        return self._draw(deter, self.prior(deter), draws)

    def observe_step(
        self, state: LatentState, action: Tensor, embed: Tensor, is_first: Tensor, draws: Draws
    ) -> LatentState:
        """The posterior after `action` [B, A] led from `state` to an observation with `embed` [B, E].

        Where `is_first` [B] is true, the previous state and action are zeroed.
        """
        return self._observe(state, action, self._embed_part(embed), is_first, draws)

    def observe(self, action: Tensor, embed: Tensor, is_first: Tensor, draws: Draws) -> tuple[LatentState, LatentState]:
        """Filter sequences from the zero state.

        Args:
            action: the one that led to each observation, [B, T, A].
            embed: [B, T, E].
            is_first: [B, T] bool.
            draws: of the posterior latents.

        Returns:
            Posterior and prior, [B, T, ...]. The prior's `stoch` is not drawn, since only its parameters matter: it
            is the posterior's.
        """
        embed_part = self._embed_part(embed)  # the embedding's projection needs no recurrence: once for all T
        state, states = self.initial(len(action)), []
        for t in range(action.shape[1]):
            state = self._observe(state, action[:, t], embed_part[:, t], is_first[:, t], draws)
            states.append(state)
        post = LatentState(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))
        return post, post._replace(params=self.prior(post.deter))

    def prior(self, deter: Tensor) -> Tensor:
        """Parameters [..., V, P] of the latents at `deter` [..., D]."""
        return self.latents.params(self.prior2(F.elu_(self.prior1(deter))))

    def _observe(
        self, state: LatentState, action: Tensor, embed_part: Tensor, is_first: Tensor, draws: Draws
    ) -> LatentState:
        keep = (~is_first).to(action.dtype).unsqueeze(-1)
        deter = self._advance(state.stoch * keep.unsqueeze(-1), state.deter * keep, action * keep)
        hidden = F.elu_(F.linear(deter, self.post1.weight[:, : self.deter]) + embed_part)
        return self._draw(deter, self.latents.params(self.post2(hidden)), draws)

    def _embed_part(self, embed: Tensor) -> Tensor:
        return F.linear(embed, self.post1.weight[:, self.deter :], self.post1.bias)

    def _advance(self, stoch: Tensor, deter: Tensor, action: Tensor) -> Tensor:
        x = F.elu_(self.pre(torch.cat([stoch.flatten(-2), action], -1)))
        next_deter: Tensor = self.cell(x, deter)
        return next_deter

    def _draw(self, deter: Tensor, params: Tensor, draws: Draws) -> LatentState:
        return LatentState(self.latents.sample(params, draws), deter, params)
