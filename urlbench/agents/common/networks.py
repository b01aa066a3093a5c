"""Multi-layer perceptrons and the convolutional encoder and decoder.

Initialisation is PyTorch's default everywhere, as in the released Choreographer code; activations are ELU.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class MLP(nn.Module):
    """Hidden layers (linear, optional layer norm, activation) and an optional linear output layer.

    Source: Mazzaglia et al. 2023 (Choreographer), app. B.1.

    Args:
        inputs: size of the input.
        hidden: sizes of the hidden layers.
        outputs: size of the output; None ends with the last hidden layer.
        norm: layer norm after every hidden linear layer.
        activation: in place, which autograd allows after a linear layer or a norm; ELU in the networks of Dreamer
            agents, ReLU elsewhere.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int | None,
        *,
        norm: bool = False,
        activation: Callable[[Tensor], Tensor] = F.elu_,
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [inputs, *hidden]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in hidden) if norm else None
        self.out = None if outputs is None else nn.Linear(sizes[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        for i, linear in enumerate(self.linears):
            x = linear(x)
            if self.norms is not None:
                x = self.norms[i](x)
            x = self.activation(x)
        return x if self.out is None else self.out(x)


class ConvEncoder(nn.Module):
    """Four convolutions, kernel 4, stride 2, ELU: [..., 3, 64, 64] to [..., 32 * depth].

    Source: Choreographer, app. B.1; Hafner et al. 2021 (DreamerV2).

    Args:
        depth: channels of the first layer; each next one doubles them.
    """

    def __init__(self, depth: int = 48) -> None:
        super().__init__()
        channels = [3, depth, 2 * depth, 4 * depth, 8 * depth]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 4, 2) for a, b in itertools.pairwise(channels))
        self.embed_dim = 32 * depth

    def forward(self, image: Tensor) -> Tensor:
        """Embed `image` [..., 3, 64, 64], values in [-0.5, 0.5]; channel-major flattening."""
        x = image.reshape(-1, *image.shape[-3:])
        for conv in self.convs:
            x = F.elu_(conv(x))
        return x.reshape(*image.shape[:-3], -1)


class ConvDecoder(nn.Module):
    """A linear layer and four transposed convolutions: [..., F] to [..., 3, 64, 64].

    Source: Choreographer, app. B.1; kernels 5, 5, 6, 6, stride 2, ELU between, identity at the end.

    Args:
        feat_dim: size of the model state.
        depth: as in `ConvEncoder`.
        elu_output: apply ELU to the image, too, as the released decoder of the Dreamer baselines does; Choreographer's
            does not. Pixels are above -0.5 and ELU's values above -1, so that it takes no image away.
    """

    def __init__(self, feat_dim: int, depth: int = 48, *, elu_output: bool = False) -> None:
        super().__init__()
        self.elu_output = elu_output
        self.linear = nn.Linear(feat_dim, 32 * depth)
        channels = [32 * depth, 4 * depth, 2 * depth, depth, 3]
        self.deconvs = nn.ModuleList(
            nn.ConvTranspose2d(a, b, kernel, 2)
            for a, b, kernel in zip(channels[:-1], channels[1:], (5, 5, 6, 6), strict=True)
        )

    def forward(self, feat: Tensor) -> Tensor:
        """The mean image [..., 3, 64, 64] for model states [..., F]."""
        x = F.elu_(self._from_one_pixel(self.linear(feat).reshape(-1, self.linear.out_features)))
        for deconv in self.deconvs[1:-1]:
            x = F.elu_(deconv(x))
        x = self.deconvs[-1](x)
        x = F.elu_(x) if self.elu_output else x
        return x.reshape(*feat.shape[:-1], *x.shape[1:])

    def _from_one_pixel(self, x: Tensor) -> Tensor:
        """The first transposed convolution, [N, channels] to [N, channels, 5, 5].

        Of a single pixel it is a product, and as one several times as fast on a CPU.
        """
        deconv = self.deconvs[0]
        assert isinstance(deconv, nn.ConvTranspose2d)
        assert deconv.bias is not None
        product = x @ deconv.weight.flatten(1)
        return product.unflatten(-1, deconv.weight.shape[1:]) + deconv.bias[:, None, None]


def orthogonal_(layer: nn.Module) -> None:
    """Draw the weights of a linear layer or convolution anew, orthogonal, and set its bias to 0; for `Module.apply`.

    Source: the initialisation released with URLB (Laskin et al. 2021): gain 1, convolutions that of ReLU.
    """
    if isinstance(layer, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(layer.weight, nn.init.calculate_gain("relu") if isinstance(layer, nn.Conv2d) else 1.0)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def relu_mlp(inputs: int, hidden: Sequence[int], outputs: int) -> MLP:
    """ReLU layers and a linear output layer, orthogonal weights."""
    module = MLP(inputs, hidden, outputs, activation=F.relu_)
    module.apply(orthogonal_)
    return module


def initialised(build: Callable[[], M], seed: int) -> M:
    """Run `build` with PyTorch's default initialisation drawn from `seed`, leaving the global stream as it was.

    PyTorch's initialisers take no generator, so this is the one place that touches the global one.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed other devices, too, whose streams are not put back.
        torch.default_generator.manual_seed(seed)
        return build()
