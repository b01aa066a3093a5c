"""Checkers of the intrinsic rewards of the Dreamer agents: one function a topic."""

from types import SimpleNamespace
from typing import Any

import torch
from golden_recording import Recording, RecordingOptimiser, linear, mlp_names, prefixed
from torch import Tensor, nn

from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Trajectory, actor_loss, lambda_return
from urlbench.agents.common.latent_actor import PolicyActor
from urlbench.agents.common.networks import MLP, ConvEncoder
from urlbench.agents.common.optimiser import OptimiserConfig
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import WorldModelLoss
from urlbench.agents.common.world_model_learner import BehaviourLearner
from urlbench.agents.dreamer.aps import APSConfig, SolvedTask, SuccessorCritic, SuccessorReward
from urlbench.agents.dreamer.diayn import DIAYNConfig, ScoredSkill, SkillDiscriminator, skill_scores
from urlbench.agents.dreamer.icm import Curiosity, ICMConfig
from urlbench.agents.dreamer.plan2explore import Disagreement, P2EConfig
from urlbench.agents.dreamer.pretraining import IntrinsicReward
from urlbench.agents.dreamer.rnd import RandomNetworkDistillation, RNDConfig
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import AgentContext
from urlbench.core.registry import load_agent


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


def check_dreamer_diayn(data: Recording) -> None:
    config = DIAYNConfig(skills=data.arrays["in_skill"].shape[-1], hidden=data.arrays["w_disc_l0_w"].shape[0])
    model = world_model(data["in_feat"].shape[-1])
    reward = SkillDiscriminator(context(data), config, model)
    named = stack_names(reward.discriminator)
    data.load("disc_", named)
    optimiser = recording_optimiser(reward, "discriminator", named, config.discriminator_lr)
    reward.learn({"skill": data["in_skill"]}, seen(data))
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare_all("after_", named)
    feat = data["in_img_feat"].requires_grad_()
    rewards = reward.judge(imagined(feat), model, data["in_img_skill"][0])
    data.compare("reward", rewards)
    data.compare("grad_feat", torch.autograd.grad(rewards.sum(), feat)[0])

    behaviour = ActorCritic(1, data["in_ft_action"].shape[-1], ActorCriticConfig(units=(1,)))
    behaviour.actor = data.policy("actor_")
    feat, action, task_reward = data["in_ft_feat"], data["in_ft_action"], data["in_ft_reward"].squeeze(-1)
    skills = torch.eye(config.skills)
    names = {"mean_of_products": "skill_values_intended", "product_of_means": "skill_values_published"}
    for how, name in names.items():
        data.compare(name, skill_scores(behaviour, skills, feat, action, task_reward, how))  # type: ignore[arg-type]
        options = {"skill_score": how, "scored_actions": "leading"}
        choice = ScoredSkill(context(data), config.model_copy(update=options), reward)
        post = LatentState(feat.unsqueeze(-2), feat[..., :0], feat.unsqueeze(-2))
        chosen = choice.observe({"action": action, "reward": task_reward}, post, behaviour)
        assert chosen is not None
        data.compare("selected_intended" if how == "mean_of_products" else "selected", chosen.argmax())


def check_dreamer_aps(data: Recording) -> None:
    config = APSConfig(
        skill_dim=data.arrays["in_skill"].shape[-1],
        hidden=data.arrays["w_phi_l0_w"].shape[0],
        neighbours=data.hp("k"),
        clip=data.hp("clip"),
        task_states=data.arrays["in_ft_reward"].size,
    )
    model = world_model(data["in_feat"].shape[-1])
    reward = SuccessorReward(context(data), config, model)
    named = stack_names(reward.phi)
    data.load("phi_", named)
    optimiser = recording_optimiser(reward, "phi", named, config.features_lr)
    reward.learn({"skill": data["in_skill"]}, seen(data))
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare_all("phi_after_", named)
    rewards = torch.stack(
        [
            reward.judge(imagined(feat), model, skill[0])
            for feat, skill in zip(data["in_img_feat"], data["in_img_skill"], strict=True)
        ]
    )
    data.compare("reward", rewards)

    gamma, lambda_ = data.hp("gamma"), data.hp("lambda")
    feat, task = data["in_img_feat"][0].requires_grad_(), data["in_img_skill"][0, 0]
    states = ActorCritic.sees(feat, task)
    critic = SuccessorCritic(1, ActorCriticConfig(units=(1,), discount=gamma), config.skill_dim)
    critic.net, critic.slow = data.mlp("critic_"), data.mlp("target_").requires_grad_(False)
    value = critic.slow_value(states)
    target = lambda_return(rewards[0, :-1], value[:-1], value[-1], gamma, lambda_)
    loss = actor_loss(target, gamma)
    data.compare("target", target)
    data.compare("actor_loss", loss)
    data.compare("grad_feat", torch.autograd.grad(loss, feat)[0])
    data.compare("critic_loss", critic.loss(states, target, gamma))

    feat = data["in_ft_feat"]
    post = LatentState(feat.unsqueeze(-2), feat[..., :0], feat.unsqueeze(-2))
    for solver, name in (("swapped", "task_published"), ("least_squares", "task_least_squares")):
        options = {"task_solver": solver, "task_features": "pretrained"}
        choice = SolvedTask(context(data), config.model_copy(update=options), reward)
        data.compare(name, choice.observe({"reward": data["in_ft_reward"].squeeze(-1)}, post, None))  # type: ignore[arg-type]


def compare_dreamer_schedules(data: Recording) -> None:
    """Compare which skills Dreamer agents act with and store, in episodes of constant length: a part of one topic."""
    lives = AgentContext("states", (2,), 2, 1, seed=0)
    for name in ("diayn_pretrain", "diayn_finetune", "aps_pretrain"):
        method, _, phase = name.partition("_")
        spec = load_agent(f"dreamer-{method}")
        every, episode = data.hp(f"dreamer_{name}_every"), data.hp(f"dreamer_{name}_episode")
        agent = spec.build(lives, resolve_config(spec, "smoke", {"skill_steps": every}))
        if phase == "finetune":
            agent = agent.for_finetuning(lives)
        assert isinstance(agent, BehaviourLearner)
        assert agent.skills is not None
        numbers = iter(range(1, 10_000))
        agent.skills = agent.skills._replace(
            draw=lambda draws, like, numbers=numbers: torch.full_like(like, next(numbers))
        )
        actor = agent.actor(evaluation=False, seed=0)
        assert isinstance(actor, PolicyActor)
        acting: list[int] = []
        stored: list[int] = []
        for step in range(len(data.arrays[f"out_dreamer_{name}_acting"])):
            if step % episode == 0:
                actor.begin_episode()
                stored.append(_number(actor))
            actor.before_step(step)
            acting.append(_number(actor))
            stored.append(acting[-1])
            if (step + 1) % episode:
                actor.after_step(step + 1)
        data.compare(f"dreamer_{name}_acting", acting)
        data.compare(f"dreamer_{name}_stored", stored)


def _number(actor: PolicyActor) -> int:
    assert actor.skill is not None
    return int(actor.skill[0, 0])
