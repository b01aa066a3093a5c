"""Checkers of the DDPG backbone: one function a topic."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from golden_recording import GivenDraws, Recording, RecordingOptimiser, drawn, mlp_names, prefixed
from torch import Tensor, nn

from urlbench.agents.common.distributions import ClampedNormal
from urlbench.agents.common.networks import MLP
from urlbench.agents.common.running_moments import RunningMoments
from urlbench.agents.common.world_model import preprocess
from urlbench.agents.ddpg.aps import APSConfig
from urlbench.agents.ddpg.backbone import (
    ADAM,
    Backbone,
    DDPGConfig,
    Transitions,
    n_step_transitions,
    noise_std,
    soft_update,
)
from urlbench.agents.ddpg.cic import CICConfig
from urlbench.agents.ddpg.diayn import DIAYNConfig
from urlbench.agents.ddpg.learner import DDPGLearner
from urlbench.agents.ddpg.networks import Policy, Trunk, TwinCritic, random_shift
from urlbench.agents.ddpg.smm import SMMConfig
from urlbench.core.interfaces import AgentContext, Batch, TimeStep
from urlbench.core.registry import load_agent
from urlbench.core.types import ObservationKind
from urlbench.episodes.replay import Replay

# --- Our modules with the recorded weights ---


class Given(GivenDraws):
    """Prescribed shifts, candidates and normal numbers, too."""

    def __init__(
        self, noise: Iterable[Tensor] = (), normal: Iterable[Tensor] = (), candidates: Iterable[Tensor] = ()
    ) -> None:
        super().__init__(noise)
        self._normal, self._candidates = iter(normal), iter(candidates)
        self.candidate_probs: list[Tensor] = []

    def normal(self, like: Tensor) -> Tensor:
        return next(self._normal)

    def candidate(self, probs: Tensor) -> Tensor:
        self.candidate_probs.append(probs)
        return next(self._candidates)


def trunk_names(trunk: Trunk) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    return {
        "trunk_l0_w": trunk.linear.weight,
        "trunk_l0_b": trunk.linear.bias,
        "trunk_n_g": trunk.norm.weight,
        "trunk_n_b": trunk.norm.bias,
    }


def stack_names(module: MLP) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names: the last layer is the output."""
    return mlp_names(module, last_is_output=True)


def actor_names(actor: Policy) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    return trunk_names(actor.trunk) | stack_names(actor.head)


def critic_names(critic: TwinCritic) -> dict[str, nn.Parameter]:
    """Our parameters by their recorded names."""
    named = trunk_names(critic.trunk)
    for i, head in enumerate(critic.heads, start=1):
        assert isinstance(head, MLP)
        named |= prefixed(f"q{i}_", stack_names(head))
    return named


def _hidden(data: Recording, prefix: str) -> tuple[int, ...]:
    count = sum(1 for name in data.names(f"w_{prefix}l") if name.endswith("_w"))
    return tuple(data.arrays[f"w_{prefix}l{i}_w"].shape[0] for i in range(count - 1))


def actor(data: Recording, prefix: str) -> Policy:
    """Our policy in the shape of the recorded one."""
    trunk, inputs = data.arrays[f"w_{prefix}trunk_l0_w"].shape
    module = Policy(inputs, len(data.arrays["in_action"].T), trunk=trunk, hidden=_hidden(data, prefix))
    data.load(prefix, actor_names(module))
    return module


def critic(data: Recording, prefix: str, kind: ObservationKind) -> TwinCritic:
    """Our critic in the shape of the recorded one."""
    trunk, inputs = data.arrays[f"w_{prefix}trunk_l0_w"].shape
    action_dim = len(data.arrays["in_action"].T)
    module = TwinCritic(
        inputs - (action_dim if kind == "states" else 0),
        action_dim,
        trunk=trunk,
        hidden=_hidden(data, f"{prefix}q1_"),
        kind=kind,
    )
    data.load(prefix, critic_names(module))
    return module


def transitions(data: Recording, skill: str | None = None, step: int | None = None) -> Transitions:
    """The recorded batch, or the one of that number; `skill` names its skills."""
    names = ("obs", "action", "reward", "discount", "next_obs", *([skill] if skill else []))
    arrays = {name: data[f"in_{name}"] if step is None else data[f"in_{name}"][step] for name in names}
    return Transitions(
        obs=arrays["obs"],
        action=arrays["action"],
        reward=arrays["reward"].squeeze(-1),
        discount=arrays["discount"].squeeze(-1),
        next_obs=arrays["next_obs"],
        skill=arrays[skill] if skill else None,
    )


def context(data: Recording) -> AgentContext:
    """Where an agent with the recorded batch lives."""
    obs, action = data.arrays["in_obs"], data.arrays["in_action"]
    return AgentContext("states", (obs.shape[-1],), action.shape[-1], 1, seed=0)


# --- Topics ---


def check_ddpg_nets(data: Recording) -> None:
    inputs: dict[ObservationKind, Tensor] = {"states": data["in_obs"], "pixels": data["in_pixel_feat"]}
    names: dict[ObservationKind, str] = {"states": "state", "pixels": "pixel"}
    for kind, x in inputs.items():
        name = names[kind]
        data.compare(f"{name}_mean", actor(data, f"{name}_actor_")(x, 0.2).mean)
        values = critic(data, f"{name}_critic_", kind)(x, data["in_action"])
        for i, value in enumerate(values, start=1):
            data.compare(f"{name}_q{i}", value)


def check_ddpg_noise(data: Recording) -> None:
    std, limit = data.hp("std"), data.hp("clip")
    for name, noise_limit in (("clipped", limit), ("free", None)):
        mean = data["in_mean"].requires_grad_()
        policy = ClampedNormal(mean, torch.full_like(mean, std))
        action = policy.sample(data["in_noise"], noise_limit=noise_limit)
        data.compare(name, action)
        data.compare(f"{name}_grad", torch.autograd.grad(action, mean, data["in_upstream"])[0])
        if noise_limit is not None:
            data.compare("log_prob", policy.log_prob(action))
            data.compare("entropy", policy.entropy())


def check_ddpg_update(data: Recording) -> None:
    hidden = data.arrays["w_actor_trunk_l0_w"].shape[0]
    config = DDPGConfig(hidden=hidden, noise_limit=data.hp("std_clip"), tau=data.hp("tau"), lr=data.hp("lr"))
    backbone = Backbone(context(data), config)
    named = {
        "actor": actor_names(backbone.actor),
        "critic": critic_names(backbone.critic),
        "target": critic_names(backbone.target),
    }
    for name, parameters in named.items():
        data.load(f"{name}_", parameters)
    optimisers = {name: RecordingOptimiser(named[name].values(), config.lr, ADAM) for name in ("actor", "critic")}
    batch, std = transitions(data), data.hp("std")
    seen: dict[str, list[tuple[Tensor, Tensor]]] = {"critic": [], "target": []}
    for name, calls in seen.items():

        def note(module: nn.Module, args: Any, values: Tensor, calls: list[Any] = calls) -> None:
            calls.append((args[1], values))

        getattr(backbone, name).register_forward_hook(note)

    losses: dict[str, list[Tensor]] = {"actor": [], "critic": []}
    for update, noises in enumerate(data["in_noise"]):
        metrics = backbone.learn(batch, std, Given(noise=drawn(noises)), optimisers)
        for name, history in losses.items():
            history.append(metrics[f"{name}_loss"])
            if update == 0:
                data.compare_all(f"{name}_grad_", optimisers[name].named_gradients(named[name]))
    (_, values), (actor_action, _) = seen["critic"][:2]
    next_action, next_values = seen["target"][0]
    data.compare("next_action", next_action)
    data.compare("target", batch.reward + batch.discount * next_values.amin(0))
    data.compare("actor_action", actor_action)
    data.compare("q1", values[0])
    data.compare("q2", values[1])
    for name, history in losses.items():
        data.compare(f"{name}_loss", torch.stack(history))
    for name, parameters in named.items():
        data.compare_all(f"{name}_after_", parameters)


def check_soft_update(data: Recording) -> None:
    for name, tau in (("tau001", data.hp("tau")), ("tau005", data.hp("encoder_tau"))):
        source, target = (nn.Linear(*data["in_target"].T.shape, bias=False) for _ in range(2))
        target.weight.data.copy_(data["in_target"])
        results = []
        for weight in data["in_source"]:
            source.weight.data.copy_(weight)
            soft_update(source, target, tau)
            results.append(target.weight.detach().clone())
        data.compare(name, torch.stack(results))


def check_schedule(data: Recording) -> None:
    schedules = {
        "constant": ((0, 0.2),),
        "linear": ((0, 1.0), (100, 0.1)),
        "step_linear": ((0, 1.0), (100, 0.5), (600, 0.1)),
    }
    for name, points in schedules.items():
        data.compare(name, [noise_std(points, step) for step in data.arrays["in_steps"].tolist()])


def check_running_stats(data: Recording) -> None:
    moments = RunningMoments()
    for name, start in (("mean", moments.mean), ("var", moments.var), ("count", moments.count)):
        assert torch.isclose(start, torch.tensor(data.hp(f"{name}0"), dtype=data.dtype))
    results: dict[str, list[Tensor]] = {"mean": [], "var": [], "count": []}
    for batch in data["in_batches"]:
        moments.update(batch)
        for name, history in results.items():
            history.append(getattr(moments, name).clone())
    for name, history in results.items():
        data.compare(name, torch.stack(history))


def check_nstep_replay(data: Recording) -> None:
    # Uniformity of the starts is checked to 5 standard deviations.
    arrays = {
        name: data.arrays[f"in_{name}"].astype(np.float32)
        for name in ("observation", "action", "reward", "discount", "skill")
    }
    entries, nstep = len(arrays["observation"]), data.hp("nstep")
    replay = Replay(
        None, arrays["observation"].shape[1:], np.float32, arrays["action"].shape[1], entries, {"skill": (1,)}
    )
    for i in range(entries):
        numbers = (float(arrays["reward"][i, 0]), float(arrays["discount"][i, 0]))
        step = TimeStep(arrays["observation"][i], *numbers, is_first=i == 0, is_last=i == entries - 1)
        replay.add(step, arrays["action"][i] if i else None, {"skill": arrays["skill"][i]})
    windows = replay.sample(np.random.default_rng(0), Batch(size=400 * entries, length=nstep + 1))
    starts = (windows["observation"][:, 0, None] == arrays["observation"]).all(-1).argmax(-1)
    found, first, counts = np.unique(starts, return_index=True, return_counts=True)
    assert (np.diff(found) == 1).all()
    share = 1 / len(found)
    deviation = np.sqrt(len(starts) * share * (1 - share))
    assert (np.abs(counts - len(starts) * share) < 5 * deviation).all(), f"starts are drawn unevenly: {counts}"
    batch = {name: torch.from_numpy(values[first]).to(data.dtype) for name, values in windows.items()}
    result = n_step_transitions(batch, data.hp("gamma"))
    data.compare("obs", result.obs)
    data.compare("act", result.action)
    data.compare("rew", result.reward)
    data.compare("disc", result.discount)
    data.compare("next_obs", result.next_obs)
    data.compare("meta", result.skill)
    acting = n_step_transitions(batch, data.hp("gamma"), "acting").skill
    assert acting is not None
    assert torch.equal(acting[:-1], result.skill[1:])  # type: ignore[index]


def check_random_shift(data: Recording) -> None:
    images, shift, pad = torch.from_numpy(data.arrays["in_image"]), data["in_shift"], data.hp("pad")
    shifted = random_shift(images, shift, pad)
    data.compare("exact", shifted.to(data.dtype))
    data.compare("shifted", shifted.to(data.dtype))
    data.compare("encoder_input", preprocess(shifted))


def compare_ddpg_schedules(data: Recording) -> None:
    """Compare which skills DDPG agents act with and store, in episodes of constant length: a part of one topic."""
    configs = {
        "aps": APSConfig(hidden=2, skill_steps=data.hp("ddpg_aps_every")),
        "cic": CICConfig(hidden=2, skill_steps=data.hp("ddpg_cic_every")),
        "diayn": DIAYNConfig(hidden=2, skill_steps=data.hp("ddpg_diayn_every")),
        "smm_pretrain": SMMConfig(hidden=2),
        "smm_finetune": SMMConfig(hidden=2),
    }
    lives = AgentContext("states", (2,), 2, 1, seed=0)
    for name, config in configs.items():
        method, _, phase = name.partition("_")
        agent = load_agent(method).build(lives, config)
        if phase == "finetune":
            agent = agent.for_finetuning(lives)
        assert isinstance(agent, DDPGLearner)
        assert agent.skills is not None
        numbers = iter(range(1, 10_000))
        agent.skills.draw = lambda draws, numbers=numbers: torch.tensor([next(numbers)])  # type: ignore[method-assign]
        training = agent.actor(evaluation=False, seed=0)
        acting: list[int] = []
        stored: list[int] = []
        for step in range(len(data.arrays[f"out_ddpg_{name}_acting"])):
            if step % data.hp(f"ddpg_{name}_episode") == 0:
                training.begin_episode()
                stored.append(int(training.recorded()["skill"].item()))
            training.before_step(step)
            acting.append(int(training.recorded()["skill"].item()))
            stored.append(acting[-1])
        data.compare(f"ddpg_{name}_acting", acting)
        data.compare(f"ddpg_{name}_stored", stored)
