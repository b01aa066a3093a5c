"""Checkers of complete updates and of the control flow: one function a topic."""

from collections.abc import Callable
from unittest import mock

import torch
from agent_factory import dynamics_alone
from golden_recording import (
    GivenDraws,
    Recording,
    RecordingOptimiser,
    drawn,
    mlp_names,
    policy_names,
    prefixed,
    rssm_names,
)
from torch import Tensor, nn

from urlbench.agents.choreographer.discovery import skill_reward
from urlbench.agents.choreographer.meta_controller import MetaController
from urlbench.agents.choreographer.vq_vae import SkillAutoEncoder, SkillConfig
from urlbench.agents.common.actor_critic import ActorCritic, ActorCriticConfig, Trajectory
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.optimiser import OptimiserConfig
from urlbench.agents.common.rssm import RSSM, LatentState
from urlbench.agents.common.world_model import WorldModel, WorldModelConfig
from urlbench.core.interfaces import AgentContext


def check_optimizer(data: Recording) -> None:
    cases = [name.removesuffix("_lr") for name in data.names("hp_") if name.endswith("_lr")]
    assert cases, "no learning rate is recorded"
    for case in cases:
        network = data.mlp("", last_is_output=True)
        named = mlp_names(network, last_is_output=True)
        config = OptimiserConfig(
            eps=data.hp("eps"), clip_norm=data.hp(f"{case}_clip"), weight_decay=data.hp(f"{case}_wd")
        )
        optimiser = RecordingOptimiser(named.values(), data.hp(f"{case}_lr"), config)
        history: dict[str, list[Tensor]] = {name: [] for name in (*named, "loss", "grad_norm")}
        for _ in data.arrays[f"out_{case}_loss"]:
            error = network(data["in_x"]) - data["in_y"]
            norm = optimiser.step(data.hp(f"{case}_loss_scale") * (error**2).mean())
            history["loss"].append(optimiser.loss)
            history["grad_norm"].append(norm)
            for name, parameter in named.items():
                history[name].append(parameter.detach().clone())
        data.compare_all(f"{case}_", {name: torch.stack(steps) for name, steps in history.items()})


def check_skill_module(data: Recording) -> None:
    codes, code_dim = data["in_codebook"].shape
    config = SkillConfig(
        codes=codes, code_dim=code_dim, commitment=data.hp("commit"), resample_every=data.hp("resample_every")
    )
    skills = SkillAutoEncoder(data["in_deter"].shape[-1], config)
    skills.encoder, skills.decoder = data.mlp("enc_"), data.mlp("dec_")
    skills.codebook.codes.copy_(data["in_codebook"])
    skills.codebook.embed_avg.copy_(data["in_codebook"])
    named = prefixed("enc_", mlp_names(skills.encoder)) | prefixed("dec_", mlp_names(skills.decoder))
    settings = OptimiserConfig(eps=data.hp("eps"), clip_norm=data.hp("clip"), weight_decay=data.hp("wd"))
    optimiser = RecordingOptimiser(skills.networks(), data.hp("lr"), settings)
    draws = GivenDraws(rows=drawn(data["in_draws"]))
    learned, assigned = [], []
    with mock.patch.object(skills.codebook, "update", wraps=skills.codebook.update) as update:
        for i, deter in enumerate(data["in_deter"].flatten(1, -2)):
            learned.append(skills.learn(deter, optimiser, draws))
            assigned.append(update.call_args.args[1])
            if i == 0:
                data.compare_all("grad0_", optimiser.named_gradients(named))
    data.compare("rec_loss", torch.stack([metrics["skill_reconstruction_loss"] for metrics in learned]))
    data.compare("commit_loss", torch.stack([metrics["skill_commitment_loss"] for metrics in learned]))
    data.compare("idx", torch.stack(assigned))
    data.compare("unused", int(learned[-1]["unused_codes"]))
    probs = data.arrays["out_probs"]
    data.compare("probs", torch.stack(draws.row_probs), probs / probs.sum(1, keepdims=True))
    data.compare("codebook", skills.codebook.codes)
    data.compare("embed_avg", skills.codebook.embed_avg)
    data.compare("cluster_size", skills.codebook.cluster_size)
    data.compare_all("after_", named)


def _recorded_world_model(data: Recording, *, reward_shapes_model: bool) -> tuple[WorldModel, dict[str, nn.Parameter]]:
    observation, action = data["in_observation"], data["in_action"]
    context = AgentContext("states", tuple(observation.shape[2:]), action.shape[-1], 1, seed=0)
    tiny = WorldModelConfig(deter=1, hidden=1, variables=1, classes=1, mlp_units=(1,))
    model = WorldModel(context, tiny.model_copy(update={"reward_shapes_model": reward_shapes_model}))
    model.encoder, model.decoder, model.reward_head = data.mlp("enc_"), data.mlp("dec_"), data.mlp("rew_")
    model.rssm = data.rssm(*data.arrays["out_post_logit"].shape[2:], prefix="rssm_")
    parts = {"enc_": model.encoder, "dec_": model.decoder, "rew_": model.reward_head}
    named = prefixed("rssm_", rssm_names(model.rssm))
    for prefix, part in parts.items():
        named |= prefixed(prefix, mlp_names(part))
    return model, named


def check_wm_loss(data: Recording) -> None:
    # Not ours: the terminal flags, which no head predicts. Learning rate, decay, clipping and free nats are not
    # recorded; they are the published ones, our defaults.
    batch = {name: data[f"in_{name}"] for name in ("observation", "action", "is_first")}
    batch["reward"] = data["in_reward"].squeeze(-1)
    model, named = _recorded_world_model(data, reward_shapes_model=False)
    optimiser = RecordingOptimiser(model.parameters(), WorldModelConfig().lr, OptimiserConfig())
    data.compare("embed", model.embed(batch["observation"]))
    result = model.loss(batch, GivenDraws())
    norm = optimiser.step(result.loss)
    data.compare("loss", result.loss)
    for name in ("kl_loss", "observation_loss", "reward_loss"):
        data.compare(name, result.metrics[name])
    data.compare("kl", result.kl)
    data.compare("post_logit", result.post.params)
    data.compare("post_deter", result.post.deter)
    data.compare("post_stoch", result.post.stoch)
    data.compare("feat", result.post.feat)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare("grad_norm", norm)
    data.compare_all("after_", named)

    model, named = _recorded_world_model(data, reward_shapes_model=True)
    _, prior = model.rssm.observe(batch["action"], model.embed(batch["observation"]), batch["is_first"], GivenDraws())
    data.compare("prior_logit", prior.params)
    optimiser = RecordingOptimiser(model.parameters(), WorldModelConfig().lr, OptimiserConfig())
    norm = optimiser.step(model.loss(batch, GivenDraws()).loss)
    data.compare_all("both_grad_", optimiser.named_gradients(named))
    data.compare("both_grad_norm", norm)


# --- Updates on imagined trajectories ---------------------------------------------------------------


def _start(data: Recording) -> tuple[RSSM, LatentState]:
    stoch = data["in_stoch"]
    start = LatentState(stoch, data["in_deter"], torch.zeros_like(stoch)).flatten_batch()
    return data.rssm(*stoch.shape[2:], prefix="rssm_"), start


def _config(data: Recording) -> ActorCriticConfig:
    return ActorCriticConfig(
        units=(1,),
        horizon=len(data["in_noise"]),
        discount=data.hp("gamma"),
        lambda_=data.hp("lambda"),
        actor_lr=data.hp("lr"),
        critic_lr=data.hp("lr"),
    )


def _recording_optimisers(data: Recording, **named: dict[str, nn.Parameter]) -> dict[str, RecordingOptimiser]:
    return {
        name: RecordingOptimiser(parameters.values(), data.hp("lr"), OptimiserConfig())
        for name, parameters in named.items()
    }


def _compare_actions(data: Recording, actions: Tensor) -> None:
    # The recording's first row is the zero action that led to the start states.
    data.compare("action", torch.cat([torch.zeros_like(actions[:1]), actions]))


def _check_actor_critic(
    data: Recording,
    reward: Callable[[Trajectory], Tensor],
    rssm: RSSM,
    start: LatentState,
    skill: Tensor | None = None,
) -> None:
    action_dim = data["in_noise"].shape[-1]
    agent = ActorCritic(
        1, action_dim, _config(data), reward_momentum=data.hp("norm_momentum"), entropy_scale=data.hp("entropy")
    )
    agent.actor, agent.critic.net = data.policy("actor_"), data.mlp("critic_")
    agent.critic.slow = data.mlp("target_").requires_grad_(False)
    actor, critic = policy_names(agent.actor), mlp_names(agent.critic.net)
    optimisers = _recording_optimisers(data, actor=actor, critic=critic)
    normed: list[Tensor] = []
    agent.reward_norm.register_forward_hook(lambda module, args, output: normed.append(output))

    def compared_reward(trajectory: Trajectory) -> Tensor:
        data.compare("feat", trajectory.feat)
        _compare_actions(data, trajectory.action)
        rewards = reward(trajectory)
        data.compare("reward", rewards)
        return rewards

    with mock.patch.object(agent.critic, "loss", wraps=agent.critic.loss) as critic_loss:
        draws = GivenDraws(noise=drawn(data["in_noise"]))
        imagined = agent.imagine(dynamics_alone(rssm), start, draws, skill)
        agent.learn(imagined, compared_reward(imagined.trajectory), optimisers)
    data.compare("reward_normed", normed[0])
    data.compare("target", critic_loss.call_args.args[1])
    for name, parameters in (("actor", actor), ("critic", critic)):
        data.compare(f"{name}_loss", optimisers[name].loss)
        data.compare_all(f"{name}_grad_", optimisers[name].named_gradients(parameters))
        data.compare_all(f"{name}_after_", parameters)
    _check_copied(agent.critic.net, agent.critic.slow)


def _check_copied(net: nn.Module, slow: nn.Module) -> None:
    for fast, copy in zip(net.parameters(), slow.parameters(), strict=True):
        assert torch.equal(fast, copy), "the first update ends with a complete copy into the slow critic"


def check_imagine_expl(data: Recording) -> None:
    rssm, start = _start(data)
    lbs = LatentBayesianSurprise(1, (1,))
    lbs.predictor = data.mlp("lbs_")
    _check_actor_critic(data, lambda trajectory: lbs.reward(trajectory.feat), rssm, start)


def check_imagine_skill(data: Recording) -> None:
    rssm, start = _start(data)
    codes, code_dim = data["in_codebook"].shape
    skills = SkillAutoEncoder(rssm.deter, SkillConfig(codes=codes, code_dim=code_dim, units=(1,)))
    skills.decoder = data.mlp("dec_")
    skills.codebook.codes.copy_(data["in_codebook"])
    skill = data["in_skill"]

    def reward(trajectory: Trajectory) -> Tensor:
        code, entropy = skill_reward(
            skills, skill, trajectory.deter, neighbours=data.hp("knn_k"), clip=data.hp("knn_clip"), squared=False
        )
        data.compare("reward_code", code)
        data.compare("reward_ent", entropy)
        return code + entropy

    onehot = nn.functional.one_hot(skill, codes).to(data.dtype)
    _check_actor_critic(data, reward, rssm, start, skill=onehot)


def check_imagine_meta(data: Recording) -> None:
    rssm, start = _start(data)
    codes = data["w_actor_out_b"].shape[0]
    controller = MetaController(1, codes, data["in_noise"].shape[-1], _config(data), data.hp("entropy"))
    controller.actor, controller.executor = data.mlp("actor_"), data.policy("executor_")
    controller.critic.net, controller.critic.slow = data.mlp("critic_"), data.mlp("target_").requires_grad_(False)
    context = AgentContext("states", (1,), data["in_noise"].shape[-1], 1, seed=0)
    model = WorldModel(context, WorldModelConfig(deter=1, hidden=1, variables=1, classes=1, mlp_units=(1,)))
    model.rssm, model.reward_head = rssm, data.mlp("rew_")
    named = {
        "meta": mlp_names(controller.actor),
        "executor": policy_names(controller.executor),
        "critic": mlp_names(controller.critic.net),
    }
    optimisers = _recording_optimisers(data, **named)
    draws = GivenDraws(noise=drawn(data["in_noise"]), skills=drawn(data["in_meta_skill"]))
    critic, norm = controller.critic, controller.reward_norm
    norm.momentum = data.hp("norm_momentum")
    normed: list[Tensor] = []
    norm.register_forward_hook(lambda module, args, output: normed.append(output))
    with (
        mock.patch.object(critic, "loss", wraps=critic.loss) as critic_loss,
        mock.patch.object(rssm, "imagine_step", wraps=rssm.imagine_step) as steps,
    ):
        controller.learn(model, start, draws, optimisers)
    feat, target, _ = critic_loss.call_args.args
    data.compare("feat", feat)
    data.compare("target", target)
    _compare_actions(data, torch.stack([call.args[1] for call in steps.call_args_list]))
    data.compare("reward", model.reward(feat))
    data.compare("reward_normed", normed[0])
    for name, recorded in (("meta", "actor"), ("executor", "executor"), ("critic", "critic")):
        data.compare(f"{recorded}_loss", optimisers[name].loss)
        data.compare_all(f"{recorded}_grad_", optimisers[name].named_gradients(named[name]))
    data.compare_all("actor_after_", named["meta"])
    data.compare_all("critic_after_", named["critic"])
    _check_copied(critic.net, critic.slow)
