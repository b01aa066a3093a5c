"""Agents, contexts and batches for the tests of agents: tiny, and the same for the same arguments."""

import io
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from urlbench.agents.choreographer.choreographer import ChoreographerConfig
from urlbench.agents.choreographer.vq_vae import SkillConfig
from urlbench.agents.common.actor_critic import ActorCriticConfig
from urlbench.agents.common.finetuning import Finetuning
from urlbench.agents.common.world_model import WorldModelConfig
from urlbench.core import registry
from urlbench.core.config import resolve_config
from urlbench.core.interfaces import Actor, Agent, AgentContext, Array
from urlbench.core.types import ObservationKind, Spec
from urlbench.episodes.replay import aligned

torch.set_num_threads(1)  # these matrices are tiny, and waiting for a second thread on a busy machine takes seconds

TINY = ChoreographerConfig(
    world_model=WorldModelConfig(deter=6, hidden=7, variables=3, classes=4, mlp_units=(8, 8), conv_depth=2),
    skills=SkillConfig(codes=5, code_dim=3, units=(8, 8), resample_every=2),
    actor_critic=ActorCriticConfig(units=(8, 8), horizon=3, slow_every=2),
    entropy_neighbours=4,
)


DREAMERS_WITH_SKILLS = ("dreamer-aps", "dreamer-diayn")
ABLATIONS = (
    "choreographer-no-resampling",
    "choreographer-single-skill",
    "choreographer-zero-shot",
    "edl-dreamer",
    "latent-edl",
)
DREAMERS_WITH_REPLAY_REWARDS: tuple[str, ...] = ("dreamer-icm", "dreamer-rnd")


def dreamer_agents() -> list[str]:
    """The names of the Dreamer family."""
    return [name for name in sorted(registry.names("agent")) if name.partition("-")[0] == "dreamer"]


def tiny(name: str, **changes: Any) -> Any:
    """The agent's configuration in the sizes of TINY, with nested changes."""
    config = registry.load_agent(name).config
    values = {key: value for key, value in TINY.model_dump().items() if key in config.model_fields}
    sizes = {"neighbours": 3, "models": 3, "outputs": 4, "hidden": 7, "skill_dim": 3, "task_states": 20}
    values |= {key: size for key, size in sizes.items() if key in config.model_fields}
    if name == "dreamer-diayn":
        values["skills"] = 4
    for key, value in changes.items():
        values[key] = values.get(key, {}) | value if isinstance(value, dict) else value
    return config.model_validate(values)


def settled(agent: Agent) -> Agent:
    """The fine-tuning agent, with a skill chosen if it has skills."""
    if isinstance(agent, Finetuning) and agent.skills is not None:
        agent.chosen_skill = torch.eye(agent.skills.dim)[0]
    return agent


def dynamics_alone(rssm: Any) -> Any:
    """A world model of these dynamics, as imagination sees it, whose episodes never end."""
    return SimpleNamespace(rssm=rssm, continues=lambda feat: None)


def context(
    kind: ObservationKind = "states",
    *,
    seed: int = 0,
    collects: bool = True,
    repeat: int = 1,
    ends_early: bool = False,
) -> AgentContext:
    """Where a tiny agent lives: 5 numbers or an image to see, 2 actions."""
    shape = (5,) if kind == "states" else (3, 64, 64)
    return AgentContext(
        kind, shape, action_dim=2, action_repeat=repeat, seed=seed, collects=collects, ends_early=ends_early
    )


def smoke_config(name: str) -> Spec:
    """The agent's smoke preset, with few channels."""
    spec = registry.load_agent(name)
    changes = {"world_model": {"conv_depth": 4}} if "world_model" in spec.config.model_fields else {}
    return resolve_config(spec, "smoke", changes)


def build(name: str, kind: ObservationKind = "states", *, seed: int = 0, collects: bool = True) -> Agent:
    """The pretraining agent of that name with its smoke preset."""
    return registry.load_agent(name).build(context(kind, seed=seed, collects=collects), smoke_config(name))


def batch(
    kind: ObservationKind = "states",
    *,
    seed: int = 0,
    size: int = 3,
    length: int | None = None,
    recorded: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, Array]:
    """A batch as a replay gives it, with rewards in [0, 1); what agents record are one-hot vectors."""
    rng = np.random.default_rng(seed)
    length = length or (5 if kind == "states" else 3)  # images take time
    if kind == "states":
        observation: Array = rng.normal(size=(size, length, 5)).astype(np.float32)
    else:
        observation = rng.integers(0, 256, size=(size, length, 3, 64, 64), dtype=np.uint8)
    arrays = {
        "observation": observation,
        "action": rng.uniform(-1, 1, size=(size, length, 2)).astype(np.float32),
        "reward": rng.random((size, length), np.float32),
        "discount": np.ones((size, length), np.float32),
        "is_first": np.arange(length) == np.zeros((size, 1)),
    }
    for name, (dim,) in (recorded or {}).items():
        arrays[name] = np.eye(dim, dtype=np.float32)[rng.integers(dim, size=(size, length))]
    return {name: aligned(array) for name, array in arrays.items()}


def padded(arrays: Mapping[str, Array], lengths: Sequence[int]) -> dict[str, Array]:
    """The batch as if its episodes had terminated after so many entries: zeros behind them."""
    time = np.arange(arrays["reward"].shape[1])
    mask = time < np.array(lengths)[:, None]
    discount = np.where(time == np.array(lengths)[:, None] - 1, 0, arrays["discount"]).astype(np.float32)
    return filled({**arrays, "discount": discount, "mask": mask}, lambda array: np.zeros_like(array))


def filled(arrays: Mapping[str, Array], padding: Callable[[Array], Array]) -> dict[str, Array]:
    """The batch with other padding, made of what is there now."""
    behind = ~arrays["mask"]
    changed = {name: array.copy() for name, array in arrays.items()}
    for name in changed.keys() - {"mask", "is_first"}:
        changed[name][behind] = padding(changed[name][behind])
    return {name: aligned(array) for name, array in changed.items()}


def batch_for(agent: Agent, kind: ObservationKind = "states", **options: Any) -> dict[str, Array]:
    """`batch` with what `agent` records."""
    return batch(kind, recorded=agent.recorded, **options)


def tensors(**options: Any) -> dict[str, Tensor]:
    """`batch` as tensors."""
    return {name: torch.from_numpy(array) for name, array in batch(**options).items()}


def stored(state: Mapping[str, Any]) -> dict[str, Any]:
    """`state` after a trip through a file, read as checkpoints are: tensors and plain values only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit, through nested dictionaries and lists."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, Mapping):
        return isinstance(other, Mapping) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def play(actor: Actor, kind: ObservationKind, *, first: int, steps: int, begin: bool = True) -> list[list[float]]:
    """The actions of `steps` steps on given observations, the run's counter starting at `first`."""
    observations = batch(kind, seed=99, size=1, length=first + steps)["observation"][0]
    actions = []
    if begin:
        actor.begin_episode()
    for step in range(first, first + steps):
        actor.before_step(step)
        action = actor.act(observations[step], step)
        assert action.dtype == np.float32
        actions.append(action.tolist())
        actor.after_step(step + 1)
    return actions
