"""Checkers of the intrinsic rewards of the Dreamer agents: one function a topic."""

from types import SimpleNamespace
from typing import Any

import torch
from golden_recording import Recording, RecordingOptimiser, mlp_names, prefixed
from torch import Tensor, nn

from urlbench.agents.actor_critic import Trajectory
from urlbench.agents.dreamer.plan2explore import Disagreement, P2EConfig
from urlbench.agents.dreamer.pretraining import IntrinsicReward
from urlbench.agents.networks import MLP
from urlbench.agents.optimiser import OptimiserConfig
from urlbench.agents.rssm import LatentState
from urlbench.agents.world_model import WorldModelLoss
from urlbench.types import AgentContext


def stack_names(module: MLP) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names: the last layer is the output."""
    return mlp_names(module, last_is_output=True)


def world_model(feat_dim: int, embed_dim: int = 0) -> Any:
    """What intrinsic rewards ask of a world model: its sizes."""
    return SimpleNamespace(embed_dim=embed_dim, rssm=SimpleNamespace(feat_dim=feat_dim))


def context(data: Recording) -> AgentContext:
    """Where an agent with the recorded actions lives."""
    action_dim = data.arrays["in_action"].shape[-1] if "in_action" in data.arrays else 1
    return AgentContext("states", (1,), action_dim, 1, seed=0)


def seen(data: Recording) -> WorldModelLoss:
    """What a world model made of the recorded batch, of which model states [B, T, F] are known as a whole only."""
    feat, nothing = data["in_feat"], torch.zeros(())
    post = LatentState(feat.unsqueeze(-2), feat[..., :0], feat.unsqueeze(-2))
    embed = data["in_embed"] if "in_embed" in data.arrays else nothing
    return WorldModelLoss(nothing, post, nothing, embed, {})


def imagined(feat: Tensor, action: Tensor | None = None) -> Trajectory:
    """A trajectory of recorded model states; row t of the recorded actions led to state t."""
    return Trajectory(feat, feat[..., :0], feat[1:, :, :0] if action is None else action[1:])


def recording_optimiser(
    reward: IntrinsicReward, name: str, named: dict[str, nn.Parameter], lr: float
) -> RecordingOptimiser:
    """Put an optimiser that remembers in the place of the reward's own, which must train the same parameters."""
    assert {id(parameter) for parameter in named.values()} == {id(p) for p in reward.optimisers[name].parameters}
    optimiser = RecordingOptimiser(named.values(), lr, OptimiserConfig())
    reward.optimisers = {name: optimiser}
    return optimiser


def check_dreamer_p2e(data: Recording) -> None:
    # Learning rate, decay and clipping are not recorded; they are the published ones, our defaults.
    count = sum(1 for name in data.names("w_") if name.endswith("_l0_w"))
    config = P2EConfig(models=count, hidden=data.arrays["w_m0_l0_w"].shape[0])
    model = world_model(data["in_feat"].shape[-1], data["in_embed"].shape[-1])
    reward = Disagreement(context(data), config, model)
    named: dict[str, nn.Parameter] = {}
    for i, part in enumerate(reward.models):
        assert isinstance(part, MLP)
        named |= prefixed(f"m{i}_", stack_names(part))
    data.load("", named)
    optimiser = recording_optimiser(reward, "models", named, config.p2e_lr)
    reward.learn({"action": data["in_action"]}, seen(data))
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare_all("after_", named)
    feat, action = data["in_img_feat"].requires_grad_(), data["in_img_action"].requires_grad_()
    rewards = reward.judge(imagined(feat, action), model, None)
    data.compare("reward", rewards)
    grad_feat, grad_action = torch.autograd.grad(rewards.sum(), (feat, action), allow_unused=True)
    data.compare("grad_feat", grad_feat)
    assert grad_action is None
