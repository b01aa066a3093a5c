"""Checkers of the intrinsic rewards of the Dreamer agents: one function a topic."""

from types import SimpleNamespace
from typing import Any

import torch
from golden_recording import Recording, RecordingOptimiser, linear, mlp_names, prefixed
from torch import Tensor, nn

from urlbench.agents.actor_critic import Trajectory
from urlbench.agents.dreamer.icm import Curiosity, ICMConfig
from urlbench.agents.dreamer.plan2explore import Disagreement, P2EConfig
from urlbench.agents.dreamer.pretraining import IntrinsicReward
from urlbench.agents.dreamer.rnd import RandomNetworkDistillation, RNDConfig
from urlbench.agents.networks import MLP, ConvEncoder
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


def check_dreamer_icm(data: Recording) -> None:
    # Not ours: the inverse model, whose gradients are zero.
    assert not any(data.arrays[f"out_{name}"].any() for name in data.names("out_") if name.startswith("grad_bwd"))
    embed = data["in_embed"]
    config = ICMConfig(hidden=data.arrays["w_fwd_l0_w"].shape[0])
    model = world_model(0, embed.shape[-1])
    model.embed = lambda observation: embed
    reward = Curiosity(context(data), config, model)
    named = prefixed("fwd_", stack_names(reward.forward_model))
    data.load("fwd_", stack_names(reward.forward_model))
    optimiser = recording_optimiser(reward, "model", named, config.icm_lr)
    batch, _ = reward.relabel({"action": data["in_action"], "observation": embed}, model)
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare("batch_reward", batch["reward"])
    data.compare("fwd_l1_w_after", reward.forward_model.out.weight)


def _rnd_names(network: nn.Module) -> dict[str, nn.Parameter]:
    assert isinstance(network, nn.Sequential)
    encoder, head = network
    assert isinstance(encoder, ConvEncoder)
    assert isinstance(head, MLP)
    named = stack_names(head)
    for i, conv in enumerate(encoder.convs):
        named |= linear(f"conv{i}", conv)
    return named


def check_dreamer_rnd(data: Recording) -> None:
    depth, hidden = data.arrays["w_pred_conv0_w"].shape[0], data.arrays["w_pred_l0_w"].shape[0]
    model = world_model(0, 32 * depth)
    model.encoder, model.config = ConvEncoder(depth), SimpleNamespace(symlog_states=False)
    config = RNDConfig(hidden=hidden, outputs=data.arrays["w_pred_l2_w"].shape[0])

    def make(config: RNDConfig) -> tuple[RandomNetworkDistillation, dict[str, nn.Parameter], RecordingOptimiser]:
        reward = RandomNetworkDistillation(context(data), config, model)
        named, target = _rnd_names(reward.predictor), _rnd_names(reward.target)
        data.load("pred_", named)
        data.load("target_", target)
        decayed = reward.target.parameters() if config.target == "decays" else ()
        optimiser = RecordingOptimiser(named.values(), config.rnd_lr, config.optimiser, also_decay=decayed)
        reward.optimisers = {"predictor": optimiser}
        return reward, named, optimiser

    reward, named, optimiser = make(config)
    batch, _ = reward.relabel({"observation": data["in_image"]}, model)
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare_all("after_", named)
    data.compare("batch_reward", batch["reward"])
    data.compare("running_var", reward.moments.var)
    error = batch["reward"].flatten() * (reward.moments.var.sqrt() + 1e-8)
    data.compare("error", error)
    shrunk = all(
        torch.equal(parameter, data[f"w_target_{name}"] * (1 - config.optimiser.weight_decay))
        for name, parameter in _rnd_names(reward.target).items()
    )
    data.compare("target_shrink", shrunk)
    once, _, _ = make(config.model_copy(update={"reward_observations": "once"}))
    batch, _ = once.relabel({"observation": data["in_image"]}, model)
    data.compare("error_once", batch["reward"].flatten() * (once.moments.var.sqrt() + 1e-8))
