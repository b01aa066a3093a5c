"""The pieces of a DDPG update from states that urlbench computes in another way than written, as they are written.

They are what the fast ones must equal (`tests/agents/ddpg/test_plain_ddpg.py`) and are measured against
(`ddpg_updates.py`).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor, nn

from urlbench.agents.common import knn_entropy
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.ddpg import backbone, proto
from urlbench.agents.ddpg.backbone import Transitions
from urlbench.agents.ddpg.icm import Curiosity
from urlbench.agents.ddpg.pretraining import Learned
from urlbench.agents.ddpg.rnd import RandomNetworkDistillation
from urlbench.core import precision


@torch.no_grad()
def soft_update(source: nn.Module, target: nn.Module, tau: float) -> None:
    """One parameter after the other, the equation as it is written."""
    for new, old in zip(source.parameters(), target.parameters(), strict=True):
        old.copy_(tau * new + (1 - tau) * old)


def optimiser_step(optimiser: Optimiser, loss: Tensor) -> Tensor:
    """Gradients of everything the loss went through, and Adam for one parameter after the other; nothing is clipped."""
    for group in optimiser._adam.param_groups:
        group["foreach"] = group["fused"] = False
    optimiser._adam.zero_grad()
    loss.backward()
    norm = torch.stack([one.grad.norm() for one in optimiser.parameters if one.grad is not None]).norm()
    optimiser._adam.step()
    return norm


@torch.no_grad()
def nearest_distances(x: Tensor, k: int) -> Tensor:
    """Distances [N, k] of each row of `x` [N, D] to its k nearest, itself included, from all differences."""
    return (x.unsqueeze(1) - x).norm(dim=-1).topk(k, largest=False).values


def neighbour_distance(x: Tensor, others: Tensor, rank: int) -> Tensor:
    """Distance [N] of each row of `x` [N, D] to its neighbour of that rank in `others` [Q, D], from all differences."""
    return (x.unsqueeze(1) - others).norm(dim=-1).topk(rank, largest=False).values[:, -1]


def learn_curiosity(self: Curiosity, batch: Transitions, draws: Draws) -> Learned:
    """Both models judge a second time, though only the forward one is asked."""
    next_obs = batch.next_obs.detach()
    forward, inverse = self.dynamics.errors(batch.obs, batch.action, next_obs)
    self.optimisers["model"].step(forward.mean() + inverse.mean())
    with torch.no_grad():
        error, _ = self.dynamics.errors(batch.obs, batch.action, next_obs)
    metrics = {"forward_error": forward.mean().detach(), "inverse_error": inverse.mean().detach()}
    return Learned(self.reward(error), metrics)


def learn_distillation(self: RandomNetworkDistillation, batch: Transitions, draws: Draws) -> Learned:
    """The target network, which never changes, is asked twice."""
    seen = batch.images if batch.images is not None else (batch.obs, batch.next_obs)
    observation = self.normalise(seen[0 if self.config.rewarded == "obs" else 1])
    loss = self.errors(observation, self.target(observation)).mean()
    self.optimisers["predictor"].step(loss)
    with torch.no_grad():
        error = self.errors(observation, self.target(observation))
    self.moments.update(error)
    reward = self.config.reward_scale * error / (self.moments.var.sqrt() + 1e-8)
    return Learned(reward, {"prediction_error": loss.detach()})


@contextmanager
def plain_pieces() -> Iterator[None]:
    """Inside, agents update with the pieces above. An agent does one or the other all its life: Adam's kind stays."""
    with ExitStack() as stack:
        for place, name, piece in (
            (backbone, "soft_update", soft_update),
            (proto, "soft_update", soft_update),
            (proto, "neighbour_distance", neighbour_distance),
            (knn_entropy, "nearest_distances", nearest_distances),
            (Optimiser, "step", optimiser_step),
            (Curiosity, "learn", learn_curiosity),
            (RandomNetworkDistillation, "learn", learn_distillation),
            (precision, "_onednn_keeps_float32", lambda: False),
        ):
            stack.enter_context(mock.patch.object(place, name, piece))
        yield
