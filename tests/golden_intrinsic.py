"""Checkers of the intrinsic rewards of the DDPG agents: one function a topic."""

import torch
from golden_ddpg import Given, context, stack_names, transitions
from golden_recording import Recording, RecordingOptimiser, prefixed
from torch import nn

from urlbench.agents.ddpg.backbone import ADAM, Backbone, DDPGConfig
from urlbench.agents.ddpg.icm import Curiosity, ICMConfig, InverseDynamics
from urlbench.agents.ddpg.learner import IntrinsicReward


def backbone(data: Recording) -> Backbone:
    """A backbone for agents whose rewards are all that matters."""
    return Backbone(context(data), DDPGConfig(hidden=2))


def load(data: Recording, named: dict[str, nn.Parameter], prefix: str = "") -> None:
    """Copy the recorded weights into our parameters."""
    data.load(prefix, named)


def recording_optimiser(
    reward: IntrinsicReward, name: str, named: dict[str, nn.Parameter], lr: float
) -> RecordingOptimiser:
    """Put an optimiser that remembers in the place of the reward's own, which must train the same parameters."""
    assert {id(parameter) for parameter in named.values()} == {id(p) for p in reward.optimisers[name].parameters}
    optimiser = RecordingOptimiser(named.values(), lr, ADAM)
    reward.optimisers[name] = optimiser
    return optimiser


def dynamics_names(dynamics: InverseDynamics) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    return prefixed("fwd_", stack_names(dynamics.forward_model)) | prefixed("bwd_", stack_names(dynamics.inverse_model))


def check_icm(data: Recording) -> None:
    # Not ours: the loss of the Dreamer variant.
    hidden = data.arrays["w_fwd_l0_w"].shape[0]
    config = ICMConfig(hidden=hidden, reward_scale=data.hp("scale"))
    reward = Curiosity(context(data), config, backbone(data))
    named = dynamics_names(reward.dynamics)
    data.load("", named)
    optimiser = recording_optimiser(reward, "model", named, data.hp("lr"))
    batch = transitions(data)
    with torch.no_grad():
        forward, inverse = reward.dynamics.errors(batch.obs, batch.action, batch.next_obs)
        data.compare("forward_error", forward)
        data.compare("backward_error", inverse)
        data.compare("reward_before", reward.reward(forward))
    data.compare("reward", reward.learn(batch, Given()).reward)
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
