"""Checkers of the replay and of the control flow: one function a topic."""

from collections.abc import Iterable
from unittest import mock

import numpy as np
import torch
from golden_ddpg import compare_ddpg_schedules
from golden_dreamer import compare_dreamer_schedules
from golden_recording import GivenDraws, Recording
from torch import Tensor

from urlbench.agents.choreographer.choreographer import (
    Choreographer,
    ChoreographerConfig,
    ChoreographerFinetuning,
    MetaActor,
)
from urlbench.agents.choreographer.vq_vae import SkillConfig
from urlbench.agents.common.actor_critic import ActorCriticConfig
from urlbench.agents.common.latent_actor import LatentActor
from urlbench.agents.common.skills import SkillSchedule
from urlbench.agents.common.world_model import WorldModelConfig
from urlbench.core.interfaces import AgentContext, Batch, Schedule, TimeStep
from urlbench.episodes.replay import Replay


def check_dreamer_replay(data: Recording) -> None:
    # Not ours: the skill stored along. Uniformity of the starts is checked to 5 standard deviations.
    arrays = {name: data.arrays[f"in_{name}"] for name in ("observation", "action", "reward", "discount")}
    entries, length = len(arrays["observation"]), data.hp("length")
    assert entries == data.hp("episode_length") + 1
    replay = Replay(
        None, arrays["observation"].shape[1:], np.float32, arrays["action"].shape[1], data.hp("episode_length")
    )
    for i in range(entries):
        numbers = (float(arrays["reward"][i, 0]), float(arrays["discount"][i, 0]))
        step = TimeStep(arrays["observation"][i], *numbers, is_first=i == 0, is_last=i == entries - 1)
        replay.add(step, arrays["action"][i] if i else None)
    assert replay.steps == data.hp("episode_length")
    batch = replay.sample(np.random.default_rng(0), Batch(size=400 * entries, length=length))
    starts = (batch["observation"][:, 0, None] == arrays["observation"]).all(-1).argmax(-1)
    windows = starts[:, None] + np.arange(length)
    for name, array in arrays.items():
        assert np.array_equal(batch[name], array[windows].reshape(batch[name].shape)), f"{name} is no window"
    found, counts = np.unique(starts, return_counts=True)
    data.compare("starts", found)
    share = 1 / len(found)
    deviation = np.sqrt(len(starts) * share * (1 - share))
    assert (np.abs(counts - len(starts) * share) < 5 * deviation).all(), f"starts are drawn unevenly: {counts}"
    last = int(starts.argmax())
    data.compare("last_is_first", batch["is_first"][last])
    data.compare("last_is_terminal", batch["discount"][last] == 0)
    data.compare("last_reward", batch["reward"][last])
    assert (batch["is_first"] == batch["is_first"][last]).all()


def check_skill_schedule(data: Recording) -> None:
    compare_ddpg_schedules(data)
    compare_dreamer_schedules(data)
    for case in data.names("hp_"):
        if not (case.startswith("choreo_") and case.endswith("_every")):
            continue
        agent = case.removesuffix("_every")
        acting, stored = _simulate(
            data.hp(case),
            data.hp(f"{agent}_episode"),
            len(data.arrays[f"out_{agent}_acting"]),
            looks_before_acting="pretrain" in agent,
        )
        data.compare(f"{agent}_acting", acting)
        data.compare(f"{agent}_stored", stored)


def _simulate(every: int, episode: int, steps: int, *, looks_before_acting: bool) -> tuple[list[int], list[int]]:
    """Numbers of the skills that act and that are stored, in a loop of constant episode length."""
    numbers = iter(range(1, steps + 2 * steps // episode + 2))
    schedule = SkillSchedule(lambda: next(numbers), every)
    acting: list[int] = []
    stored: list[int] = []

    def store(into: Iterable[list[int]]) -> None:
        assert schedule.skill is not None
        for each in into:
            each.append(schedule.skill)

    for step in range(steps):
        if step % episode == 0:
            schedule.at_episode_start()
            store([stored])
        if looks_before_acting:
            schedule.at_step(step)
        store([acting, stored])
        if not looks_before_acting and (step + 1) % episode:
            schedule.at_step(step + 1)
    return acting, stored


TINY = ChoreographerConfig(
    world_model=WorldModelConfig(deter=3, hidden=3, variables=2, classes=2, mlp_units=(3,)),
    skills=SkillConfig(codes=4, code_dim=2, units=(3,)),
    actor_critic=ActorCriticConfig(units=(3,), horizon=2),
    entropy_neighbours=2,
)


def check_choreo_control(data: Recording) -> None:
    config = TINY.model_copy(
        update={"schedule": Schedule(seed_frames=data.hp("init_frames")), "reward_threshold": data.hp("threshold")}
    )
    situations = data.arrays["in_situations"]
    agents = {}
    for repeat in np.unique(situations[:, 2]):
        context = AgentContext("states", (5,), 2, int(repeat), seed=0)
        agents[int(repeat)] = Choreographer(context, config), ChoreographerFinetuning(context, config)
    observed = [_situation(*agents[repeat], *rest) for repeat, *rest in situations[:, [2, 0, 1, 3, 4]].tolist()]
    data.compare("policy", [policy for policy, _ in observed])
    data.compare("stochastic", [stochastic for _, stochastic in observed])

    agent = ChoreographerFinetuning(AgentContext("states", (5,), 2, 1, seed=0), config)
    smoothing, updated = [], []
    for reward in data.arrays["in_rewards"]:
        batch, time = reward.shape[:2]
        before = int(agent.controller.critic.updates)
        agent.update(
            {
                "observation": np.zeros((batch, time, 5), data.numpy_dtype),
                "action": np.zeros((batch, time, 2), data.numpy_dtype),
                "reward": reward[..., 0].astype(data.numpy_dtype),
                "discount": np.ones((batch, time), data.numpy_dtype),
                "is_first": np.arange(time) == np.zeros((batch, 1)),
            }
        )
        smoothing.append(int(agent.smoothing))
        updated.append(int(agent.controller.critic.updates) - before)
    data.compare("smoothing", smoothing)
    data.compare("behaviour_updated", updated)


def _situation(
    pretrained: Choreographer,
    tuned: ChoreographerFinetuning,
    finetuning: int,
    step: int,
    smoothing: int,
    evaluation: int,
) -> tuple[int, int]:
    """Which policy acts (0 exploration, 1 random skill, 2 meta-controller), and whether it samples."""
    codes = tuned.config.skills.codes
    observation = np.zeros(5, np.float64 if torch.get_default_dtype() == torch.float64 else np.float32)
    noise = torch.full((1, 2), 0.01)
    if not finetuning:
        actor = pretrained.actor(evaluation=bool(evaluation), seed=0)
        assert isinstance(actor, LatentActor)
        actor._draws = GivenDraws(noise=[noise])
        with mock.patch.object(actor, "_policy", wraps=actor._policy) as called:
            actor.begin_episode()
            action = actor.act(observation, step)
        with torch.no_grad():
            mean = pretrained.explorer.actor(called.call_args.args[0]).mean[0].numpy()
        return 0, int(not np.array_equal(action, mean))
    tuned.smoothing, tuned.steps = bool(smoothing), step
    random_skill = torch.tensor([codes - 1])
    logits: list[Tensor] = []

    # The skill that the controller draws differs from its mode, so sampling shows.
    class Other(GivenDraws):
        def skill(self, probs: Tensor) -> Tensor:
            return next(self._skills) if not logits else logits[0].argmin(-1)

    actor = MetaActor(tuned, Other(noise=[noise], skills=[random_skill]), evaluation=bool(evaluation))
    choose = actor._chooser

    def note_logits(feat: Tensor) -> Tensor:
        logits.append(choose(feat))
        return logits[-1]

    with (
        mock.patch.object(actor, "_policy", wraps=actor._policy) as called,
        mock.patch.object(actor, "_chooser", note_logits),
    ):
        actor.begin_episode()
        action = actor.act(observation, 0 if evaluation else step)
    seen = called.call_args.args[0]
    skill = seen[0, -codes:].argmax()
    with torch.no_grad():
        mean = tuned.controller.executor(seen).mean[0].numpy()
    stochastic = int(not np.array_equal(action, mean))
    if not logits:
        assert skill == random_skill
        return 1, stochastic
    expected = logits[0].argmin() if stochastic else logits[0].argmax()
    assert skill == expected, "action and skill are sampled together or not at all"
    return 2, stochastic
