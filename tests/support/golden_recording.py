"""A recorded topic: its arrays, how our modules take its weights, and the comparison with its results.

The layout of a folder of recordings: one `<topic>.npz` per topic with `in_*` (inputs), `w_*` (weights before any
update), `hp_*` (constants) and `out_*` (results), and an `index.json` with the tolerances. Randomness is replaced by
given numbers: arg-max latents, standard normal noise, drawn indices.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from urlbench.agents.common.distributions import NormalPolicy
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import CategoricalLatents
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.optimiser import Optimiser
from urlbench.agents.common.rssm import RSSM, NormedGRUCell


class Recording:
    """One topic in one precision, and what was compared with it so far.

    Attributes:
        largest: the largest relative error of each result compared so far.
    """

    def __init__(self, path: Path, dtype: torch.dtype, tolerance: float) -> None:
        with np.load(path, allow_pickle=False) as file:
            self.arrays = {name: file[name] for name in file.files}
        self.dtype, self.tolerance = dtype, tolerance
        self.largest: dict[str, float] = {}

    def __getitem__(self, name: str) -> Tensor:
        """The array `name`; numbers with a fraction in this recording's precision."""
        tensor = torch.from_numpy(np.array(self.arrays[name]))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """This recording's precision, for batches as a replay gives them."""
        return np.dtype(str(self.dtype).removeprefix("torch."))

    def hp(self, name: str) -> Any:
        """The constant `hp_<name>`."""
        return self.arrays[f"hp_{name}"].item()

    def names(self, prefix: str) -> list[str]:
        """The names of all arrays that start with `prefix`, without it."""
        return [name.removeprefix(prefix) for name in self.arrays if name.startswith(prefix)]

    def not_compared(self) -> set[str]:
        """The results that nothing was compared with."""
        return {f"out_{name}" for name in self.names("out_")} - set(self.largest)

    def compare(self, name: str, ours: Any, expected: Any = None) -> None:
        """Compare `ours` with the result `out_<name>`, or with `expected` derived from it.

        Raises:
            AssertionError: naming the result and the error, if shapes, integers or numbers differ.
        """
        ours = ours.detach().numpy() if isinstance(ours, Tensor) else np.asarray(ours)
        theirs = self.arrays[f"out_{name}"] if expected is None else np.asarray(expected)
        if theirs.ndim == ours.ndim + 1 and theirs.shape[-1] == 1:
            theirs = theirs[..., 0]  # recorded rewards, values and returns end with an axis of one
        assert ours.shape == theirs.shape, f"{name}: our shape {ours.shape}, recorded {theirs.shape}"
        if theirs.dtype.kind in "biu":
            wrong = int((ours != theirs).sum())
            assert not wrong, f"{name}: {wrong} of {theirs.size} integers differ"
            error = 0.0
        else:
            scale = np.abs(theirs).max() or 1.0
            error = float(np.abs(ours - theirs).max() / scale)
            assert error <= self.tolerance, f"{name}: relative error {error:.1e}, tolerance {self.tolerance:.0e}"
        self.largest[f"out_{name}"] = max(error, self.largest.get(f"out_{name}", 0.0))

    def compare_all(self, prefix: str, ours: dict[str, Tensor]) -> None:
        """Compare every recorded `out_<prefix><name>` of these names; at least one must be recorded."""
        recorded = [name for name in ours if f"out_{prefix}{name}" in self.arrays]
        assert recorded, f"nothing is recorded as out_{prefix}*"
        for name in recorded:
            self.compare(prefix + name, ours[name])

    # --- Our modules with the recorded weights ---

    def load(self, prefix: str, named: dict[str, nn.Parameter]) -> None:
        """Copy `w_<prefix><name>` into each parameter, all of which must be recorded and nothing else."""
        extra = set(self.names(f"w_{prefix}")) - set(named)
        assert not extra, f"weights that our module has not: {prefix}{sorted(extra)}"
        for name, parameter in named.items():
            weight = self[f"w_{prefix}{name}"]
            assert weight.shape == parameter.shape, f"{prefix}{name}: {weight.shape} is not our {parameter.shape}"
            parameter.data.copy_(weight)

    def _hidden(self, prefix: str) -> list[tuple[int, ...]]:
        weights = [f"w_{prefix}l{i}_w" for i in range(len(self.arrays)) if f"w_{prefix}l{i}_w" in self.arrays]
        return [self.arrays[name].shape for name in weights]

    def mlp(self, prefix: str, *, last_is_output: bool = False) -> MLP:
        """Our MLP in the shape of the recorded one."""
        hidden, output = self._hidden(prefix), self.arrays.get(f"w_{prefix}out_w")
        outputs = None if output is None else output.shape[0]
        if last_is_output:
            outputs = hidden.pop()[0]
        module = MLP(hidden[0][1], [shape[0] for shape in hidden], outputs, norm=f"w_{prefix}n0_g" in self.arrays)
        self.load(prefix, mlp_names(module, last_is_output=last_is_output))
        return module

    def policy(self, prefix: str) -> NormalPolicy:
        """Our policy network in the shape of the recorded one."""
        hidden = self._hidden(prefix)
        module = NormalPolicy(hidden[0][1], tuple(shape[0] for shape in hidden), self[f"w_{prefix}out_w"].shape[0])
        self.load(prefix, policy_names(module))
        return module

    def gru(self, weight: str, bias: str, gain: str | None = None, offset: str | None = None) -> NormedGRUCell:
        """Our cell with the recorded weights of these names."""
        gates, inputs = self.arrays[weight].shape
        cell = NormedGRUCell(inputs - gates // 3, gates // 3, norm=gain is not None)
        cell.linear.weight.data.copy_(self[weight])
        cell.linear.bias.data.copy_(self[bias])
        if gain is not None and offset is not None:
            assert cell.norm is not None
            cell.norm.weight.data.copy_(self[gain])
            cell.norm.bias.data.copy_(self[offset])
        return cell

    def rssm(self, variables: int, classes: int, prefix: str = "") -> RSSM:
        """Our RSSM in the shape of the recorded one."""
        hidden, inputs = self.arrays[f"w_{prefix}pre_w"].shape
        deter = self.arrays[f"w_{prefix}prior1_w"].shape[1]
        module = RSSM(
            self.arrays[f"w_{prefix}post1_w"].shape[1] - deter,
            inputs - variables * classes,
            deter=deter,
            hidden=hidden,
            latents=CategoricalLatents(variables, classes),
        )
        names = rssm_names(module)
        wanted = {name: names[name] for name in self.names(f"w_{prefix}") if name in names}
        assert len(wanted) == len(names), f"not recorded: {sorted(set(names) - set(wanted))}"
        for name, parameter in wanted.items():
            parameter.data.copy_(self[f"w_{prefix}{name}"])
        return module


def mlp_names(module: MLP, *, last_is_output: bool = False) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    named: dict[str, nn.Parameter] = {}
    for i, layer in enumerate(module.linears):
        named |= linear(f"l{i}", layer)
        if module.norms is not None:
            named |= {f"n{i}_g": module.norms[i].weight, f"n{i}_b": module.norms[i].bias}
    if module.out is not None:
        named |= linear(f"l{len(module.linears)}" if last_is_output else "out", module.out)
    return named


def policy_names(module: NormalPolicy) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    return mlp_names(module.trunk) | linear("out", module.mean) | linear("std", module.std)


def rssm_names(module: RSSM) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    named = linear("gru", module.cell.linear)
    assert module.cell.norm is not None
    named |= {"gru_ln_g": module.cell.norm.weight, "gru_ln_b": module.cell.norm.bias}
    for name in ("pre", "prior1", "prior2", "post1", "post2"):
        named |= linear(name, getattr(module, name))
    return named


def linear(name: str, layer: nn.Linear) -> dict[str, nn.Parameter]:
    """The layer's parameters by their recorded names."""
    return {f"{name}_w": layer.weight, f"{name}_b": layer.bias}


def prefixed(prefix: str, named: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    """The same parameters with longer names."""
    return {prefix + name: parameter for name, parameter in named.items()}


class GivenDraws(Draws):
    """Prescribed numbers in place of random ones; latents are the most likely classes.

    Attributes:
        row_probs: the probabilities, normalised, of every row drawn so far.
    """

    def __init__(
        self, noise: Iterable[Tensor] = (), skills: Iterable[Tensor] = (), rows: Iterable[Tensor] = ()
    ) -> None:
        super().__init__(0)
        self._noise, self._skills, self._rows = iter(noise), iter(skills), iter(rows)
        self.row_probs: list[Tensor] = []

    def latent(self, probs: Tensor) -> Tensor:
        return probs.argmax(-1)

    def skill(self, probs: Tensor) -> Tensor:
        return next(self._skills)

    def action_noise(self, mean: Tensor) -> Tensor:
        return next(self._noise)

    def row(self, probs: Tensor) -> Tensor:
        self.row_probs.append(probs / probs.sum())
        return next(self._rows)


class RecordingOptimiser(Optimiser):
    """Remembers the loss and the gradients of its last step, before clipping."""

    loss: Tensor
    gradients: tuple[Tensor, ...]
    norm: Tensor

    def step(self, loss: Tensor) -> Tensor:
        self.loss = loss.detach()
        self.gradients = torch.autograd.grad(loss, self.parameters, retain_graph=True)
        self.norm = super().step(loss)
        return self.norm

    def named_gradients(self, named: dict[str, nn.Parameter]) -> dict[str, Tensor]:
        """The gradients by the names of their parameters."""
        by_parameter = {id(p): g for p, g in zip(self.parameters, self.gradients, strict=True)}
        assert len(named) == len(by_parameter), f"{len(named)} names for {len(by_parameter)} gradients"
        return {name: by_parameter[id(parameter)] for name, parameter in named.items()}


def drawn(values: Tensor) -> Iterator[Tensor]:
    """The rows of `values` in turn."""
    return iter(values.unbind(0))
