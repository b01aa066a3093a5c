"""Checkers of what skill-based agents are made of: a search, and a world model with normal latents."""

import torch
from golden_recording import Recording, linear, mlp_names, prefixed
from torch import Tensor, nn

from urlbench.agents.common.cem import CEMConfig, cem
from urlbench.agents.common.draws import Draws
from urlbench.agents.common.latents import GaussianLatents
from urlbench.agents.common.rssm import RSSM
from urlbench.agents.common.world_model import kl_loss


class GivenNoise(Draws):
    """Prescribed normal numbers, in the order of use."""

    def __init__(self, noise: Tensor) -> None:
        super().__init__(0)
        self._noise = iter(noise)

    def normal(self, like: Tensor) -> Tensor:
        return next(self._noise)

    def latent_noise(self, mean: Tensor) -> Tensor:
        return next(self._noise).unsqueeze(-1)


def check_cem_skill_plan(data: Recording) -> None:
    # The values are the recorded ones: what is checked is the search. Two searches, of one skill each.
    config = CEMConfig(iterations=1, samples=data.hp("population"), elites=data.hp("elites"))
    noises, values = data["in_skill_noise"].transpose(2, 3), data["out_values"]  # [I, B, H, G, Z], [I, B, G]
    results: dict[str, list[Tensor]] = {"candidates": [], "mean": [], "std": []}
    for b in range(values.shape[1]):
        seen, means, stds = [], [], []
        mean = torch.full(noises.shape[2::2], float(data.hp("init_mean")))
        std = torch.full_like(mean, data.hp("init_std"))
        for i in range(data.hp("iterations")):

            def objective(x: Tensor, seen: list[Tensor] = seen, i: int = i, b: int = b) -> Tensor:
                seen.append(x.transpose(0, 1))
                return values[i, b]

            found = cem(objective, mean, std, config, GivenNoise(noises[i, b : b + 1]))
            mean, std = found.mean, found.std
            means.append(mean)
            stds.append(std)
        for name, each in (("candidates", seen), ("mean", means), ("std", stds)):
            results[name].append(torch.stack(each))
    for name, each in results.items():
        data.compare(name, torch.stack(each, 1))
    noisy = torch.stack(results["mean"], 1)[-1] + data.hp("noise_std") * data["in_mean_noise"]
    data.compare("mean_noisy", noisy)


def check_tdmpc_plan(data: Recording) -> None:
    _check_plan(data, "action_eval")


def check_skimo_plan(data: Recording) -> None:
    data.compare("std_min", _std_floor(data))
    _check_plan(data, "skill_eval")


def _std_floor(data: Recording) -> float:
    share = min(1.0, data.hp("step") / data.hp("std_step"))
    return data.hp("max_std") + share * (data.hp("min_std") - data.hp("max_std"))


def _check_plan(data: Recording, executed: str) -> None:
    # The values and the policy's proposals are the recorded ones: what is checked is the search.
    noise, candidates, values = data["in_sample_noise"], data["out_candidates"], data["out_values"]
    config = CEMConfig(
        iterations=len(noise),
        samples=noise.shape[2],
        elites=data.hp("num_elites"),
        temperature=data.hp("temperature"),
        momentum=data.hp("momentum"),
        min_std=_std_floor(data),
        max_std=data.hp("std_init"),
        limit=data.hp("clip"),
    )
    previous = data["in_prev_mean"]
    mean = torch.cat([previous[1:], torch.zeros_like(previous[:1])])
    seen: list[Tensor] = []

    def objective(x: Tensor) -> Tensor:
        seen.append(x)
        return values[len(seen) - 1]

    std = torch.full_like(mean, data.hp("std_init"))
    found = cem(objective, mean, std, config, GivenNoise(noise), proposals=candidates[0, :, noise.shape[2] :])
    data.compare("candidates", torch.stack(seen))
    data.compare("plan_mean", found.mean)
    data.compare(executed, found.elites[0, -1 - int(data["in_choice"])])  # recorded in ascending order


def check_dreamerv1_rssm(data: Recording) -> None:
    # Not ours: the prior's own sample when filtering, which nothing uses; we do not draw it.
    encoder = data.mlp("enc_", last_is_output=True)
    variables, deter = data.arrays["out_post_mean"].shape[-1], data.arrays["out_deter"].shape[-1]
    action_dim, embed_dim = data.arrays["in_action"].shape[-1], data.arrays["out_embed"].shape[-1]
    latents = GaussianLatents(variables, min_std=data.hp("min_std"))
    rssm = RSSM(embed_dim, action_dim, deter=deter, hidden=len(data.arrays["w_in_l0_b"]), latents=latents)
    cell = nn.GRUCell(len(data.arrays["w_in_l0_b"]), deter)
    rssm.cell = cell  # type: ignore[assignment]
    named = linear("in_l0", rssm.pre)
    named |= linear("prior_l0", rssm.prior1) | linear("prior_l1", rssm.prior2)
    named |= linear("post_l0", rssm.post1) | linear("post_l1", rssm.post2)
    named |= {f"rssm_gru_{side}_w": getattr(cell, f"weight_{side}") for side in ("ih", "hh")}
    named |= {f"rssm_gru_{side}_b": getattr(cell, f"bias_{side}") for side in ("ih", "hh")}
    named |= prefixed("enc_", mlp_names(encoder, last_is_output=True))
    data.load("", named)
    embed = encoder(data["in_obs"])
    is_first = torch.zeros(embed.shape[:2], dtype=torch.bool)
    post, prior = rssm.observe(data["in_action"], embed, is_first, GivenNoise(data["in_post_noise"]))
    data.compare("embed", embed)
    data.compare("deter", post.deter)
    data.compare("feat", post.feat)
    data.compare("post_stoch", post.stoch.squeeze(-1))
    for name, state in (("post", post), ("prior", prior)):
        data.compare(f"{name}_mean", state.params[..., 0])
        data.compare(f"{name}_std", state.params[..., 1])
    for name, free in (("kl_loss", "free_nats"), ("kl_loss_high", "free_high")):
        loss, kl = kl_loss(latents, post.params, prior.params, balance=None, free_nats=data.hp(free))
        data.compare(name, loss)
        data.compare("kl", kl)
    total = latents.kl(post.params, prior.params).sum()
    gradients = torch.autograd.grad(total, list(named.values()), retain_graph=True)
    data.compare_all("grad_", dict(zip(named, gradients, strict=True)))

    state, states = type(post)(*(part[:, -1] for part in post)), []
    draws = GivenNoise(data["in_imag_noise"])
    for action in data["in_imag_action"].unbind(1):
        state = rssm.imagine_step(state, action, draws)
        states.append(state)
    imagined = type(post)(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))
    data.compare("imag_deter", imagined.deter)
    data.compare("imag_stoch", imagined.stoch.squeeze(-1))
    data.compare("imag_mean", imagined.params[..., 0])
    data.compare("imag_std", imagined.params[..., 1])
