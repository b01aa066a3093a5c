"""Whether skills are told apart: what is looked at while they are learned."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from urlbench.agents.common.actor_critic import ActorCritic, Trajectory, imagine
from urlbench.agents.common.distributions import saturation
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel

EVERY = 50
"""Updates between two looks."""
STARTS = 256
"""States they start from, at most."""


@torch.no_grad()
def skill_measures(
    world_model: WorldModel,
    start: LatentState,
    policy: ActorCritic,
    codes: int,
    code_reward: Callable[[Tensor, Trajectory], Tensor],
    draws: Draws,
) -> dict[str, Tensor]:
    """How close the skill policies' mean actions come to what their skills stand for, in imagination.

    Nothing is learned.

    Args:
        world_model: with the dynamics.
        start: N start states; `STARTS` of them are taken, evenly.
        policy: of the skills.
        codes: number of skills, two at least.
        code_reward: maps skill indices [N] and a trajectory to rewards [H + 1, N].
        draws: not the agent's, so that a training that is looked at stays the same.

    Returns:
        Means over the imagined steps: `own_code_reward`, by the skill that is followed; `other_code_reward`, of the
        same states by another skill; `idle_code_reward`, of zero actions; and the `saturation` of the actions. Skills
        are told apart if the first is above the next two.
    """
    count = min(len(start.deter), STARTS)
    start = LatentState(*(part[:: len(part) // count][:count] for part in start))
    skill = draws.skill(start.deter.new_ones(count, codes))
    onehot = F.one_hot(skill, codes).to(start.deter.dtype)
    other = draws.skill(1 - onehot)
    means: list[Tensor] = []

    def follow(feat: Tensor, t: int) -> Tensor:
        means.append(policy.actor(policy.sees(feat, onehot)).mean)
        return means[-1]

    followed = imagine(world_model, start, follow, policy.config.horizon, draws)
    idle = imagine(world_model, start, lambda feat, t: torch.zeros_like(means[0]), policy.config.horizon, draws)
    return {
        "own_code_reward": code_reward(skill, followed)[1:].mean(),
        "other_code_reward": code_reward(other, followed)[1:].mean(),
        "idle_code_reward": code_reward(skill, idle)[1:].mean(),
        "saturation": saturation(torch.stack(means)),
    }
