"""What settings of the exploration policy find in a fixed world model: the short half of the search of `small`.

    python benchmarks/exploration_settings.py --runs runs/centred-slow --output found.json
    python benchmarks/exploration_settings.py --show found.json

A finished pretraining gives world model and surprise predictor, which stay as they are; its explorer and uniform
actions play what is learned from. Each setting trains a fresh policy and critic on the same batches, in imagination.
Afterwards the policy's means are imagined from the same states as uniform actions: the more surprise they find, the
better.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import reduced_preset
import reporting
import torch
from torch import Tensor

from urlbench.agents.choreographer.discovery import SkillDiscovery
from urlbench.agents.common.actor_critic import ActorCritic, imagine
from urlbench.agents.common.distributions import saturation
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.networks import initialised
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import to_tensors
from urlbench.core.interfaces import Environment
from urlbench.episodes.replay import Replay
from urlbench.training.assembly import set_up_torch

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "today": {"actor_lr": 1e-3, "centred_rewards": False},
    "slower": {"actor_lr": 3e-4, "centred_rewards": False},
    "slower, discount 0.8": {"actor_lr": 3e-4, "centred_rewards": False, "discount": 0.8},
    "slower, centred": {"actor_lr": 3e-4, "centred_rewards": True},
    "slow": {"actor_lr": 1e-4, "centred_rewards": False},
    "slow, discount 0.8": {"actor_lr": 1e-4, "centred_rewards": False, "discount": 0.8},
    "slow, centred": {"actor_lr": 1e-4, "centred_rewards": True},
}
COLUMNS = ("setting", "updates", "surprise found", "of uniform actions", "means saturated", "spread of means", "std")
EPISODES, STEPS = 4, 15  # of each kind; imagined


class Row(NamedTuple):
    """What a setting has found.

    Attributes:
        surprise: mean predicted surprise of imagined states that the policy's means lead to, in nats.
        uniform: that uniform actions lead to.
        saturation: share of the means beyond +-0.95.
        spread: standard deviation of the means over states, mean over action dimensions.
        std: of the policy.
    """

    setting: str
    updates: int
    surprise: float
    uniform: float
    saturation: float
    spread: float
    std: float


def load(runs: Path, seed: int) -> tuple[SkillDiscovery, Replay]:
    """The agent at the end of the pretraining in that folder, and what it and uniform actions play."""
    agent, environment = reduced_preset.pretrained(*reduced_preset.jobs_of(runs, seed)[0])
    agent.world_model.requires_grad_(False)
    agent.lbs.requires_grad_(False)
    replay = Replay(None, environment.observation_shape, np.float32, environment.action_dim, 10**6)
    environment.reseed(seed)
    for episode in range(2 * EPISODES):
        play(agent, environment, replay, episode, uniform=episode % 2 == 0)
    return agent, replay


def play(agent: SkillDiscovery, environment: Environment, replay: Replay, episode: int, *, uniform: bool) -> None:
    """An episode."""
    rng, actor = np.random.default_rng(episode), agent.actor(evaluation=False, seed=episode)
    timestep, step = environment.reset(), 0
    actor.begin_episode()
    replay.add(timestep)
    while not timestep.is_last:
        chosen = actor.act(timestep.observation, step)
        action = rng.uniform(-1, 1, environment.action_dim).astype(np.float32) if uniform else np.array(chosen)
        timestep, step = environment.step(action), step + 1
        replay.add(timestep, action)


def learn(agent: SkillDiscovery, replay: Replay, setting: str, updates: int) -> Row:
    """Train a fresh explorer and look at it."""
    config, model = agent.config, agent.world_model
    changed = config.actor_critic.model_copy(update=dict(SETTINGS[setting]))
    momentum, actions = config.exploration_momentum, agent.context.action_dim
    explorer = initialised(lambda: ActorCritic(model.rssm.feat_dim, actions, changed, reward_momentum=momentum), seed=0)
    optimisers, draws, rng = explorer.make_optimisers(config.optimiser), Draws(0), np.random.default_rng(0)
    metrics: Mapping[str, Tensor] = {}
    for _ in range(updates):
        start = states(agent, replay, rng, draws)
        imagined = explorer.imagine(model, start, draws)
        metrics = explorer.learn(imagined, agent.lbs.reward(imagined.trajectory.feat), optimisers)
    start, means = states(agent, replay, np.random.default_rng(1), Draws(1)), list[Tensor]()

    def follow(feat: Tensor, t: int) -> Tensor:
        means.append(explorer.actor(feat).mean)
        return means[-1]

    uniform = Draws(2)
    with torch.no_grad():
        found = imagine(model, start, follow, STEPS, Draws(3))
        noise = imagine(model, start, lambda feat, t: 2 * uniform.uniform(means[0]) - 1, STEPS, Draws(3))
        surprise, of_noise = (float(agent.lbs.reward(one.feat)[1:].mean()) for one in (found, noise))
    stacked = torch.stack(means)
    return Row(
        setting,
        updates,
        surprise,
        of_noise,
        float(saturation(stacked)),
        float(stacked.std((0, 1)).mean()),
        float(metrics["action_std"]),
    )


@torch.no_grad()
def states(agent: SkillDiscovery, replay: Replay, rng: np.random.Generator, draws: Draws) -> LatentState:
    """Model states of a batch."""
    batch = to_tensors(replay.sample(rng, agent.schedule.sampled[""]), "cpu")
    embed = agent.world_model.embed(batch["observation"])
    return agent.world_model.rssm.observe(batch["action"], embed, batch["is_first"], draws)[0].flatten_batch()


def table(rows: Sequence[Row]) -> str:
    """In Markdown."""
    return reporting.markdown_table(
        COLUMNS, [[row.setting, str(row.updates), *(f"{value:.3g}" for value in row[2:])] for row in rows]
    )


def main() -> None:
    """Train and look, print the table, write the numbers with what they were made on."""
    parser = argparse.ArgumentParser(description="What settings of the exploration policy find in a fixed model.")
    parser.add_argument("--runs", type=Path, help="folder of a finished pretraining")
    parser.add_argument("--seed", type=int, default=0, help="of that pretraining (%(default)s)")
    parser.add_argument("--updates", type=int, default=150, help="(%(default)s)")
    parser.add_argument("--output", type=Path, help="JSON file for the numbers")
    parser.add_argument("--show", type=Path, help="print the table of such a file and do nothing else")
    given = parser.parse_args()
    if given.show is not None:
        print(table([Row(**row) for row in json.loads(given.show.read_text(encoding="utf-8"))["rows"]]))
        return
    set_up_torch("cpu", 1)
    machine = reporting.describe_machine(threads=1)
    agent, replay = load(given.runs, given.seed)
    rows = [learn(agent, replay, setting, given.updates) for setting in SETTINGS]
    print(table(rows))
    if given.output is not None:
        found = {"machine": machine, "rows": [row._asdict() for row in rows]}
        given.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
