"""Checkers of the intrinsic rewards of the DDPG agents: one function a topic."""

import copy
from typing import Any
from unittest import mock

import torch
from golden_ddpg import Given, actor_names, context, critic_names, stack_names, transitions, trunk_names
from golden_recording import Recording, RecordingOptimiser, drawn, linear, prefixed
from torch import Tensor, nn

from urlbench.agents.common.networks import MLP
from urlbench.agents.ddpg import proto
from urlbench.agents.ddpg.aps import APSConfig, SolvedTask, SuccessorReward
from urlbench.agents.ddpg.apt import ActivePretraining, APTConfig
from urlbench.agents.ddpg.backbone import ADAM, Backbone, DDPGConfig, Transitions
from urlbench.agents.ddpg.cic import CICConfig, ContrastiveControl
from urlbench.agents.ddpg.diayn import DIAYNConfig, SkillDiscriminator
from urlbench.agents.ddpg.disagreement import Disagreement, DisagreementConfig
from urlbench.agents.ddpg.icm import Curiosity, ICMConfig, InverseDynamics
from urlbench.agents.ddpg.pretraining import IntrinsicReward
from urlbench.agents.ddpg.proto import ProtoConfig, Prototypes
from urlbench.agents.ddpg.rnd import RandomNetworkDistillation, RNDConfig
from urlbench.agents.ddpg.smm import SMMConfig, StateMarginalMatching
from urlbench.core.interfaces import AgentContext


def backbone(data: Recording) -> Backbone:
    """A backbone for agents whose rewards are all that matters."""
    return Backbone(context(data), DDPGConfig(hidden=2))


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


def check_rnd(data: Recording) -> None:
    # Not ours: the running moments that the normaliser keeps and never uses.
    hidden, outputs = data.arrays["w_pred_l0_w"].shape[0], data.arrays["w_pred_l2_w"].shape[0]
    config = RNDConfig(hidden=hidden, outputs=outputs, observation_limit=data.hp("clip"), reward_scale=data.hp("scale"))
    obs = data["in_obs"]
    lives = AgentContext("states", (obs.shape[-1],), 1, 1, seed=0)
    reward = RandomNetworkDistillation(lives, config, Backbone(lives, DDPGConfig(hidden=2)))
    assert reward.norm.eps == data.hp("bn_eps")
    named, target = stack_names(reward.predictor), reward.target[1]
    assert isinstance(target, MLP)
    data.load("pred_", named)
    data.load("target_", stack_names(target))
    optimiser = recording_optimiser(reward, "predictor", named, data.hp("lr"))
    normed = reward.normalise(obs[0])
    data.compare("normed_obs0", normed)
    data.compare("error_before", reward.errors(normed, reward.target(normed)))
    results: dict[str, list[Tensor]] = {"loss": [], "error": [], "running_var": [], "reward": []}
    for step, observation in enumerate(obs):
        nothing = torch.zeros(len(observation))
        batch = Transitions(observation, observation, nothing, nothing, observation)
        results["reward"].append(reward.learn(batch, Given()).reward)
        results["loss"].append(optimiser.loss)
        results["running_var"].append(reward.moments.var.clone())
        normed = reward.normalise(observation)
        results["error"].append(reward.errors(normed, reward.target(normed)).detach())
        if step == 0:
            data.compare_all("grad0_", optimiser.named_gradients(named))
    for name, history in results.items():
        data.compare(name, torch.stack(history))


def check_disagreement(data: Recording) -> None:
    count = sum(1 for name in data.names("w_") if name.endswith("_l0_w"))
    config = DisagreementConfig(hidden=data.arrays["w_m0_l0_w"].shape[0], models=count)
    reward = Disagreement(context(data), config, backbone(data))
    named: dict[str, nn.Parameter] = {}
    for i, model in enumerate(reward.models):
        assert isinstance(model, MLP)
        named |= prefixed(f"m{i}_", stack_names(model))
    data.load("", named)
    optimiser = recording_optimiser(reward, "models", named, data.hp("lr"))
    batch = transitions(data)
    data.compare("errors", (batch.next_obs - reward.predictions(batch.obs, batch.action)).norm(dim=-1).T)
    data.compare("reward_before", reward.reward(batch.obs, batch.action))
    data.compare("reward", reward.learn(batch, Given()).reward)
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))


def check_apt(data: Recording) -> None:
    config = APTConfig(
        hidden=data.arrays["w_fwd_l0_w"].shape[0],
        representation=data.arrays["w_trunk_l0_w"].shape[0],
        neighbours=data.hp("k"),
        clip=data.hp("clip"),
    )
    reward = ActivePretraining(context(data), config, backbone(data))
    named = trunk_names(reward.trunk) | dynamics_names(reward.dynamics)
    data.load("", named)
    optimiser = recording_optimiser(reward, "model", named, data.hp("lr"))
    batch = transitions(data)
    with torch.no_grad():
        rep, next_rep = reward.trunk(batch.obs), reward.trunk(batch.next_obs)
        forward, inverse = reward.dynamics.errors(rep, batch.action, next_rep)
    data.compare("rep", rep)
    data.compare("forward_error", forward)
    data.compare("backward_error", inverse)
    data.compare("reward_before", reward.knn(rep))
    data.compare("reward", reward.learn(batch, Given()).reward)
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    scaled = config.model_copy(update={"divide_by": "mean", "clip": 1e-4})
    knn = ActivePretraining(context(data), scaled, backbone(data)).knn
    data.compare("running_mean_reward", torch.stack([knn(rep) for rep in data["in_reps"]]))


def check_proto(data: Recording) -> None:
    config = ProtoConfig(
        prototypes=data.arrays["w_protos_l0_w"].shape[0],
        prototype_dim=data.arrays["w_predictor_l0_w"].shape[0],
        projector_hidden=data.arrays["w_projector_l0_w"].shape[0],
        temperature=data.hp("tau"),
        queue=data.hp("queue"),
        neighbour=data.hp("topk"),
        target_tau=data.hp("target_tau"),
    )
    reward = Prototypes(context(data), config, backbone(data))
    named = (
        linear("predictor_l0", reward.predictor)
        | prefixed("projector_", stack_names(reward.projector))
        | {"protos_l0_w": reward.prototypes.weight}
    )
    target = linear("predictor_target_l0", reward.target_predictor)
    data.load("", named | target)
    optimiser = recording_optimiser(reward, "model", named, data.hp("lr"))
    batch = transitions(data)

    reward.normalise_prototypes()
    data.compare("protos_normed", reward.prototypes.weight)
    data.compare("log_probs", reward.log_probs(batch.obs))
    with mock.patch.object(proto, "sinkhorn", wraps=proto.sinkhorn) as balanced:
        data.compare("sinkhorn", reward.assignments(batch.next_obs))
    data.compare("target_scores", balanced.call_args.args[0])

    draws = Given(candidates=iter(data["in_candidates"]))
    rewards = [reward.learn(batch, draws).reward]
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    rewards += [reward.reward(observation, draws) for observation in data["in_reward_obs"]]
    data.compare_all("after_", named | target)
    data.compare("candidate_probs", torch.stack(draws.candidate_probs))
    data.compare("reward", torch.stack(rewards))
    data.compare("queue", reward.candidates)


def check_smm(data: Recording) -> None:
    config = SMMConfig(
        hidden=data.arrays["w_disc_l0_w"].shape[0],
        skills=data.arrays["in_z"].shape[-1],
        state_scale=data.hp("state_coef"),
        skill_scale=data.hp("latent_coef"),
        discriminator_scale=data.hp("latent_cond_coef"),
        vae_hidden=data.arrays["w_enc_l0_w"].shape[0],
        vae_code=data.arrays["w_mu_l0_w"].shape[0],
        vae_beta=data.hp("beta"),
    )

    def make(config: SMMConfig) -> tuple[StateMarginalMatching, dict[str, RecordingOptimiser], dict[str, Any]]:
        reward = StateMarginalMatching(context(data), config, backbone(data))
        vae = reward.vae
        named = {
            "vae": prefixed("enc_", stack_names(vae.encoder))
            | linear("mu_l0", vae.mean)
            | linear("logvar_l0", vae.log_var)
            | prefixed("dec_", stack_names(vae.decoder)),
            "discriminator": prefixed("disc_", stack_names(reward.discriminator)),
        }
        data.load("", named["vae"] | named["discriminator"])
        rates = {"vae": data.hp("vae_lr"), "discriminator": data.hp("disc_lr")}
        return reward, {name: recording_optimiser(reward, name, named[name], rates[name]) for name in named}, named

    batch, skill = transitions(data, skill="z"), data["in_z"]

    def noise() -> Given:
        return Given(normal=[data["in_vae_noise"]])

    reward, optimisers, named = make(config)
    kl, squared = reward.vae(torch.cat([batch.obs, skill], -1), noise())
    data.compare("kl", kl.mean())
    data.compare("state_term", squared.sum(-1))
    data.compare("reward", reward.learn(batch, noise()).reward)
    data.compare("vae_loss", optimisers["vae"].loss)
    data.compare("disc_loss", optimisers["discriminator"].loss)
    data.compare_all("vae_grad_", optimisers["vae"].named_gradients(named["vae"]))
    data.compare_all("disc_grad_", optimisers["discriminator"].named_gradients(named["discriminator"]))
    paper, _, _ = make(config.model_copy(update={"distinct_skills": "rewarded"}))
    data.compare("reward_paper", paper.learn(batch, noise()).reward)
    # The terms alone, by switching the others off.
    for name, scale in (("latent", "skill_scale"), ("latent_cond", "discriminator_scale")):
        off = dict.fromkeys(("state_scale", "skill_scale", "discriminator_scale"), 0.0) | {scale: 1.0}
        alone, _, _ = make(config.model_copy(update=off))
        data.compare(f"{name}_term", alone.learn(batch, noise()).reward)


def check_diayn(data: Recording) -> None:
    config = DIAYNConfig(
        hidden=data.arrays["w_l0_w"].shape[0],
        skills=data.arrays["in_skill"].shape[-1],
        reward_scale=data.hp("scale"),
    )
    reward = SkillDiscriminator(context(data), config, backbone(data))
    named = stack_names(reward.discriminator)
    data.load("", named)
    optimiser = recording_optimiser(reward, "discriminator", named, data.hp("lr"))
    batch, skill = transitions(data, skill="skill"), data["in_skill"]
    data.compare("reward_before", reward.reward(reward.discriminator(batch.next_obs), skill))
    learned = reward.learn(batch, Given())
    data.compare("reward", learned.reward)
    data.compare("accuracy", learned.metrics["discriminator_accuracy"])
    data.compare("loss", optimiser.loss)
    data.compare_all("grad_", optimiser.named_gradients(named))
    data.compare("policy_input", Backbone.policy_input(batch.obs, skill))


def check_aps(data: Recording) -> None:
    dim = data.arrays["in_task"].shape[-1]
    config = APSConfig(
        hidden=data.arrays["w_phi_l0_w"].shape[0],
        skill_dim=dim,
        neighbours=data.hp("k"),
        clip=data.hp("clip"),
        noise_limit=data.hp("std_clip"),
        tau=data.hp("tau"),
        task_samples=data["in_obs"].flatten(0, 1).shape[0],
    )
    learner = Backbone(context(data), config, skill_dim=dim, successor=True)
    reward = SuccessorReward(context(data), config, learner)
    phi = stack_names(reward.phi)
    data.load("phi_", phi)
    policy = {"actor": actor_names(learner.actor), "critic": critic_names(learner.critic)}
    for name, parameters in (policy | {"target": critic_names(learner.target)}).items():
        data.load(f"{name}_", parameters)
    optimiser = recording_optimiser(reward, "phi", phi, data.hp("lr"))
    optimisers = {name: RecordingOptimiser(policy[name].values(), data.hp("lr"), ADAM) for name in policy}
    called: dict[str, list[Tensor]] = {"critic": [], "target": []}
    learner.critic.register_forward_hook(lambda module, args, values: called["critic"].append(values.detach()))
    learner.target.register_forward_hook(lambda module, args, values: called["target"].append(values.detach()))

    first = transitions(data, "task", 0)
    data.compare("phi", reward.phi(first.next_obs))
    data.compare("phi_normed", nn.functional.normalize(reward.phi(first.next_obs), dim=-1))
    returned: list[tuple[Tensor, Tensor]] = []

    def reward_parts(next_obs: Tensor, task: Tensor) -> tuple[Tensor, Tensor]:
        returned.append(SuccessorReward.reward_parts(reward, next_obs, task))
        return returned[-1]

    names = ("loss", "reward_ent", "reward_sf", "critic_loss", "actor_loss")
    results: dict[str, list[Tensor]] = {name: [] for name in names}
    for step in range(len(data["in_obs"])):
        batch = transitions(data, "task", step)
        with mock.patch.object(reward, "reward_parts", side_effect=reward_parts):
            learned = reward.learn(batch, Given())
        entropy, along = returned[-1]
        assert torch.equal(learned.reward, entropy + along)
        batch = batch._replace(reward=learned.reward)
        metrics = learner.learn(batch, data.hp("std"), Given(noise=drawn(data["in_noise"][step])), optimisers)
        values = (optimiser.loss, entropy, along, metrics["critic_loss"], metrics["actor_loss"])
        for name, value in zip(names, values, strict=True):
            results[name].append(value)
        if step == 0:
            data.compare_all("grad0_", optimiser.named_gradients(phi))
            data.compare("q1", called["critic"][0][0])
            data.compare("q2", called["critic"][0][1])
            data.compare("target_q", batch.reward + batch.discount * called["target"][0].amin(0))
    for name, history in results.items():
        data.compare(name, torch.stack(history))
    data.compare_all("phi_after_", phi)

    tasks = {}
    for solver in ("swapped", "least_squares"):
        settings = config.model_copy(update={"task_solver": solver, "task_frames": 0})
        solved = SolvedTask(settings, copy.deepcopy(reward.phi))
        for step in range(len(data["in_obs"])):
            solved.observe(transitions(data, "task", step), frame=1)
        tasks[solver] = solved.draw(Given(normal=[torch.ones(dim)]))
    data.compare("task_published", tasks["swapped"])
    data.compare("task_least_squares", tasks["least_squares"])
    data.compare("task_cosine", tasks["swapped"] @ tasks["least_squares"])


def check_cic(data: Recording) -> None:
    config = CICConfig(
        hidden=data.arrays["w_state_l0_w"].shape[0],
        skill_dim=data.arrays["in_skill"].shape[-1],
        temperature=data.hp("temperature"),
        neighbours=data.hp("k"),
        clip=data.hp("clip"),
    )
    reward = ContrastiveControl(context(data), config, backbone(data))
    assert data.hp("eps") == reward.EPS
    named = (
        prefixed("state_", stack_names(reward.state))
        | prefixed("pred_", stack_names(reward.transition))
        | prefixed("skill_", stack_names(reward.skill))
    )
    data.load("", named)
    optimiser = recording_optimiser(reward, "model", named, data.hp("lr"))
    results: dict[str, list[Tensor]] = {"loss": [], "reward": [], "running_var": []}
    for step in range(len(data["in_obs"])):
        batch = transitions(data, "skill", step)
        if step == 0:
            query, key = reward.embed(batch)
            data.compare("query", query)
            data.compare("key", key)
            with mock.patch.object(reward, "losses", wraps=reward.losses) as losses:
                results["reward"].append(reward.learn(batch, Given()).reward)
            data.compare("logits", losses.call_args.args[0])
            data.compare("loss_per_sample", reward.losses(losses.call_args.args[0]))
            data.compare_all("grad0_", optimiser.named_gradients(named))
        else:
            results["reward"].append(reward.learn(batch, Given()).reward)
        results["loss"].append(optimiser.loss)
        results["running_var"].append(reward.knn.moments.var.clone())
    for name, history in results.items():
        data.compare(name, torch.stack(history))
    data.compare_all("after_", named)
