"""Acting by calling the modules, as the agents' networks are written: what `urlbench.agents.common.acting` must equal.

It is the oracle of `tests/agents/test_acting.py` and what `acting_time.py` measures against.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch

from urlbench.agents.common import acting
from urlbench.agents.common.latent_actor import LatentActor
from urlbench.agents.ddpg import learner
from urlbench.agents.ddpg.learner import DDPGActor
from urlbench.core.interfaces import Array


@torch.no_grad()
def act_from_world_model(self: LatentActor, observation: Array, step: int) -> Array:
    """Embed, filter, ask the policy."""
    model = self._world_model
    is_first = torch.tensor([self._state is None], device=self._action.device)
    state = model.rssm.initial(1) if self._state is None else self._state
    embed = model.embed(torch.as_tensor(observation, device=self._action.device).unsqueeze(0))
    self._state = model.rssm.observe_step(state, self._action, embed, is_first, self._draws)
    self._action = self.policy(self._state.feat, step)
    return self._action[0].cpu().numpy()


@torch.no_grad()
def act_from_backbone(self: DDPGActor, observation: Array, step: int) -> Array:
    """Encode, ask the policy."""
    agent = self._agent
    obs = agent.encode(torch.as_tensor(observation, device=agent.context.device).unsqueeze(0))
    skill = None if self._skill.skill is None else self._skill.skill.unsqueeze(0)
    policy = agent.backbone.actor(agent.backbone.policy_input(obs, skill), agent.noise_std)
    action = policy.sample(self._draws.action_noise(policy.mean)) if self._noisy else policy.mean
    return action[0].cpu().numpy()


@contextmanager
def plain_actors() -> Iterator[None]:
    """Inside, actors that are made and that act do so with the modules."""
    with ExitStack() as stack:
        for place, network in (
            (acting, "mlp"),
            (acting, "encoder"),
            (acting, "normal_policy"),
            (learner, "acting_policy"),
        ):
            stack.enter_context(mock.patch.object(place, network, lambda module: module))
        stack.enter_context(mock.patch.object(LatentActor, "act", act_from_world_model))
        stack.enter_context(mock.patch.object(DDPGActor, "act", act_from_backbone))
        yield
