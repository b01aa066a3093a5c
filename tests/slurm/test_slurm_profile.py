"""Profiles of clusters: what is read, and how each mistake is told."""

import textwrap
from pathlib import Path

import pytest

from urlbench.core.errors import UserError
from urlbench.slurm.profile import PHASES, Profile, Resources, load_profile

EXAMPLE = Path(__file__).parents[2] / "docs" / "cluster.example.yaml"


def load(folder: Path, text: str) -> Profile:
    path = folder / "my cluster.yaml"
    path.write_text(text, encoding="utf-8")
    return load_profile(path)


def test_the_shortest_profile_has_the_defaults(tmp_path: Path) -> None:
    profile = load(tmp_path, "resources: {slot: 4h}\nsetup:\nfinetune:\n")
    resources = Resources(slot_minutes=240)
    assert profile == Profile(resources=resources, pretrain=resources, finetune=resources, search=resources)


def test_a_phase_changes_only_what_it_names(tmp_path: Path) -> None:
    profile = load(
        tmp_path,
        """
        resources: {partition: gpu, constraint: a100, gpus: 1, slot: 4h,
                    extra: {exclusive: true, mail-type: FAIL, nice: 10}}
        pretrain: {slot: 1d12h, extra: {nice: 20, exclusive: false}}
        search: {gpus: 0, constraint: null}
        """,
    )
    assert profile.for_phase("finetune") == profile.resources
    assert profile.resources.extra == {"exclusive": True, "mail-type": "FAIL", "nice": 10}
    shared = {
        "partition": "gpu",
        "gpus": 1,
        "constraint": "a100",
        "slot_minutes": 240,
        "extra": profile.resources.extra,
    }
    assert profile.for_phase("pretrain") == Resources(
        **{**shared, "slot_minutes": 36 * 60, "extra": {"mail-type": "FAIL", "nice": 20}}
    )
    assert profile.for_phase("search") == Resources(**{**shared, "gpus": 0, "constraint": None})


@pytest.mark.parametrize(
    ("slot", "minutes"),
    [
        *(("4h", 240), ("30m", 30), ("1d", 1440), ("1d12h", 2160), ("1h30m", 90)),
        # YAML 1.1 would read the second one as a number of base 60, and only the second one.
        *(("01:30:00", 90), ("12:30:00", 750), ("1-12:00:00", 2160)),
    ],
)
def test_slots_are_read_as_slurm_users_write_them(slot: str, minutes: int, tmp_path: Path) -> None:
    assert load(tmp_path, f"resources:\n  slot: {slot}").resources.slot_minutes == minutes


@pytest.mark.parametrize("slot", ["240", "0m", "4 hours", "1.5h", "90:00", "00:00:30", "''", "[4h]", "4h1d"])
def test_slots_that_could_mean_something_else_are_refused(slot: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"resources\.slot .*my cluster\.yaml.* is .*; write whole minutes, hours or days"
    ):
        load(tmp_path, f"resources:\n  slot: {slot}")


def test_names_that_look_like_octal_numbers_stay_as_written(tmp_path: Path) -> None:
    assert load(tmp_path, "resources: {slot: 4h, account: 012345}").resources.account == "012345"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]", r"must hold keys such as resources:"),
        ("a: [", r"is not YAML: .*; correct it\."),
        ("resources: 4h", r"^resources in .* is '4h'; write keys such as slot: 4h below it\."),
        ("resources: {gpus: 1}", r"^resources\.slot in .* is missing; write .* slot: 4h\."),
        ("resorces: {slot: 4h}", r"^unknown key 'resorces' in .*; did you mean 'resources'\?"),
        ("resources: {slot: 4h}\npartition: gpu", r"^partition in .* stands alone; move it below resources"),
        ("resources: {slot: 4h}\nfinetune: {cpu: 2}", r"^unknown key 'finetune\.cpu' .* mean 'finetune\.cpus'\?"),
        (
            "resources: {slot: 4h}\nfinetune: {cpus: 0}",
            r"^finetune\.cpus in .* is 0, but should be greater than .* 1\.$",
        ),
        ("resources: {slot: 4h, cpus: many}", r"^resources\.cpus in .* is 'many', but should be a valid integer"),
        ("resources: {slot: 4h, memory_gib: 0}", r"^resources\.memory_gib .* is 0, but should be greater"),
        ("resources: {slot: 4h, account: 12}", r"^resources\.account .* is 12, but .* string; put it in quotes\.$"),
        ("resources: {slot: 4h, partition: a b}", r"^resources\.partition .* is 'a b', but should be one word\.$"),
        (
            "resources: {slot: 4h}\nsetup: module load cuda",
            r"^setup .* is 'module load cuda', but should be a valid list\.$",
        ),
        ("resources: {slot: 4h}\nscratch: tmp", r"^scratch .* is 'tmp', but should be a path that begins with / or"),
        ("resources: {slot: 4h}\ndevice: tpu", r"^device .* is 'tpu', but should be 'auto', 'cpu' or 'cuda'\.$"),
        ("resources: {slot: 4h, extra: {time: 60}}", r"^resources\.extra .* but should not hold time: use slot\.$"),
        ("resources: {slot: 4h, extra: {array: 0-9}}", r"should not hold array: urlbench sets it; leave it out\.$"),
        ("resources: {slot: 4h, extra: {quiet: true}}", r"should not hold quiet: sbatch has to say the job's id\.$"),
        ("resources: {slot: 4h, extra: {clusters: b}}", r"should not hold clusters: the jobs of other clusters are"),
        ("resources: {slot: 4h, extra: {--nice: 1}}", r"such as mail-type, not '--nice'\.$"),
        ('resources: {slot: 4h, extra: {comment: "a\\nb"}}', r"^resources\.extra .* should be one line\.$"),
        ("resources: {slot: 4h, extra: {gres: [gpu]}}", r"^resources\.extra\.gres .* but should be a valid string"),
        (
            "resources: {slot: 4h}\nfinetune: {slot: 2m}",
            r"signal_seconds is 120, and the slot of finetune only 2 min; give",
        ),
    ],
)
def test_every_mistake_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(tmp_path, text)
    assert "my cluster.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"cannot read the cluster profile .*none\.yaml.*No such file.*; check --cluster"
    ):
        load_profile(tmp_path / "none.yaml")


def test_the_profile_of_the_guide_is_valid(tmp_path: Path) -> None:
    guide = (EXAMPLE.parent / "slurm.md").read_text(encoding="utf-8")
    block = guide.partition("    # cluster.yaml\n")[2].partition("\n\n")[0]
    profile = load(tmp_path, textwrap.dedent(block))
    assert [profile.for_phase(phase).slot_minutes for phase in PHASES] == [1440, 240, 240]


def test_the_example_shows_every_key_and_is_valid() -> None:
    profile = load_profile(EXAMPLE)
    assert profile.model_fields_set == set(Profile.model_fields)
    assert profile.resources.model_fields_set == set(Resources.model_fields)
    assert [profile.for_phase(phase).slot_minutes for phase in PHASES] == [1440, 120, 60]
    assert profile.resources.extra == {"mail-type": "FAIL", "exclude": "node13,node17", "gres": "gpu:a100:1"}
