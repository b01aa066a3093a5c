"""Features whose direction is a task, and how a task's direction is found from its rewards.

Source: Liu & Abbeel 2021, "APS: Active Pretraining with Successor Features".
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def task_reward(phi: Tensor, task: Tensor) -> Tensor:
    """Inner product [...] of unit features and a task, from features [..., K] and tasks [..., K]."""
    return (task * F.normalize(phi, dim=-1)).sum(-1)


def solve_task(phi: Tensor, reward: Tensor, solver: Literal["swapped", "least_squares"]) -> Tensor:
    """The direction w [K] for which phi w is near the rewards; without a finite length if they say nothing.

    Source: Liu & Abbeel 2021 (APS), eq. 13.

    Args:
        phi: features [N, K].
        reward: [N].
        solver: the released code hands the least-squares solver its arguments the wrong way round, which gives the
            reward-weighted mean of the features (`swapped`); the paper has `least_squares`.
    """
    if solver == "swapped":
        task = (reward @ phi) / (reward @ reward)
    else:
        # The normal equations in float64: a solver of the whole system rounds differently from call to call, depending
        # on where its workspace lies, and runs would no longer be repeatable bit for bit.
        x, y = phi.double(), reward.double()
        task = (torch.linalg.pinv(x.T @ x, hermitian=True) @ (x.T @ y)).to(phi.dtype)
    return task / task.norm()
