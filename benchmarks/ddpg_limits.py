"""What bounds an update and an action of DDPG from states, and what other ways of computing them give.

    python benchmarks/ddpg_limits.py --output benchmarks/results/ddpg_limits.json

The first row compares an update with its 16 products of 1024 x 1024 matrices alone, counted in `Backbone.learn`: the
policy twice forward (1 each) and once backward (2), the critic and its target three times forward (2 each), the critic
backward with its weights (4) and without (2). The next compare it with updates that
* multiply by MKL, torch's default, also where oneDNN's float32 would be taken (`urlbench.core.precision.many_rows`);
* multiply in bfloat16, on CPUs that can: other numbers;
* run both critic heads as one batched product;
* have policy and critics compiled by inductor.
Four agents in one process, their parameters stacked, would multiply batches of four: those products are compared with
the same ones each for itself, in the sizes of `paper` and `small`. Last, an action is compared with reading the 4 MiB
of its largest layer once, which is more than stays near a core, and with those that multiply by oneDNN, as updates
do, or whose policy is compiled.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import comparing
import one_update
import reporting
import torch
from torch import Tensor
from updates import Settings

from urlbench.agents.ddpg import learner as acting_agents
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.ddpg.networks import TwinCritic, acting_policy
from urlbench.core import precision, registry
from urlbench.core.interfaces import Actor, Array
from urlbench.training.assembly import set_up_torch

SETTINGS = Settings(preset="paper", observation="states", updates=1, seconds=0, threads=1)
ACTIONS = 200
AGENTS = 4
PRODUCTS = 2 * 1 + 2 + 3 * 2 + 4 + 2


def learner() -> DDPGLearner:
    """DDPG in the published sizes."""
    agent = one_update.build(registry.load_agent("ddpg"), "finetune", SETTINGS)
    assert isinstance(agent, DDPGLearner)
    return agent


def batched(self: TwinCritic, x: Tensor, action: Tensor, task: Tensor | None = None) -> Tensor:
    """`TwinCritic.forward` from states, both heads in one product a layer."""
    hidden = self.trunk(torch.cat([x, action], -1)).expand(2, -1, -1)
    layers = [[*head.linears, head.out] for head in self.heads]  # type: ignore[misc]
    for number, pair in enumerate(zip(*layers, strict=True)):
        weight, bias = (torch.stack([getattr(one, name) for one in pair]) for name in ("weight", "bias"))
        hidden = torch.baddbmm(bias.unsqueeze(1), hidden, weight.mT)
        if number + 1 < len(layers[0]):
            hidden = torch.relu(hidden)
    return hidden.squeeze(-1)


def compiled() -> DDPGLearner:
    """With policy and critics compiled."""
    agent = learner()
    for module in (agent.backbone.actor, agent.backbone.critic, agent.backbone.target):
        module.compile()
    return agent


def measure(repetitions: int) -> list[comparing.Row]:
    """All rows."""
    set_up_torch("cpu", 1)
    agent, stacked, inductor, mkl, half = learner(), learner(), compiled(), learner(), learner()
    batch = one_update.play(agent, agent.actor(evaluation=False, seed=1), agent.context)
    left, right = torch.randn(2, 1024, 1024)

    @precision.many_rows()
    def multiply() -> None:
        for _ in range(PRODUCTS):
            left @ right

    def learn_with_batched_heads() -> None:
        with mock.patch.object(TwinCritic, "forward", batched):
            stacked.update(batch)

    def learn_with_mkl() -> None:
        with mock.patch.object(precision, "_onednn_keeps_float32", return_value=False):
            mkl.update(batch)

    def learn_in_bfloat16() -> None:
        with precision.products_in("bfloat16"):
            half.update(batch)

    ways: dict[str, Callable[[], object]] = {
        "its 16 matrix products alone": multiply,
        "products by MKL": learn_with_mkl,
        "both heads in one product": learn_with_batched_heads,
        "compiled": lambda: inductor.update(batch),
    }
    if precision.rounds_factors("bfloat16", "cpu"):
        ways["products in bfloat16"] = learn_in_bfloat16
    rows = []
    for what, way in ways.items():
        way()
        seconds = comparing.take_turns(way, lambda: agent.update(batch), repetitions)
        rows.append(comparing.row(f"update of ddpg, paper: {what}", *seconds, unit="updates/s", per_second=1))
    return [*rows, *stacked_products(repetitions), *actions(agent, batch["observation"][0, 0], repetitions)]


def stacked_products(repetitions: int) -> Iterator[comparing.Row]:
    """Products of four agents at once and one after the other."""
    for preset, rows, width in (("paper", 1024, 1024), ("small", 256, 128)):
        left, right = torch.randn(AGENTS, rows, width), torch.randn(AGENTS, width, width)
        times = 2**30 // (rows * width**2)

        @precision.many_rows()
        def together(left: Tensor = left, right: Tensor = right, times: int = times) -> None:
            for _ in range(times):
                left @ right

        @precision.many_rows()
        def each(left: Tensor = left, right: Tensor = right, times: int = times) -> None:
            for _ in range(times):
                for one, other in zip(left, right, strict=True):
                    one @ other

        seconds = comparing.take_turns(together, each, repetitions)
        yield comparing.row(f"products of {AGENTS} agents, {preset}: stacked", *seconds, unit="ms", scale=1000 / times)


def actions(agent: DDPGLearner, observation: Array, repetitions: int) -> Iterator[comparing.Row]:
    """An action against reading its largest layer, and against other ways of computing it."""
    large = torch.randn(1024, 1024)  # as that layer

    def acting(actor: Actor) -> Callable[[], None]:
        actor.begin_episode()

        def act() -> None:
            for _ in range(ACTIONS):
                actor.act(observation, one_update.LATE_STEP)

        return act

    def read() -> None:
        for _ in range(ACTIONS):
            large.sum()

    act = acting(agent.actor(evaluation=False, seed=1))
    with mock.patch.object(acting_agents, "acting_policy", lambda policy: torch.compile(acting_policy(policy))):
        ways: dict[str, Callable[[], None]]
        ways = {"reading its largest layer alone": read, "compiled": acting(agent.actor(evaluation=False, seed=1))}
    ways["products by oneDNN"] = precision.many_rows()(act)
    for what, way in ways.items():
        seconds = comparing.take_turns(way, act, repetitions)
        yield comparing.row(f"action of ddpg, paper: {what}", *seconds, unit="ms", scale=1000 / ACTIONS)


def main() -> None:
    """Measure, print a table, write the numbers with what they were measured on."""
    parser = argparse.ArgumentParser(description="What bounds an update of DDPG, and other ways of computing it.")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--repetitions", type=int, default=5, help="after one to warm up (%(default)s)")
    given = parser.parse_args()
    machine = reporting.describe_machine(threads=1)
    rows = measure(given.repetitions)
    print(comparing.table(rows))
    if given.output is not None:
        comparing.write(given.output, machine, rows, repetitions=given.repetitions)


if __name__ == "__main__":
    main()
