"""Which settings a pretraining reads, and which agents start from one and the same."""

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import agent_factory as factory
import pytest
from agent_factory import batch_for, play, same
from pydantic import BaseModel
from toy_runs import PLUGIN, run, with_spec

from urlbench.core import registry
from urlbench.core.config import flatten, plain_values, pretraining_of, resolve_config
from urlbench.core.durable import read_jsonl
from urlbench.core.identity import canonical_json
from urlbench.core.interfaces import Agent
from urlbench.core.jobs import JobSpec
from urlbench.core.types import ObservationKind, Spec
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.runs.store import RunDirectory, RunStore
from urlbench.training.checkpoint import snapshot_digest

# Other tests may have registered agents of their own.
OWN = sorted(name for name, entry in registry._AGENTS.items() if entry.origin == "urlbench")
AGENTS = [name for name in OWN if registry.load_agent(name).pretrains]
SHARERS = ("choreographer", "choreographer-single-skill", "choreographer-zero-shot")
# So many updates that the toy suite's few frames are enough.
WORLD_MODEL = {
    "schedule.update_every_frames": 12,
    "schedule.seed_frames": 25,
    "schedule.batch_size": 3,
    "schedule.batch_length": 6,
}
KINDS: tuple[ObservationKind, ...] = ("states", "pixels")


def another(annotation: Any, value: Any) -> Any:
    """A value that the field takes, too, and that is not `value`."""
    if typing.get_origin(annotation) is typing.Literal:
        return next(one for one in typing.get_args(annotation) if one != value)
    if value is None:
        assert float in typing.get_args(annotation)
        return 0.01
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 + 0.01
    if isinstance(value, Sequence):
        return [one + 1 for one in value]
    raise AssertionError(f"what is another value than {value!r}?")


def changed(config: BaseModel, key: str) -> dict[str, Any]:
    """The plain values of `config`, all below the dotted `key` other ones."""
    first, _, rest = key.partition(".")
    values, old = config.model_dump(), getattr(config, first)
    if isinstance(old, BaseModel):
        for inner in [rest] if rest else type(old).model_fields:
            old = type(old).model_validate(changed(old, inner))
        values[first] = old.model_dump()
    else:
        values[first] = another(type(config).model_fields[first].annotation, old)
    return values


def with_other_finetuning(name: str) -> Spec:
    """The tiny configuration, everything that is said to be fine-tuning's changed."""
    spec = registry.load_agent(name)
    config: Spec = factory.smoke_config(name)
    for key in spec.finetuning_settings:
        config = spec.config.model_validate(changed(config, key))
    return config


def pretrained(name: str, config: Spec, kind: ObservationKind) -> tuple[Agent, list[list[float]]]:
    """An agent after some updates, and the actions between them."""
    agent = registry.load_agent(name).build(factory.context(kind), config)
    actor = agent.actor(evaluation=False, seed=5)
    actions = []
    for seed in range(3):
        agent.update(batch_for(agent, kind, seed=seed))
        actions += play(actor, kind, first=2 * seed, steps=2, begin=seed == 0)
    return agent, actions


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("kind", ["states", pytest.param("pixels", marks=pytest.mark.slow)])
def test_no_pretraining_reads_what_is_said_to_be_fine_tuning_s(name: str, kind: ObservationKind) -> None:
    spec = registry.load_agent(name)
    usual, other = factory.smoke_config(name), with_other_finetuning(name)
    settings, changes = (flatten(config.model_dump(mode="json")) for config in (usual, other))
    assert {key for key in settings if changes[key] != settings[key]} == {
        key for key in settings if any(key == one or key.startswith(f"{one}.") for one in spec.finetuning_settings)
    }
    (agent, actions), (agent_of_other, actions_of_other) = (pretrained(name, config, kind) for config in (usual, other))
    assert same(agent.state_dict(), agent_of_other.state_dict())
    assert actions == actions_of_other
    assert agent.schedule == agent_of_other.schedule
    assert agent.recorded == agent_of_other.recorded
    assert pretraining_of(spec, plain_values(usual)) == pretraining_of(spec, plain_values(other))


@pytest.mark.parametrize("name", [name for name in AGENTS if registry.load_agent(name).pretrained_as is not None])
@pytest.mark.parametrize("kind", KINDS)
def test_who_shares_a_pretraining_learns_the_same_and_goes_on_from_it(name: str, kind: ObservationKind) -> None:
    spec, config = registry.load_agent(name), factory.smoke_config(name)
    maker, settings = pretraining_of(spec, plain_values(config))
    assert (maker.image, maker.looks) == (spec.image, spec.looks)
    assert set(spec.observations) <= set(maker.observations)
    own, actions = pretrained(name, config, kind)
    made, actions_of_maker = pretrained(maker.name, maker.config.model_validate(settings), kind)
    assert same(own.state_dict(), made.state_dict())
    assert actions == actions_of_maker

    started = spec.build(factory.context(kind, seed=1), config)
    started.load_state_dict(made.state_dict())
    tuned = [agent.for_finetuning(factory.context(kind)) for agent in (own, started)]
    assert same(tuned[0].state_dict(), tuned[1].state_dict())


@pytest.mark.parametrize("preset", ["paper", "small", "smoke"])
def test_the_sharers_are_those_that_differ_in_fine_tuning_alone(preset: str) -> None:
    by_pretraining: dict[str, list[str]] = {}
    for name in AGENTS:
        spec = registry.load_agent(name)
        maker, settings = pretraining_of(spec, plain_values(resolve_config(spec, preset)))
        by_pretraining.setdefault(maker.name + canonical_json(settings), []).append(name)
    assert [tuple(agents) for agents in by_pretraining.values() if len(agents) > 1] == [SHARERS]


def plan_of(suite: str, agents: tuple[str, ...], tasks: tuple[str, ...], **changes: Any) -> PlanRequest:
    values = {"suite": suite, "agents": agents, "tasks": tasks, "seeds": (0,), "preset": "smoke", **changes}
    return PlanRequest(**values, plugins=(str(PLUGIN),) if suite.startswith("toy") else ())


def pretrainings(request: PlanRequest) -> list[JobSpec]:
    return [job.spec for job in make_plan(request).jobs if job.spec.phase == "pretrain"]


def test_planning_starts_from_the_pretraining_without() -> None:
    agent = ("dreamer-p2e",)
    (without,) = pretrainings(plan_of("toy-states", agent, ("ball_left",)))
    planned = plan_of("toy-states", agent, ("ball_left",), overrides=("agent.planning=true", "agent.planner.samples=8"))
    assert pretrainings(planned) == [without]
    assert [*make_plan(planned).jobs][1].spec.agent_config["planning"]


@pytest.mark.parametrize(
    ("suite", "task"),
    [("toy-states", "ball_left"), pytest.param("urlb-states", "walker_walk", marks=pytest.mark.slow)],
)
def test_sharers_run_one_pretraining_which_is_bit_for_bit_what_each_alone_would_run(
    suite: str, task: str, tmp_path: Path
) -> None:
    quick = WORLD_MODEL if suite.startswith("toy") else {}
    overrides = tuple(f"{agent}.{key}={value}" for agent in SHARERS for key, value in quick.items())
    plan = make_plan(plan_of(suite, SHARERS, (task,), overrides=overrides))
    assert [(job.spec.phase, job.spec.agent) for job in plan.jobs] == [
        ("pretrain", "choreographer"),
        *(("finetune", agent) for agent in SHARERS),
    ]
    shared = plan.jobs[0]
    for job in plan.jobs:
        directory = RunStore(tmp_path).run_dir(job)
        directory.prepare(job)
        assert run(tmp_path, job, directory) == "done"
        assert job.parent_path in (None, shared.path)
    pretraining = RunStore(tmp_path).run_dir(shared)
    assert read_jsonl(pretraining.train_file)[-1]["updates"] > 1
    digests = snapshot_digests(pretraining)
    assert len(digests) == len(shared.spec.protocol.snapshots)
    for job in plan.jobs[1:]:
        spec = job.spec
        alone, directory = with_spec(shared, tmp_path / spec.agent, agent=spec.agent, agent_config=spec.agent_config)
        assert run(tmp_path / spec.agent, alone, directory) == "done"
        assert snapshot_digests(directory) == digests


def snapshot_digests(directory: RunDirectory) -> dict[str, str]:
    return {path.name: snapshot_digest(path) for path in sorted(directory.snapshots.glob("*.pt"))}
