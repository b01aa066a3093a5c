"""Networks as actors ask them: for one observation, without gradients, and without the calls of `nn.Module`.

For a single row, calling modules, looking their parameters up and keeping gradients possible takes most of an action's
time. The functions here return functions of the same values, bit for bit, that run the same kernels on the same
parameters, which they look up once: updates in place are seen, as those of optimisers and `load_state_dict` are.
`benchmarks/plain_acting.py` acts with the modules.
"""

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common.distributions import ClampedNormal, NormalPolicy
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.rssm import RSSM, LatentState

Function = Callable[[Tensor], Tensor]


class FilterStep(Protocol):
    """One step of `RSSM.observe_step`, for states that no episode begins with or that are all zero."""

    def __call__(self, state: LatentState, action: Tensor, embed: Tensor, draws: Draws) -> LatentState:
        """The posterior after `action` [N, A] led from `state` to an observation with `embed` [N, E]."""


def linear(layer: nn.Module) -> Function:
    """A linear layer."""
    assert isinstance(layer, nn.Linear), f"{layer} is not linear"
    weight, bias = layer.weight.detach().T, layer.bias
    return lambda x: torch.addmm(bias, x, weight)


def layer_norm(layer: nn.Module) -> Function:
    """A layer norm."""
    assert isinstance(layer, nn.LayerNorm), f"{layer} is not a layer norm"
    shape, weight, bias, eps = layer.normalized_shape, layer.weight, layer.bias, layer.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def mlp(net: MLP) -> Function:
    """An MLP."""
    steps: list[Function] = []
    for i, layer in enumerate(net.linears):
        steps.append(linear(layer))
        if net.norms is not None:
            steps.append(layer_norm(net.norms[i]))
        steps.append(net.activation)
    if net.out is not None:
        steps.append(linear(net.out))

    def function(x: Tensor) -> Tensor:
        for step in steps:
            x = step(x)
        return x

    return function


def encoder(net: nn.Module) -> Function:
    """An encoder of observations: an MLP, or nothing, from states; convolutions are slow however they are called."""
    if isinstance(net, MLP):
        return mlp(net)
    return (lambda x: x) if isinstance(net, nn.Identity) else net


def normal_policy(net: NormalPolicy) -> Callable[[Tensor], ClampedNormal]:
    """The policy of agents with a world model."""
    trunk, mean, std = mlp(net.trunk), linear(net.mean), linear(net.std)

    def function(x: Tensor) -> ClampedNormal:
        hidden = trunk(x)
        spread = std(hidden).div_(2).sigmoid_().mul_(2).add_(net.MIN_STD)
        return ClampedNormal(mean(hidden).tanh_(), spread)

    return function


def filter_step(rssm: RSSM) -> FilterStep:
    """The RSSM's filter."""
    pre, gates, post = linear(rssm.pre), linear(rssm.cell.linear), linear(rssm.post2)
    norm = (lambda x: x) if rssm.cell.norm is None else layer_norm(rssm.cell.norm)
    of_deter, of_embed = rssm.post1.weight.detach().T.split([rssm.deter, rssm.post1.in_features - rssm.deter])
    bias, update_bias, latents = rssm.post1.bias, rssm.cell.UPDATE_BIAS, rssm.latents

    def function(state: LatentState, action: Tensor, embed: Tensor, draws: Draws) -> LatentState:
        x = F.elu_(pre(torch.cat([state.stoch.flatten(-2), action], -1)))
        reset, candidate, update = norm(gates(torch.cat([x, state.deter], -1))).chunk(3, -1)
        candidate = reset.sigmoid().mul_(candidate).tanh_()
        update = (update + update_bias).sigmoid_()
        deter = torch.lerp(state.deter, candidate, update)
        hidden = F.elu_((deter @ of_deter).add_(torch.addmm(bias, embed, of_embed)))
        params = latents.params(post(hidden))
        return LatentState(latents.draw(params, draws), deter, params)

    return function
