"""Updates of agents with a world model whose filter and imagination are made of compiled steps, against those that are.

    python benchmarks/compiled_steps.py --output benchmarks/results/compiled_steps.json

`torch.compile` takes one step of the filter and one of imagination with its backward pass, which the loops then call:
a small graph, compiled once. The random numbers are drawn before, since a compiled function takes no generator.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import comparing
import one_update
import reporting
import torch
import torch.nn.functional as F
from torch import Tensor
from updates import Settings

from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import RSSM, LatentState
from urlbench.core import registry
from urlbench.core.types import Phase
from urlbench.training.assembly import set_up_torch

LEARNERS: tuple[tuple[str, Phase], ...] = (
    ("dreamer-lbs", "pretrain"),
    ("choreographer", "pretrain"),
    ("choreographer", "finetune"),
)


def advance(self: RSSM, stoch: Tensor, deter: Tensor, action: Tensor) -> Tensor:
    """`RSSM._advance`, nothing in place."""
    following: Tensor = self.cell(F.elu(self.pre(torch.cat([stoch.flatten(-2), action], -1))), deter)
    return following


def drawn(deter: Tensor, logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The latent state that `uniform` [N, V, 1] chooses."""
    probs = F.softmax(logits, -1)
    cdf = probs.detach().cumsum(-1)
    index = (cdf <= uniform * cdf[..., -1:]).sum(-1).clamp(max=probs.shape[-1] - 1)
    return F.one_hot(index, probs.shape[-1]).to(probs.dtype) + (probs - probs.detach()), deter, logits


@torch.compile(dynamic=False)
def imagine(self: RSSM, state: LatentState, action: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A step of imagination."""
    deter = advance(self, state.stoch, state.deter, action)
    return drawn(deter, self.latents.params(self.prior2(F.elu(self.prior1(deter)))), uniform)


@torch.compile(dynamic=False)
def observe(
    self: RSSM, state: LatentState, action: Tensor, embed_part: Tensor, is_first: Tensor, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of the filter."""
    keep = (~is_first).to(action.dtype).unsqueeze(-1)
    deter = advance(self, state.stoch * keep.unsqueeze(-1), state.deter * keep, action * keep)
    hidden = F.elu(F.linear(deter, self.post1.weight[:, : self.deter]) + embed_part)
    return drawn(deter, self.latents.params(self.post2(hidden)), uniform)


@contextmanager
def compiled_steps() -> Iterator[None]:
    """Inside, the loops call them."""

    def numbers(self: RSSM, action: Tensor, draws: Draws) -> Tensor:
        return draws.uniform(action.new_empty(len(action), self.latents.shape[0], 1))

    def imagine_step(self: RSSM, state: LatentState, action: Tensor, draws: Draws) -> LatentState:
        return LatentState(*imagine(self, state, action, numbers(self, action, draws)))

    def observe_step(
        self: RSSM, state: LatentState, action: Tensor, embed_part: Tensor, is_first: Tensor, draws: Draws
    ) -> LatentState:
        return LatentState(*observe(self, state, action, embed_part, is_first, numbers(self, action, draws)))

    with mock.patch.object(RSSM, "imagine_step", imagine_step), mock.patch.object(RSSM, "_observe", observe_step):
        yield


def measure(preset: str, updates: int, repetitions: int) -> Iterator[tuple[comparing.Row, float]]:
    """The update of each learner, and CPU seconds of the first compiled one."""
    set_up_torch("cpu", 1)
    for name, phase in LEARNERS:
        settings = Settings(preset=preset, observation="states", updates=1, seconds=0, threads=1)
        spec = registry.load_agent(name)
        agent = one_update.build(spec, phase, settings)
        batch = one_update.play(agent, agent.actor(evaluation=False, seed=1), one_update.context(spec, settings))

        def learn(agent=agent, batch=batch) -> None:  # type: ignore[no-untyped-def]
            for _ in range(updates):
                agent.update(batch)

        def learn_compiled(learn=learn) -> None:  # type: ignore[no-untyped-def]
            with compiled_steps():
                learn()

        begin = time.process_time()
        learn_compiled()
        first = time.process_time() - begin
        seconds = comparing.take_turns(learn_compiled, learn, repetitions)
        what = f"update of {name}, {preset}, {phase}: compiled steps"
        yield comparing.row(what, *seconds, unit="CPU s", scale=1 / updates), first


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="Updates with compiled steps of the world model.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--preset", default="small", help="(%(default)s)")
    parser.add_argument("--updates", type=int, default=5, help="of a repetition (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=7, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    machine, rows, first = reporting.describe_machine(threads=1), [], []
    for row, seconds in measure(given.preset, given.updates, given.repetitions):
        print(row.what, file=sys.stderr, flush=True)
        rows.append(row)
        first.append(seconds)
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, repetitions=given.repetitions, first_seconds=first)


if __name__ == "__main__":
    main()
