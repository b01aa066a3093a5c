"""Networks of the DDPG agents.

Source: Yarats et al. 2021 (DrQ-v2), app. B, in the shapes released with Laskin et al. 2021 (URLB): from states, trunks
as wide as the other layers, and one hidden layer behind them; from pixels, narrow trunks and two.
"""

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urlbench.agents.common import acting
from urlbench.agents.common.distributions import ClampedNormal
from urlbench.agents.common.networks import orthogonal_, relu_mlp
from urlbench.core.types import ObservationKind

SHIFT_PAD = 4


class Trunk(nn.Module):
    """Linear layer, layer norm, tanh: [..., inputs] to [..., outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(inputs, outputs), nn.LayerNorm(outputs)
        self.apply(orthogonal_)

    def forward(self, x: Tensor) -> Tensor:
        """Features in (-1, 1)."""
        return torch.tanh(self.norm(self.linear(x)))


class Policy(nn.Module):
    """The deterministic policy, to which noise is added.

    Args:
        inputs: size of the observation's features and the skill.
        action_dim: A.
        trunk: width of the trunk.
        hidden: sizes of the ReLU layers.
    """

    def __init__(self, inputs: int, action_dim: int, *, trunk: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk, self.head = Trunk(inputs, trunk), relu_mlp(trunk, hidden, action_dim)

    def forward(self, x: Tensor, std: float) -> ClampedNormal:
        """The action distribution at `x` [..., inputs] with the standard deviation `std`."""
        mean = torch.tanh(self.head(self.trunk(x)))
        return ClampedNormal(mean, torch.full_like(mean, std))


def acting_policy(net: Policy) -> Callable[[Tensor, float], ClampedNormal]:
    """The policy as actors ask it; see `common.acting`."""
    into, norm, head = acting.linear(net.trunk.linear), acting.layer_norm(net.trunk.norm), acting.mlp(net.head)

    def function(x: Tensor, std: float) -> ClampedNormal:
        mean = head(norm(into(x)).tanh_()).tanh_()
        return ClampedNormal(mean, torch.full_like(mean, std))

    return function


class TwinCritic(nn.Module):
    """Two action values on a shared trunk, or two successor features, which a task vector turns into values.

    Source: Fujimoto et al. 2018 (TD3) for the twins; Liu & Abbeel 2021 (APS), eq. 11, for the successor features.

    Args:
        inputs: as for `Policy`.
        action_dim: A.
        trunk: width of the trunk.
        hidden: sizes of the ReLU layers of each head.
        kind: from states the action enters the trunk, from pixels it joins behind it.
        task_dim: size of the successor features; None for plain values.
    """

    def __init__(
        self,
        inputs: int,
        action_dim: int,
        *,
        trunk: int,
        hidden: tuple[int, ...],
        kind: ObservationKind,
        task_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.kind, self.task_dim = kind, task_dim
        into_trunk, behind_trunk = (action_dim, 0) if kind == "states" else (0, action_dim)
        self.trunk = Trunk(inputs + into_trunk, trunk)
        self.heads = nn.ModuleList(relu_mlp(trunk + behind_trunk, hidden, task_dim or 1) for _ in range(2))

    def forward(self, x: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
        """Both values [2, N] of `action` [N, A] at `x` [N, inputs]; `task` [N, task_dim] for successor features."""
        if self.kind == "states":
            hidden = self.trunk(torch.cat([x, action], -1))
        else:
            hidden = torch.cat([self.trunk(x), action], -1)
        values = torch.stack([head(hidden) for head in self.heads])
        if self.task_dim is None:
            return values.squeeze(-1)
        assert task is not None, "successor features need a task"
        return (values * task).sum(-1)


class ImageEncoder(nn.Module):
    """Four 3x3 convolutions, strides 2, 1, 1, 1, ReLU: [N, C, H, W] to [N, F]; F is 39,200 from 84 x 84.

    Args:
        shape: [C, H, W] of the images.
        channels: of every convolution.
    """

    def __init__(self, shape: tuple[int, ...], channels: int = 32) -> None:
        super().__init__()
        sizes = [shape[0], *4 * (channels,)]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride) for (a, b), stride in zip(itertools.pairwise(sizes), (2, 1, 1, 1), strict=True)
        )
        self.apply(orthogonal_)
        height, width = ((side - 3) // 2 + 1 - 6 for side in shape[1:])
        self.features = channels * height * width

    def forward(self, image: Tensor) -> Tensor:
        """Features of `image`, values in [-0.5, 0.5]."""
        for conv in self.convs:
            image = F.relu(conv(image))
        return image.flatten(1)


def random_shift(image: Tensor, shift: Tensor, pad: int = SHIFT_PAD) -> Tensor:
    """Move each image by whole pixels, repeating its edges.

    Source: Yarats et al. 2021 (DrQ-v2), sec. 3.1. The released code resamples bilinearly at exact pixel centres,
    which is the same up to rounding.

    Args:
        image: [N, C, H, W].
        shift: [N, 2] integers in [0, 2 * pad], columns (x, y); `pad` leaves an image where it is.
        pad: the largest movement.

    Returns:
        [N, C, H, W].
    """
    height, width = image.shape[-2:]
    rows = (torch.arange(height, device=image.device) + shift[:, 1:] - pad).clamp(0, height - 1)
    columns = (torch.arange(width, device=image.device) + shift[:, :1] - pad).clamp(0, width - 1)
    number = torch.arange(len(image), device=image.device)[:, None, None]
    return image[number, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
