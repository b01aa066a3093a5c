"""Where data sets lie, what identifies them, and the suites that pretrain on them."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from toy_offline import PLUGINS, write_toys

from urlbench.core import exorl
from urlbench.core.errors import UserError
from urlbench.core.registry import load_suite, names
from urlbench.data.physics_replay import offline_environment
from urlbench.episodes.datasets import Dataset, dataset_folder, find_dataset
from urlbench.runs.plan import PlanRequest, make_plan
from urlbench.suites.dmc.recorded import EPISODES


def request(root: Path, **changes: object) -> PlanRequest:
    choices = {"suite": "toy-offline", "agents": ("toy",), "domains": ("ball",), "seeds": (0, 1), "preset": "smoke"}
    return PlanRequest.model_validate({**choices, "plugins": PLUGINS, "data": str(root), **changes})


# --- Finding and identity ---------------------------------------------------------------------------


def test_a_data_set_is_found_by_domain_and_collection(tmp_path: Path) -> None:
    folder = write_toys(tmp_path)
    dataset = find_dataset(tmp_path, "ball", "toys")
    assert dataset == Dataset(folder)
    assert folder == tmp_path / "ball" / "toys" == dataset_folder(tmp_path, "ball", "toys")
    assert (dataset.index.transitions, len(dataset.index.files)) == (160, 8)


@pytest.mark.parametrize(
    ("collection", "command"),
    [
        ("rnd", "urlbench data download --domain walker --collection rnd --data {root}"),
        ("mine", "urlbench data collect --domain walker --collection mine --data {root} --agent AGENT"),
    ],
)
def test_a_missing_data_set_comes_with_the_command_that_gets_it(tmp_path: Path, collection: str, command: str) -> None:
    with pytest.raises(UserError) as error:
        find_dataset(tmp_path, "walker", collection)
    assert command.format(root=tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["../rnd", "", ".hidden", "a b"])
def test_collections_have_names_that_are_folders(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="a collection cannot be called"):
        dataset_folder(tmp_path, "walker", name)


def test_the_fingerprint_is_that_of_the_files_that_are_used(tmp_path: Path) -> None:
    folder = write_toys(tmp_path)
    dataset = Dataset(folder)
    used = sorted(dataset.index.files, key=lambda file: file.name)[:3]
    assert dataset.first_files(41) == dataset.first_files(60) == used
    text = json.dumps([[file.name, file.sha256] for file in used], separators=(",", ":"))
    assert dataset.fingerprint(41) == dataset.fingerprint(60) == hashlib.sha256(text.encode()).hexdigest()
    assert len({dataset.fingerprint(transitions) for transitions in (20, 40, 160)}) == 3
    assert dataset.fingerprint(60) != Dataset(write_toys(tmp_path / "other", shift=1.0)).fingerprint(60)


def test_too_few_transitions_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds 160 transitions and 161 are asked for"):
        Dataset(write_toys(tmp_path)).fingerprint(161)


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}'])
def test_a_damaged_index_names_the_file_and_the_remedy(tmp_path: Path, content: str) -> None:
    folder = write_toys(tmp_path)
    (folder / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=r"dataset.json cannot be read .* urlbench data import"):
        Dataset(folder).fingerprint(20)


def test_file_names_cannot_lead_elsewhere(tmp_path: Path) -> None:
    folder = write_toys(tmp_path)
    index = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(index.replace("episode_000000_20.npz", "../../episode_000000_20.npz"))
    with pytest.raises(UserError, match="cannot be read"):
        Dataset(folder).fingerprint(20)


def test_an_index_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    folder = write_toys(tmp_path)
    before = Dataset(folder).fingerprint(20)
    index = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(index.replace(Dataset(folder).index.files[0].sha256, "0" * 64) + "\n")
    assert Dataset(folder).fingerprint(20) != before


# --- Plans ------------------------------------------------------------------------------------------


def test_the_data_are_part_of_a_pretrainings_identity_and_their_place_is_not(tmp_path: Path) -> None:
    for root, shift in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        write_toys(tmp_path / root, shift=shift)
    here, moved, other = (make_plan(request(tmp_path / root)).jobs for root in "abc")
    assert [job.id for job in here] == [job.id for job in moved]
    assert not {job.id for job in here} & {job.id for job in other}
    assert {job.data_path for job in here if job.spec.phase == "pretrain"} == {str(tmp_path / "a" / "ball" / "toys")}
    assert {job.spec.data for job in here if job.spec.phase == "finetune"} == {None}


def test_planning_without_the_data_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="urlbench data collect --domain ball --collection toys"):
        make_plan(request(tmp_path))


def test_snapshots_are_chosen_in_updates(tmp_path: Path) -> None:
    write_toys(tmp_path)
    jobs = make_plan(request(tmp_path, snapshots="15", tasks=("ball_left",))).jobs
    assert [job.path.split("/", 2)[2] for job in jobs if job.spec.phase == "finetune"] == [
        f"smoke/finetune/ball_left/snapshot_15/seed_{seed}" for seed in (0, 1)
    ]
    with pytest.raises(UserError, match="no snapshot is kept at 16 updates"):
        make_plan(request(tmp_path, snapshots="16"))


def test_agents_that_do_not_pretrain_need_no_data(tmp_path: Path) -> None:
    jobs = make_plan(request(tmp_path, suite="urlb-offline", agents=("random",), domains=("jaco",))).jobs
    assert len(jobs) == 8
    assert {(job.spec.phase, job.data_path, job.parent_path) for job in jobs} == {("finetune", None, None)}


# --- The suites -------------------------------------------------------------------------------------


def test_there_is_a_suite_for_every_collection_of_exorl() -> None:
    suites = {name for name in names("suite") if name.startswith("urlb-offline")}
    assert suites == {exorl.suite_name(collection) for collection in exorl.METHODS}
    assert len(suites) == 9
    for collection in exorl.METHODS:
        suite = load_suite(exorl.suite_name(collection))
        assert (suite.name, suite.collection) == (exorl.suite_name(collection), collection)
        assert suite.description == names("suite")[suite.name]
    assert load_suite("urlb-offline").collection == "rnd"


def test_the_paper_protocol_is_the_published_one() -> None:
    paper, urlb = (load_suite(name).protocols["paper"] for name in ("urlb-offline", "urlb-states"))
    assert (paper.pretrain_updates, paper.data_transitions) == (200_000, 2_000_000)
    assert paper.snapshots == (10_000, 50_000, 100_000, 200_000)
    assert paper.finetune_frames == urlb.finetune_frames
    assert (paper.eval_every_frames, paper.eval_episodes) == (urlb.eval_every_frames, urlb.eval_episodes)


@pytest.mark.parametrize("domain", EPISODES)
def test_formats_are_those_of_the_environments(domain: str) -> None:
    environment, expected = offline_environment(domain), EPISODES[domain]
    assert environment.observation_shape == expected.arrays["observation"].shape
    assert (environment.action_dim,) == expected.arrays["action"].shape
    assert environment.physics_state().shape == expected.arrays["physics"].shape
    assert environment.physics.model.nq == expected.positions  # type: ignore[attr-defined]
    assert load_suite("urlb-offline").domain(domain).max_episode_frames == expected.length


def test_physics_can_be_set_and_read() -> None:
    environment = offline_environment("walker", "walker_flip")
    reset = environment.physics_state()
    step = environment.step(np.full(6, 0.3, np.float32))
    after = environment.physics_state()
    environment.set_physics_state(reset)
    np.testing.assert_array_equal(environment.physics_state(), reset)
    environment.set_physics_state(after)
    assert environment.present_reward() == pytest.approx(step.reward, abs=1e-9)
