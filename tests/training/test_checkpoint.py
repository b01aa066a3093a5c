import json
import os
from pathlib import Path

import pytest
import torch

from urlbench.core.errors import UserError
from urlbench.training.checkpoint import (
    SnapshotHeader,
    load_latest,
    load_snapshot,
    save_checkpoint,
    save_snapshot,
    snapshot_digest,
    snapshot_path,
)

HEADER = SnapshotHeader(
    suite="toy-states@1",
    observation="states",
    domain="ball",
    agent="toy",
    config="01234567",
    seed=3,
    frames=100,
    job="0123456789abcdef",
)


def state(value: int) -> dict[str, object]:
    return {"value": value, "weights": torch.full((300,), float(value)), "text": "x", "list": [1.5, None, True]}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for frame in (5, 90, 1000):
        save_checkpoint(folder, frame, state(frame))
    loaded, messages = load_latest(folder)
    assert loaded is not None
    assert messages == []
    assert loaded["value"] == 1000
    assert torch.equal(loaded["weights"], torch.full((300,), 1000.0))
    assert names(folder) == [
        "checkpoint_0000000090.json",
        "checkpoint_0000000090.pt",
        "checkpoint_0000001000.json",
        "checkpoint_0000001000.pt",
    ]


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert load_latest(tmp_path / "checkpoint") == (None, [])
    (tmp_path / "checkpoint").mkdir()
    assert load_latest(tmp_path / "checkpoint") == (None, [])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def break_sidecar(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, break_sidecar])
def test_a_damaged_newest_falls_back_and_says_so(tmp_path: Path, damage: object) -> None:
    for frame in (10, 20):
        save_checkpoint(tmp_path, frame, state(frame))
    assert callable(damage)
    damage(tmp_path / "checkpoint_0000000020.pt")
    loaded, messages = load_latest(tmp_path)
    assert loaded is not None
    assert loaded["value"] == 10
    assert len(messages) == 1
    assert "checkpoint_0000000020.pt is damaged" in messages[0]
    assert "falling back to checkpoint_0000000010.pt" in messages[0]
    assert names(tmp_path) == ["checkpoint_0000000010.json", "checkpoint_0000000010.pt"]


def test_a_kill_in_mid_write_leaves_the_previous(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 10, state(10))
    # The two places where a write can be cut off: before the sidecar, and between it and the file's renaming.
    (tmp_path / ".checkpoint_0000000020.pt.77.tmp").write_bytes(b"half")
    (tmp_path / "checkpoint_0000000020.json").write_text(json.dumps({"sha256": "0", "size": 1, "frame": 20}))
    loaded, messages = load_latest(tmp_path)
    assert loaded is not None
    assert (loaded["value"], messages) == (10, [])
    assert names(tmp_path) == ["checkpoint_0000000010.json", "checkpoint_0000000010.pt"]


def test_a_failed_write_leaves_the_previous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 10, state(10))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="the disk is full; make room and continue with --rerun failed"):
        save_checkpoint(tmp_path, 20, state(20))
    assert names(tmp_path) == ["checkpoint_0000000010.json", "checkpoint_0000000010.pt"]


def test_a_checkpoint_that_does_not_go_with_other_files_is_passed_over(tmp_path: Path) -> None:
    for frame in (10, 20):
        save_checkpoint(tmp_path, frame, state(frame))

    def accept(loaded: dict[str, object]) -> None:
        if loaded["value"] == 20:
            raise UserError("the replay file episode_000007_20.npz is damaged")

    loaded, messages = load_latest(tmp_path, accept)
    assert loaded is not None
    assert loaded["value"] == 10
    assert "episode_000007_20.npz is damaged" in messages[0]


def test_if_none_is_usable_the_files_are_named_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    for frame in (10, 20):
        save_checkpoint(folder, frame, state(frame))
        truncate(folder / f"checkpoint_00000000{frame}.pt")
    with pytest.raises(UserError, match=r"no checkpoint .*_0000000020.pt is damaged.*_0000000010.pt is damaged"):
        load_latest(folder)
    assert len(names(folder)) == 4


def test_snapshots_come_back(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 100)
    save_snapshot(path, HEADER, state(1))
    assert path == tmp_path / "snapshots" / "snapshot_100.pt"
    assert load_snapshot(path, HEADER)["value"] == 1
    assert len(snapshot_digest(path)) == 64


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("suite", "toy-states@2"),
        ("observation", "pixels"),
        ("domain", "cube"),
        ("agent", "random"),
        ("config", "76543210"),
        ("seed", 4),
        ("frames", 50),
        ("job", "fedcba9876543210"),
    ],
)
def test_a_snapshot_of_something_else_is_never_used(tmp_path: Path, field: str, value: object) -> None:
    path = snapshot_path(tmp_path, 100)
    save_snapshot(path, HEADER, state(1))
    with pytest.raises(
        UserError, match=f"is another one, its {field} is .* and should be {value!r}; restore the file, or move"
    ):
        load_snapshot(path, HEADER.model_copy(update={field: value}))


def test_a_snapshot_from_before_jobs_were_recorded_is_used(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 100)
    save_snapshot(path, HEADER, state(1))
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["header"].pop("job") == HEADER.job
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    assert load_snapshot(path, HEADER)["value"] == 1


def test_a_missing_or_damaged_snapshot_is_named(tmp_path: Path) -> None:
    path = snapshot_path(tmp_path, 100)
    with pytest.raises(
        UserError,
        match=r"snapshot_100.pt does not exist; restore the file, or move the folder .* away to pretrain anew",
    ):
        load_snapshot(path, HEADER)
    save_snapshot(path, HEADER, state(1))
    truncate(path)
    with pytest.raises(UserError, match=r"snapshot_100.pt is damaged"):
        load_snapshot(path, HEADER)
    save_snapshot(path, HEADER, state(1))
    sidecar = json.loads(path.with_suffix(".json").read_text())
    del sidecar["header"]
    path.with_suffix(".json").write_text(json.dumps(sidecar))
    with pytest.raises(UserError, match=r"snapshot_100.json does not describe a snapshot"):
        load_snapshot(path, HEADER)
