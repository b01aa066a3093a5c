"""Dyna-MPC: each action of a fine-tuning is planned in the world model, from what the policy proposes.

Source: Rajeswar et al. 2023, "Mastering the Unsupervised Reinforcement Learning Benchmark from Pixels", sec. 4; the
search is that of Hansen et al. 2022 (TD-MPC), alg. 1.
"""

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from urlbench.agents.common.actor_critic import ActorCritic, imagine, lambda_return
from urlbench.agents.common.cem import CEMConfig, cem
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModel
from urlbench.core.precision import many_rows
from urlbench.core.types import Spec


class PlannerConfig(Spec):
    """Defaults: the released code.

    Attributes:
        horizon: planned steps (H); at least 2, for the first reward is that of where the agent is already.
        iterations: of the search.
        samples: sequences drawn in each (S).
        elites: the best of them, which the next iteration draws around.
        policy_share: the policy's own sequences that compete in each iteration, as a share of `samples`.
        init_std: of the actions in the first iteration.
        min_std: lower bound of it later; `init_std` is the upper one.
        temperature: elites count in proportion to exp(temperature * value).
        momentum: share of the old mean in the new one.
        start_frames: frames after the first update from which on actions are planned.
    """

    horizon: int = Field(default=5, ge=2)
    iterations: int = Field(default=12, gt=0)
    samples: int = Field(default=512, gt=0)
    elites: int = Field(default=64, gt=0)
    policy_share: float = Field(default=0.05, ge=0)
    init_std: float = 2.0
    min_std: float = 0.1
    temperature: float = 0.5
    momentum: float = 0.1
    start_frames: int = Field(default=1000, ge=0)


class Plan(NamedTuple):
    """What the search has found.

    Attributes:
        action: the first action of one of the elites, drawn by its score, [1, A].
        std: of the first action, [1, A].
        mean: of all actions, where the next search may start from, [H, A].
    """

    action: Tensor
    std: Tensor
    mean: Tensor


class Planner:
    """The cross-entropy search with the policy's proposals.

    Args:
        world_model: dynamics and reward head.
        behaviour: policy and critic.
        config: settings.
    """

    def __init__(self, world_model: WorldModel, behaviour: ActorCritic, config: PlannerConfig) -> None:
        self._world_model, self._behaviour, self.config = world_model, behaviour, config

    def values(self, state: LatentState, actions: Tensor, skill: Tensor | None, draws: Draws) -> Tensor:
        """The lambda-return of each sequence of actions from the state after its first one.

        Args:
            state: N times the same state.
            actions: [H, N, A].
            skill: [N, K] that the critic sees; or None.
            draws: of the latents.

        Returns:
            [N].
        """
        behaviour, config = self._behaviour, self._behaviour.config
        trajectory = imagine(self._world_model, state, lambda feat, t: actions[t], len(actions), draws)
        reward = self._world_model.reward(trajectory.feat)
        value = behaviour.critic.slow_value(behaviour.sees(trajectory.feat, skill))
        return lambda_return(reward[:-1], value[:-1], value[-1], trajectory.discount(config.discount), config.lambda_)[
            1
        ]

    def proposals(self, state: LatentState, count: int, skill: Tensor | None, draws: Draws) -> Tensor:
        """Sequences that the policy would act, [H, N, A]; arguments as for `values`."""
        behaviour = self._behaviour

        def policy(feat: Tensor, t: int) -> Tensor:
            action = behaviour.actor(behaviour.sees(feat, skill))
            return action.sample(draws.action_noise(action.mean))

        return imagine(self._world_model, state, policy, self.config.horizon, draws).action

    @torch.no_grad()
    @many_rows()
    def plan(self, state: LatentState, previous: Tensor | None, skill: Tensor | None, draws: Draws) -> Plan:
        """Search for the best actions.

        Args:
            state: where the agent is, one model state.
            previous: the mean of the step before, [H, A]; None at an episode's start.
            skill: that is followed, [1, K]; or None.
            draws: of everything.
        """
        config, action_dim = self.config, self._world_model.rssm.action_dim
        from_policy = int(config.policy_share * config.samples)
        count = config.samples + from_policy

        def repeated(x: Tensor, times: int) -> Tensor:
            return x.expand(times, *x.shape[1:])

        def states(times: int) -> LatentState:
            return LatentState(*(repeated(x, times) for x in state))

        def skills(times: int) -> Tensor | None:
            return None if skill is None else repeated(skill, times)

        mean = state.deter.new_zeros(config.horizon, action_dim)
        if previous is not None:
            mean[:-1] = previous[1:]
        std = torch.full_like(mean, config.init_std)
        search = CEMConfig(
            iterations=config.iterations,
            samples=config.samples,
            elites=config.elites,
            temperature=config.temperature,
            momentum=config.momentum,
            min_std=config.min_std,
            max_std=config.init_std,
            limit=1.0,
        )
        found = cem(
            lambda actions: self.values(states(count), actions, skills(count), draws),
            mean,
            std,
            search,
            draws,
            proposals=self.proposals(states(from_policy), from_policy, skills(from_policy), draws),
        )
        return Plan(found.elites[:1, draws.row(found.weights)], found.std[:1], found.mean)
