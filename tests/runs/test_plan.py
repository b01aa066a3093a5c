"""From a request to jobs: names, seeds, identity and paths."""

import json
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest

from urlbench.core import registry
from urlbench.core.errors import UserError
from urlbench.core.identity import canonical_json, config_hash, job_id
from urlbench.core.interfaces import Agent, AgentContext, AgentSpec
from urlbench.core.jobs import JobSpec
from urlbench.core.types import Domain, Normaliser, Protocol, Spec, Suite, Task
from urlbench.runs.plan import PlanRequest, format_frames, make_plan, parse_frames, parse_seeds, pretraining_lines

TASKS = {"ant_run": "ant", "ant_jump": "ant", "fish_swim": "fish"}


def protocol(preset: str) -> Protocol:
    return Protocol(
        preset=preset,
        description="for tests",
        pretrain_frames=200_000,
        snapshots=(100_000, 200_000),
        finetune_frames=1000,
        eval_every_frames=500,
        eval_episodes=2,
    )


SUITE = Suite(
    name="plan-states",
    version=3,
    description="for tests of planning",
    observation="states",
    action_repeat=2,
    domains=(
        Domain(name="ant", primal_task="ant_run", max_episode_frames=10),
        Domain(name="fish", primal_task="fish_swim", max_episode_frames=10),
    ),
    tasks=tuple(Task(name=name, domain=domain, description="") for name, domain in TASKS.items()),
    protocols={"paper": protocol("paper"), "smoke": protocol("smoke")},
    score="normalised_return",
    normaliser=Normaliser(name="none", version=1, source="made up", references=dict.fromkeys(TASKS, 1.0)),
    environment="nowhere:nothing",
    packages=("numpy",),
)


class PlannedConfig(Spec):
    rate: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


def never_built(context: AgentContext, config: Any) -> Agent:
    raise AssertionError("planning builds no agent")


def agent_spec(name: str, *, pretrains: bool = True, observations: tuple[Any, ...] = ("states",)) -> AgentSpec:
    return AgentSpec(
        name=name,
        description="",
        paper="",
        observations=observations,
        pretrains=pretrains,
        config=PlannedConfig,
        build=never_built,
        presets={"smoke": {"rate": 0.5}},
    )


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SUITES", dict(registry._SUITES))
    monkeypatch.setattr(registry, "_AGENTS", dict(registry._AGENTS))
    registry.register_suite(SUITE)
    registry.register_agent(agent_spec("learner"))
    registry.register_agent(agent_spec("newborn", pretrains=False))
    registry.register_agent(agent_spec("seer", observations=("pixels",)))


def request(**changes: Any) -> PlanRequest:
    return PlanRequest(**{"suite": "plan-states", "agents": ("learner",), "seeds": (0,), **changes})


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("1", (0,)), ("3", (0, 1, 2)), ("0-4", (0, 1, 2, 3, 4)), ("3,7", (3, 7)), ("3-3", (3,)), ("0-1,5", (0, 1, 5))],
)
def test_seeds_are_counted_or_explicit(text: str, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["0", "", "-1", "a", "4-2", "1,1", "0-2,1", "1.5", "3,", "4294967296", "1,9999999999"])
def test_seeds_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="seed"):
        parse_seeds(text)


@pytest.mark.parametrize(("text", "frames"), [("250", 250), ("100k", 100_000), ("2M", 2_000_000), ("1.5m", 1_500_000)])
def test_frames_with_units(text: str, frames: int) -> None:
    assert parse_frames(text) == frames


@pytest.mark.parametrize("text", ["", "k", "1.0001k", "-5", "2 million"])
def test_frames_that_are_no_number_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="frames"):
        parse_frames(text)


@pytest.mark.parametrize("frames", [0, 250, 1500, 100_000, 2_000_000, 1_500_000])
def test_format_frames_is_read_back(frames: int) -> None:
    assert parse_frames(format_frames(frames)) == frames


def test_finetunings_of_a_domain_and_seed_share_one_pretraining() -> None:
    jobs = make_plan(request(seeds=(0, 1))).jobs
    pretrainings = {(job.spec.domain, job.spec.seed): job for job in jobs if job.spec.phase == "pretrain"}
    finetunings = [job for job in jobs if job.spec.phase == "finetune"]
    assert sorted(pretrainings) == [("ant", 0), ("ant", 1), ("fish", 0), ("fish", 1)]
    assert len(finetunings) == len(TASKS) * 2
    for job in finetunings:
        parent = pretrainings[TASKS[job.spec.task], job.spec.seed]
        assert (job.spec.parent, job.parent_path) == (parent.id, parent.path)
        assert jobs.index(parent) < jobs.index(job)


class SharingConfig(PlannedConfig):
    tuned: float = 1.0


def register_sharer(name: str = "sharer", pretrained_as: str = "learner", tuned: tuple[str, ...] = ("tuned",)) -> None:
    spec = replace(agent_spec(name), config=SharingConfig, pretrained_as=pretrained_as, finetuning_settings=tuned)
    registry.register_agent(spec)


def test_agents_that_are_pretrained_alike_start_from_one_pretraining() -> None:
    register_sharer()
    asked = request(agents=("learner", "sharer"), domains=("ant",), seeds=(0, 1), overrides=("sharer.tuned=2",))
    plan = make_plan(asked)
    pretrainings = [job for job in plan.jobs if job.spec.phase == "pretrain"]
    assert pretrainings == list(make_plan(request(domains=("ant",), seeds=(0, 1), phase="pretrain")).jobs)
    assert len(plan.jobs) == 2 + 2 * 2 * 2
    for job in plan.jobs[2:]:
        assert (job.spec.parent, job.parent_path) == (
            pretrainings[job.spec.seed].id,
            pretrainings[job.spec.seed].path,
        )
    assert {job.spec.agent_config.get("tuned") for job in plan.jobs[2:]} == {None, 2.0}
    assert [*pretraining_lines(asked, plan)] == ["2 agents share 2 pretrainings of learner: learner, sharer"]


@pytest.mark.parametrize("phase", ["all", "pretrain", "finetune"])
def test_it_is_said_whose_pretraining_an_agent_starts_from(phase: Any) -> None:
    register_sharer()
    asked = request(agents=("sharer",), domains=("ant",), phase=phase)
    assert [*pretraining_lines(asked, make_plan(asked))] == ["sharer starts from 1 pretraining of learner"]
    own = request(domains=("ant",), phase=phase)
    assert [*pretraining_lines(own, make_plan(own))] == []


def test_settings_that_pretraining_reads_are_not_shared() -> None:
    register_sharer()
    plan = make_plan(request(agents=("learner", "sharer"), domains=("ant",), overrides=("sharer.rate=2",)))
    assert [job.spec.agent_config["rate"] for job in plan.jobs if job.spec.phase == "pretrain"] == [0.1, 2.0]


def test_an_agent_cannot_be_pretrained_as_one_that_reads_other_settings_or_has_no_pretraining() -> None:
    register_sharer(tuned=())
    with pytest.raises(UserError, match=r"pretrained as 'learner', which does not take its tuned; name .* in finetun"):
        make_plan(request(agents=("sharer",)))
    register_sharer("heir", "newborn")
    with pytest.raises(UserError, match="pretrained as 'newborn', which has no pretraining of its own"):
        make_plan(request(agents=("heir",)))


def test_the_primal_task_pretrains() -> None:
    (job,) = make_plan(request(domains=("ant",), phase="pretrain")).jobs
    assert (job.spec.task, job.spec.snapshot, job.spec.parent) == ("ant_run", 0, None)


def test_paths_say_what_a_run_is() -> None:
    jobs = make_plan(request(tasks=("ant_jump",), seeds=(7,), preset="smoke")).jobs
    config = config_hash({"rate": 0.5, "sizes": [1, 2]})
    assert [job.path for job in jobs] == [
        f"plan-states@3/learner-{config}/smoke/pretrain/ant/seed_7",
        f"plan-states@3/learner-{config}/smoke/finetune/ant_jump/snapshot_200000/seed_7",
    ]


def test_an_agent_without_pretraining_starts_from_nothing() -> None:
    jobs = make_plan(request(agents=("newborn",), domains=("fish",), snapshots="all")).jobs
    assert [(job.spec.phase, job.spec.snapshot, job.spec.parent) for job in jobs] == [("finetune", 0, None)]
    assert "snapshot" not in jobs[0].path


def test_finetune_alone_names_the_parents_it_does_not_plan() -> None:
    whole = make_plan(request(tasks=("ant_run",))).jobs
    (alone,) = make_plan(request(tasks=("ant_run",), phase="finetune")).jobs
    assert alone == whole[1]
    assert alone.parent_path == whole[0].path


@pytest.mark.parametrize(
    ("text", "frames"),
    [("last", [200_000]), ("all", [100_000, 200_000]), ("100k", [100_000]), ("200k,100k", [100_000, 200_000])],
)
def test_snapshots(text: str, frames: list[int]) -> None:
    jobs = make_plan(request(tasks=("ant_run",), phase="finetune", snapshots=text)).jobs
    assert [job.spec.snapshot for job in jobs] == frames


def test_ids_are_hashes_of_the_resolved_spec() -> None:
    (job,) = make_plan(request(domains=("ant",), phase="pretrain")).jobs
    assert job.id == job_id(job.spec)
    assert len(job.id) == 16
    assert JobSpec.model_validate(json.loads(canonical_json(job.spec.model_dump(mode="json")))) == job.spec
    assert job.spec.versions == {"numpy": metadata.version("numpy")}


@pytest.mark.parametrize("changes", [{"seeds": (1,)}, {"overrides": ("agent.rate=2",)}, {"preset": "smoke"}])
def test_what_changes_the_result_changes_id_and_path(changes: dict[str, Any]) -> None:
    before, after = make_plan(request()).jobs, make_plan(request(**changes)).jobs
    assert not {job.id for job in before} & {job.id for job in after}
    assert not {job.path for job in before} & {job.path for job in after}


def test_other_agents_and_a_spelled_out_default_change_nothing() -> None:
    alone = make_plan(request()).jobs
    among = make_plan(request(agents=("newborn", "learner", "learner"), overrides=("learner.rate=0.1",))).jobs
    assert [job for job in among if job.spec.agent == "learner"] == list(alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"suite": "plan-state"}, "unknown suite 'plan-state'; did you mean 'plan-states'"),
        ({"agents": ("lerner",)}, "unknown agent 'lerner'; did you mean 'learner'"),
        ({"domains": ("ants",)}, "unknown domain 'ants' in suite 'plan-states'; did you mean 'ant'"),
        ({"tasks": ("ant_fly",)}, "unknown task 'ant_fly' in suite 'plan-states'; did you mean 'ant_"),
        ({"preset": "smok"}, "unknown preset 'smok' of suite 'plan-states'; did you mean 'smoke'"),
        ({"tasks": ("ant_run",), "domains": ("fish",)}, "of domain 'ant', which --domains leaves out"),
        ({"snapshots": "150k"}, "no snapshot is kept at 150k frames.*100k, 200k"),
        ({"agents": ("seer",)}, "'seer' runs on pixels, and suite 'plan-states' gives states"),
        ({"agents": ()}, "no agent is named"),
        ({"seeds": ()}, "no seed is named"),
        ({"agents": ("newborn",), "phase": "pretrain"}, "gives no jobs: newborn has no pretraining"),
        ({"plugins": ("/nowhere/plugin.py",)}, "plugin file '/nowhere/plugin.py' does not exist"),
    ],
)
def test_what_cannot_be_planned_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(request(**changes))


def test_a_package_that_is_part_of_the_identity_must_be_installed() -> None:
    registry.register_suite(SUITE.model_copy(update={"name": "far-states", "packages": ("no-such-package",)}))
    message = r"suite 'far-states' needs .*: no-such-package \(not installed\); run: pip install 'no-such-package'"
    with pytest.raises(UserError, match=message):
        make_plan(request(suite="far-states"))
