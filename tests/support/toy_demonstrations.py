"""A suite that pretrains from recorded demonstrations of other arrays and lengths than ExORL's, for `--plugin`.

Suite `toy-demonstrations` is `toy-early` pretrained from episodes without physics that have the `target` of each entry
in an array of its own, and end when they are there. Agent `toy-plain` is `toy-early`; `toy-scaled` also learns from the
targets, and scales observations by the statistics of the data, which it keeps for its fine-tuning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from toy_early import AGENT, SUITE as EARLY, EarlyAgent, EarlyConfig

from urlbench.core.interfaces import AgentContext, Array
from urlbench.core.registry import register_agent, register_suite
from urlbench.core.types import ArrayFormat, EpisodeFormat, Protocol, Suite

PLUGIN = str(Path(__file__).resolve())
COLLECTION = "people"
SIZES = {"observation": 2, "action": 1, "reward": 1, "discount": 1, "target": 1}


def demonstration(rng: np.random.Generator, steps: int) -> dict[str, Array]:
    """An episode that terminates after so many steps."""
    arrays = {key: rng.normal(size=(steps + 1, size)).astype(np.float32) for key, size in SIZES.items()}
    arrays["action"][0] = arrays["reward"][0] = 0
    arrays["discount"][:] = 1
    arrays["discount"][-1] = 0
    return arrays


def write_demonstrations(folder: Path, lengths: Sequence[int] = (3, 30, 7, 12, 1, 25, 40)) -> list[dict[str, Array]]:
    """Files of episodes with these lengths in `folder`, and what they hold."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    episodes = [demonstration(rng, steps) for steps in lengths]
    for number, (steps, episode) in enumerate(zip(lengths, episodes, strict=True)):
        np.savez(folder / f"episode_{number:06d}_{steps}.npz", **episode)  # type: ignore[arg-type]
    return episodes


class ScaledAgent(EarlyAgent):
    """Learns from the targets of demonstrations, too."""

    def __init__(self, context: AgentContext, config: EarlyConfig) -> None:
        super().__init__(context, config)
        self.told = context.data
        self.scale = torch.ones(2)
        if context.data is not None:
            self.scale = torch.as_tensor(context.data.observation_std)
        if not context.collects:
            self.recorded = {"target": (1,)}

    def _loss(self, batch: Mapping[str, Array]) -> torch.Tensor:
        loss = super()._loss({**batch, "observation": batch["observation"] / self.scale.numpy()})
        if "target" in batch:
            loss = loss + 0.1 * (self.model.bias[0] - torch.as_tensor(batch["target"])[batch["mask"]]).square().mean()
        return loss

    def for_finetuning(self, context: AgentContext) -> "ScaledAgent":
        agent = ScaledAgent(context, self.config)
        agent.model.load_state_dict(self.model.state_dict())
        agent.scale = self.scale
        return agent

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "scale": self.scale}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.scale = state["scale"]


DATA = EpisodeFormat(arrays={key: ArrayFormat(shape=(size,), dtype="float32") for key, size in SIZES.items()})
DEMONSTRATIONS = Suite.model_validate(
    EARLY.model_dump()
    | {
        "name": "toy-demonstrations",
        "description": "a point on a line, from demonstrations",
        "collection": COLLECTION,
        "domains": tuple(domain.model_copy(update={"data": DATA}) for domain in EARLY.domains),
        "protocols": {
            "smoke": Protocol(
                preset="smoke",
                description="tiny",
                pretrain_updates=20,
                data_transitions=60,
                snapshots=(10, 20),
                finetune_frames=40,
                eval_every_frames=20,
                eval_episodes=2,
            )
        },
    }
)

if __name__ == "urlbench_plugin_toy_demonstrations":
    register_suite(DEMONSTRATIONS)
    register_agent(replace(AGENT, name="toy-plain"))
    register_agent(replace(AGENT, name="toy-scaled", build=ScaledAgent, wants_data_statistics=True))
