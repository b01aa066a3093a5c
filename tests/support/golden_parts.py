"""Checkers of the pure pieces: one function a topic, each comparing what we ship with the recorded results."""

import math

import numpy as np
import torch
from golden_recording import GivenDraws, Recording, drawn, mlp_names
from torch import Tensor, nn

from urlbench.agents.choreographer.choreographer import ChoreographerConfig
from urlbench.agents.choreographer.meta_controller import meta_actor_loss
from urlbench.agents.choreographer.vq_vae import Codebook, SkillAutoEncoder, SkillConfig
from urlbench.agents.common import distributions
from urlbench.agents.common.actor_critic import (
    ActorCriticConfig,
    Critic,
    StreamNorm,
    actor_loss,
    discount_weights,
    lambda_return,
    with_entropy,
)
from urlbench.agents.common.distributions import (
    NormalPolicy,
    categorical_entropy,
    categorical_log_prob,
    onehot,
    onehot_mode,
    unit_normal_nll,
)
from urlbench.agents.common.knn_entropy import KnnReward, knn_entropy
from urlbench.agents.common.latents import CategoricalLatents
from urlbench.agents.common.lbs import LatentBayesianSurprise
from urlbench.agents.common.networks import ConvDecoder, ConvEncoder
from urlbench.agents.common.rssm import LatentState
from urlbench.agents.common.world_model import clip_reward, kl_loss, preprocess


def check_lambda_return(data: Recording) -> None:
    reward, value, discount = data["in_reward"], data["in_value"], data["in_discount"]
    bootstrap, lambda_ = data["in_bootstrap"], data.hp("lambda")
    data.compare("const_discount", lambda_return(reward, value, bootstrap, data.hp("gamma"), lambda_))
    data.compare("var_discount", lambda_return(reward, value, bootstrap, discount, lambda_))
    data.compare("lambda0", lambda_return(reward, value, bootstrap, discount, 0.0))
    data.compare("lambda1", lambda_return(reward, value, bootstrap, discount, 1.0))
    data.compare("no_bootstrap", lambda_return(reward, value, None, discount, lambda_))


def check_kl_balance(data: Recording) -> None:
    post, prior = data["in_post_logits"].requires_grad_(), data["in_prior_logits"].requires_grad_()
    balance, free_nats, latents = data.hp("balance"), data.hp("free_nats"), CategoricalLatents(*post.shape[-2:])
    loss, kl = kl_loss(latents, post, prior, balance=balance, free_nats=free_nats)
    data.compare("loss", loss)
    data.compare("kl", kl)
    for name, gradient in zip(("post", "prior"), torch.autograd.grad(loss, (post, prior)), strict=True):
        data.compare(f"grad_{name}", gradient)
    low = data.hp("low_scale")
    loss, kl = kl_loss(latents, post * low, prior * low, balance=balance, free_nats=free_nats)
    data.compare("low_loss", loss)
    data.compare("low_kl", kl)
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, (post, prior)))
    data.compare("post_entropy", categorical_entropy(post).sum(-1))


def check_knn_reward(data: Recording) -> None:
    # Not ours: the k-th distance alone, and what single precision made of the published code's distances.
    x = data["in_deter"].flatten(0, 1)
    shape = data["in_deter"].shape[:2]
    data.compare("choreo", knn_entropy(x, data.hp("choreo_k"), clip=data.hp("choreo_clip")).reshape(shape))
    apt = knn_entropy(x, data.hp("apt_k"), clip=data.hp("apt_clip")).reshape(shape)
    data.compare("apt", apt, np.expm1(data.arrays["out_apt"]))  # APT's logarithm is not part of our function
    nearest = data.arrays["out_sorted_distances"].cumsum(1)
    ours = torch.stack([k * knn_entropy(x, k, clip=0.0) for k in range(1, nearest.shape[1] + 1)], 1)
    data.compare("sorted_distances", ours, nearest)
    scaled = KnnReward(data.hp("aps_k"), clip=data.hp("aps_clip"), divide_by="mean")
    rewards, means = [], []
    for batch in (x, *data["in_more"]):
        rewards.append(scaled(batch))
        means.append(scaled.moments.mean.clone())
    data.compare("running_mean_rewards", torch.stack(rewards))
    data.compare("running_mean", torch.stack(means))


def check_vq_ema(data: Recording) -> None:
    book = Codebook(*data["in_codebook"].shape, data.hp("decay"))
    book.EPS = data.hp("eps")
    book.codes.copy_(data["in_codebook"])
    book.embed_avg.copy_(data["in_codebook"])
    results: dict[str, list[Tensor]] = {
        name: [] for name in ("idx", "quant", "cluster_size", "embed_avg", "codes", "usage")
    }
    for step, x in enumerate(data["in_x"]):
        x.requires_grad_()
        quantised = book.quantise(x)
        if step == 0:
            data.compare("grad_x", torch.autograd.grad(quantised.code, x, data["in_upstream"])[0])
        results["idx"].append(quantised.assigned)
        results["quant"].append(quantised.code.detach())
        book.update(x.detach(), quantised.assigned)
        for name in ("cluster_size", "embed_avg", "codes", "usage"):
            results[name].append(getattr(book, name).clone())
    for name, steps in results.items():
        data.compare(name, torch.stack(steps))
    quantised = book.quantise(data["in_x"][0])
    data.compare("eval_idx", quantised.assigned)
    data.compare("eval_quant", quantised.code)


def _book_before_resampling(data: Recording) -> Codebook:
    book = Codebook(*data["in_codebook"].shape, 0.99)
    for name in ("codes", "embed_avg", "cluster_size", "usage"):
        getattr(book, name).copy_(data["in_codebook" if name == "codes" else f"in_{name}"])
    return book


def check_code_resampling(data: Recording) -> None:
    # The recorded probabilities have hp_prob_eps in their denominator, which their drawing normalises away again.
    book, draws = _book_before_resampling(data), GivenDraws(rows=drawn(data["in_draws"]))
    unused, resampled = book.resample(data["in_x"], draws, power=1)
    probs = data.arrays["out_probs"]
    data.compare("probs", torch.stack(draws.row_probs), probs / probs.sum(1, keepdims=True))
    data.compare("codebook", book.codes)
    for name in ("embed_avg", "cluster_size", "usage"):
        data.compare(name, getattr(book, name))
    data.compare("unused", unused)
    data.compare("resampled", resampled)
    book = _book_before_resampling(data)
    _, resampled = book.resample(data["in_x_on_codes"], GivenDraws(), power=1)
    data.compare("resampled_on_codes", resampled)
    data.compare("usage", book.usage)
    draws = GivenDraws(rows=drawn(data["in_draws"]))
    _book_before_resampling(data).resample(data["in_x"], draws, power=2)
    probs = data.arrays["out_paper_probs"]
    data.compare("paper_probs", draws.row_probs[0], probs / probs.sum())


def check_code_reward(data: Recording) -> None:
    codes, code_dim = data["in_codebook"].shape
    deter = data["in_deter"].requires_grad_()
    skills = SkillAutoEncoder(deter.shape[-1], SkillConfig(codes=codes, code_dim=code_dim, units=(4,)))
    skills.decoder = data.mlp("dec_")
    skills.codebook.codes.copy_(data["in_codebook"])
    data.compare("decoded", skills.decoder(skills.codebook.codes))
    reward = skills.code_reward(data["in_skill"][0].argmax(-1), deter)
    data.compare("reward", reward)
    reward.sum().backward()
    data.compare("grad_deter", deter.grad)
    assert all(parameter.grad is None for parameter in skills.parameters())


def check_stream_norm(data: Recording) -> None:
    for case in data.names("out_m"):
        if case.endswith("_mag"):
            continue
        norm = StreamNorm(int(case) / 100)  # m095 is momentum 0.95
        norm.EPS = data.hp("eps")
        normed, magnitudes = [], []
        for batch in data["in_batches"]:
            normed.append(norm(batch))
            magnitudes.append(norm.magnitude.clone())
        data.compare(f"m{case}", torch.stack(normed))
        data.compare(f"m{case}_mag", torch.stack(magnitudes))


def check_trunc_normal(data: Recording) -> None:
    hidden = data["in_hidden"].requires_grad_()
    policy = NormalPolicy(1, (hidden.shape[-1],), data["in_action"].shape[-1])
    policy.MIN_STD = data.hp("min_std")
    assert math.isclose(data.hp("limit_eps"), 1 - distributions.ACTION_LIMIT)
    for name, linear in (("mean", policy.mean), ("std", policy.std)):
        linear.weight.data.copy_(data[f"w_{name}_w"])
        linear.bias.data.copy_(data[f"w_{name}_b"])
    action = policy.head(hidden)
    sample = action.sample(data["in_noise"])
    data.compare("mean", action.mean)
    data.compare("std", action.std)
    data.compare("log_prob", action.log_prob(data["in_action"]))
    data.compare("entropy", action.entropy())
    data.compare("sample", sample)
    (sample * data["in_upstream"]).sum().backward()
    data.compare("grad_hidden", hidden.grad)
    data.compare("grad_mean_w", policy.mean.weight.grad)
    data.compare("grad_std_w", policy.std.weight.grad)


def check_onehot_st(data: Recording) -> None:
    # Not ours: probs, a plain softmax.
    logits, upstream = data["in_logits"].requires_grad_(), data["in_upstream"]
    sample, mode = onehot(data["in_drawn"], logits.softmax(-1)), onehot_mode(logits)
    data.compare("sample", sample)
    data.compare("grad_sample", torch.autograd.grad(sample, logits, upstream)[0])
    data.compare("mode", mode)
    data.compare("grad_mode", torch.autograd.grad(mode, logits, upstream)[0])
    log_prob = categorical_log_prob(data["in_query"], logits)
    data.compare("log_prob", log_prob)
    data.compare("grad_log_prob", torch.autograd.grad(log_prob.sum(), logits)[0])
    data.compare("entropy", categorical_entropy(logits))


def check_gru_cell(data: Recording) -> None:
    x, deter = data["in_x"], data["in_h"]
    normed = data.gru("w_normed_w", "w_normed_b", "w_normed_gain", "w_normed_offset")
    data.compare("normed", normed(x, deter))
    data.compare("plain", data.gru("w_plain_w", "w_plain_b")(x, deter))


def _compare_state(data: Recording, prefix: str, state: LatentState) -> None:
    data.compare(f"{prefix}_deter", state.deter)
    data.compare(f"{prefix}_logit", state.params)
    data.compare(f"{prefix}_stoch", state.stoch)


def check_rssm_step(data: Recording) -> None:
    # Not ours: the prior's own sample when filtering, which nothing uses; we do not draw it.
    stoch, action, embed = data["in_stoch"], data["in_action"], data["in_embed"]
    rssm, draws = data.rssm(*stoch.shape[1:]), GivenDraws()
    state = LatentState(stoch, data["in_deter"], torch.zeros_like(stoch))
    _compare_state(data, "img", rssm.imagine_step(state, action, draws))
    post = rssm.observe_step(state, action, embed, data["in_is_first"], draws)
    _compare_state(data, "post", post)
    data.compare("feat", post.feat)
    data.compare("prior_deter", post.deter)
    data.compare("prior_logit", rssm.prior(post.deter))
    actions = data["in_seq_action"]
    posts, priors = rssm.observe(actions, data["in_seq_embed"], data["in_seq_is_first"], draws)
    _compare_state(data, "seq_post", posts)
    data.compare("seq_prior_deter", priors.deter)
    data.compare("seq_prior_logit", priors.params)
    state, states = LatentState(*(part[:, -1] for part in posts)), []
    for t in range(actions.shape[1]):
        state = rssm.imagine_step(state, actions[:, t], draws)
        states.append(state)
    _compare_state(data, "openloop", LatentState(*(torch.stack(part, 1) for part in zip(*states, strict=True))))


def _recorded_critic(data: Recording, who: str) -> Critic:
    critic = Critic(1, ActorCriticConfig(units=(1,), discount=data.hp("gamma"), lambda_=data.hp("lambda")))
    critic.net, critic.slow = data.mlp(f"{who}_critic_"), data.mlp(f"{who}_target_").requires_grad_(False)
    return critic


def check_imagine_weights(data: Recording) -> None:
    gamma, lambda_, eta = data.hp("gamma"), data.hp("lambda"), data.hp("ent_scale")
    states = data["in_reward"].shape[:2]
    data.compare("weight", discount_weights(gamma, len(data["in_reward"]), data["in_feat"]).expand(states))
    for who in ("expl", "skill"):
        feat, reward = data["in_feat"].requires_grad_(), data["in_reward"].squeeze(-1).requires_grad_()
        seen = torch.cat([feat, data["in_skill"]], -1) if who == "skill" else feat
        actor, critic = data.policy(f"{who}_actor_"), _recorded_critic(data, who)
        value = critic.slow_value(seen)
        target = lambda_return(reward[:-1], value[:-1], value[-1], gamma, lambda_)
        entropy = actor(seen[:-2].detach()).entropy()
        loss = actor_loss(target, gamma)
        data.compare(f"{who}_value", value)
        data.compare(f"{who}_target", target)
        data.compare(f"{who}_actor_loss", loss)
        data.compare(f"{who}_critic_loss", critic.loss(seen, target, gamma))
        grad_feat, grad_reward = torch.autograd.grad(loss, (feat, reward), retain_graph=True)
        data.compare(f"{who}_grad_feat", grad_feat)
        data.compare(f"{who}_grad_reward", grad_reward)
        data.compare(f"{who}_entropy", entropy)
        data.compare(f"{who}_actor_loss_ent", actor_loss(target, gamma, entropy, eta))
        data.compare(f"{who}_critic_loss_ent_clean", critic.loss(seen, target, gamma))
        leaked = with_entropy(target, entropy, eta)
        data.compare(f"{who}_critic_target_ent", leaked)
        data.compare(f"{who}_critic_loss_ent", critic.loss(seen, leaked, gamma))
    _check_meta(data, gamma, lambda_, eta)


def _check_meta(data: Recording, gamma: float, lambda_: float, eta: float) -> None:
    feat, reward = data["in_feat"].requires_grad_(), data["in_reward"].squeeze(-1).requires_grad_()
    actor, critic = data.mlp("meta_actor_"), _recorded_critic(data, "meta")
    value = critic.slow_value(feat)
    target = lambda_return(reward[:-1], value[:-1], value[-1], gamma, lambda_)
    logits = actor(feat[:-2].detach())
    log_prob = categorical_log_prob(data["in_meta_skill"][1:-1].argmax(-1), logits)
    entropy = categorical_entropy(logits)
    data.compare("meta_value", value)
    data.compare("meta_target", target)
    data.compare("meta_advantage", target[1:] - value[:-2])
    data.compare("meta_log_prob", log_prob)
    high = meta_actor_loss(log_prob, entropy, target, value, gamma, eta)
    data.compare("meta_high_loss", high)
    names = mlp_names(actor)
    gradients = torch.autograd.grad(high, list(names.values()), retain_graph=True)
    data.compare_all("meta_high_grad_", dict(zip(names, gradients, strict=True)))
    low = actor_loss(target, gamma)
    data.compare("meta_low_loss", low)
    grad_feat, grad_reward = torch.autograd.grad(low, (feat, reward), retain_graph=True)
    data.compare("meta_low_grad_feat", grad_feat)
    data.compare("meta_low_grad_reward", grad_reward)
    data.compare("meta_critic_loss", critic.loss(feat, target, gamma))
    published = ChoreographerConfig().meta_entropy
    data.compare("meta_high_loss_published_ent", meta_actor_loss(log_prob, entropy, target, value, gamma, published))


def check_slow_target(data: Recording) -> None:
    for case in ("published", "mix"):
        config = ActorCriticConfig(
            units=(1,), slow_every=data.hp(f"{case}_every"), slow_fraction=data.hp(f"{case}_fraction")
        )
        critic = Critic(1, config)
        vector = nn.ParameterList([data["in_critic"][0].clone()])
        slow = nn.ParameterList([data["in_target"].clone()]).requires_grad_(False)
        critic.net, critic.slow = vector, slow  # type: ignore[assignment]
        targets = []
        for value in data["in_critic"]:
            vector[0].data.copy_(value)
            critic.refresh_slow()
            targets.append(slow[0].clone())
        data.compare(case, torch.stack(targets))


def check_image_preproc(data: Recording) -> None:
    # Not ours: discount, of a continue head that no agent has.
    data.compare("image", preprocess(data["in_image"]))
    data.compare("vector", preprocess(data["in_vector"]))
    data.compare("reward", clip_reward(data["in_reward"], "identity"))
    data.compare("reward_sign", clip_reward(data["in_reward"], "sign"))
    data.compare("reward_tanh", clip_reward(data["in_reward"], "tanh"))


def check_lbs_reward(data: Recording) -> None:
    feat = data["in_feat"].requires_grad_()
    lbs = LatentBayesianSurprise(feat.shape[-1], (1,))
    lbs.predictor = data.mlp("lbs_")
    loss, reward = lbs.loss(feat, data["in_kl"]), lbs.reward(feat)
    data.compare("loss", loss)
    names = mlp_names(lbs.predictor)
    data.compare_all("grad_", dict(zip(names, torch.autograd.grad(loss, list(names.values())), strict=True)))
    data.compare("reward", reward)
    data.compare("grad_feat", torch.autograd.grad(reward.sum(), feat)[0])


def check_conv_nets(data: Recording) -> None:
    depth = data["w_conv0_w"].shape[0]
    encoder, decoder = ConvEncoder(depth), ConvDecoder(data["in_feat"].shape[-1], depth)
    layers = {"lin": decoder.linear}
    layers |= {f"conv{i}": layer for i, layer in enumerate(encoder.convs)}
    layers |= {f"deconv{i}": layer for i, layer in enumerate(decoder.deconvs)}
    for name, layer in layers.items():
        layer.weight.data.copy_(data[f"w_{name}_w"])
        layer.bias.data.copy_(data[f"w_{name}_b"])
    image, feat = preprocess(data["in_image"]), data["in_feat"].requires_grad_()
    data.compare("embed", encoder(image))
    mean = decoder(feat)
    data.compare("mean_sub", mean[0, 0, :, ::4, ::4])
    data.compare("mean_sum", mean[0, 0].sum((-2, -1)))
    log_prob = -unit_normal_nll(mean, image.unsqueeze(0), event_dims=3)
    data.compare("log_prob", log_prob)
    data.compare("grad_feat", torch.autograd.grad(log_prob.sum(), feat)[0])
    decoder.elu_output = True
    mean = decoder(feat)
    data.compare("mastering_mean_sub", mean[0, 0, :, ::4, ::4])
    data.compare("mastering_log_prob", -unit_normal_nll(mean, image.unsqueeze(0), event_dims=3).squeeze())
