"""Downloads from a server on this machine: interruptions, refusals and damage."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archive_server import ArchiveServer, pack, serving
from real_data import collect_random

from urlbench.core.errors import UserError
from urlbench.data.download import download
from urlbench.data.verification import verify
from urlbench.episodes.datasets import Dataset

PATH = "/exorl/jaco/rnd.zip"


@pytest.fixture(scope="module")
def episodes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    dataset = collect_random(tmp_path_factory.mktemp("data"), "jaco", 500)
    return {path.name: path.read_bytes() for path in dataset.buffer.iterdir()}


@pytest.fixture(scope="module")
def content(episodes: dict[str, bytes]) -> bytes:
    return pack({**{f"rnd/buffer/{name}": data for name, data in episodes.items()}, "rnd/video/0.mp4": b"film"})


@pytest.fixture
def server(content: bytes) -> Iterator[ArchiveServer]:
    with serving(PATH, content) as server:
        yield server


def get(server: ArchiveServer, root: Path, **options: Any) -> Dataset:
    options = {"pause_seconds": 0.0, "base_url": f"{server.url}/exorl/", **options}
    return download(root, "jaco", "rnd", **options)


def files_in(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def assert_whole(root: Path, episodes: dict[str, bytes]) -> None:
    """All episodes are there, and nothing of the transfer but the checksum."""
    buffer = root / "jaco" / "rnd" / "buffer"
    assert {path.name: path.read_bytes() for path in buffer.iterdir()} == episodes
    assert files_in(root) == sorted(
        ["jaco/rnd/dataset.json", "jaco/rnd/rnd.zip.sha256", *(f"jaco/rnd/buffer/{name}" for name in episodes)]
    )


def test_an_archive_becomes_a_data_set(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    seen: list[tuple[int, int | None]] = []
    files: list[int] = []
    dataset = get(server, tmp_path, advance=lambda done, total: seen.append((done, total)), indexed=files.append)
    assert_whole(tmp_path, episodes)
    digest = hashlib.sha256(content).hexdigest()
    origin = dataset.index.origin
    assert (origin.kind, origin.source) == ("downloaded", f"{server.url}{PATH}")
    assert (origin.details["size"], origin.details["sha256"]) == (len(content), digest)
    assert (dataset.folder / "rnd.zip.sha256").read_text() == f"{digest}  rnd.zip\n"
    assert {check.result for check in verify(dataset)} == {"ok", "skipped"}
    assert seen[-1] == (len(content), len(content))
    assert len(files) == 2


def test_what_is_there_is_not_downloaded_again(server: ArchiveServer, tmp_path: Path) -> None:
    first = get(server, tmp_path)
    assert get(server, tmp_path) == first
    assert len(server.requested) == 1


def test_broken_transfers_are_continued(server: ArchiveServer, tmp_path: Path, episodes: dict[str, bytes]) -> None:
    server.cut_after = [1000, 500, 0, 20]
    get(server, tmp_path)
    assert server.requested == [None, "bytes=1000-", "bytes=1500-", "bytes=1500-", "bytes=1520-"]
    assert_whole(tmp_path, episodes)


def test_a_server_that_always_breaks_off_is_given_up_and_continued_later(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    server.cut_after = [1000] + [0] * 5
    with pytest.raises(UserError, match=rf"ended after 1000 of {len(content)} bytes; 1000 bytes are kept, and the"):
        get(server, tmp_path)
    assert (tmp_path / "jaco" / "rnd" / "rnd.zip.part").read_bytes() == content[:1000]
    get(server, tmp_path)
    assert server.requested[-1] == "bytes=1000-"
    assert_whole(tmp_path, episodes)


@pytest.mark.parametrize("lacking", ["ranges", "etag"])
def test_a_server_that_cannot_continue_is_asked_for_all(
    server: ArchiveServer, tmp_path: Path, episodes: dict[str, bytes], lacking: str
) -> None:
    setattr(server, lacking, False)
    server.cut_after = [1000, 2000]
    get(server, tmp_path)
    assert len(server.requested) == 3
    assert_whole(tmp_path, episodes)


def test_a_part_of_another_archive_is_thrown_away(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    server.content = b"x" * 5000
    server.cut_after = [1000] + [0] * 5
    with pytest.raises(UserError, match="the same command continues"):
        get(server, tmp_path)
    server.content = content
    get(server, tmp_path)
    assert server.requested[-1] == "bytes=1000-"
    assert_whole(tmp_path, episodes)


def test_a_complete_part_is_not_asked_for_again(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    server.cut_after = [1000] + [0] * 5
    with pytest.raises(UserError, match="the same command continues"):
        get(server, tmp_path)
    (tmp_path / "jaco" / "rnd" / "rnd.zip.part").write_bytes(content)
    count = len(server.requested)
    get(server, tmp_path)
    assert len(server.requested) == count
    assert_whole(tmp_path, episodes)


def test_errors_of_the_server_are_tried_again(
    server: ArchiveServer, tmp_path: Path, episodes: dict[str, bytes]
) -> None:
    server.errors = [503, 500]
    get(server, tmp_path)
    assert_whole(tmp_path, episodes)


def test_refusals_are_one_sentence(server: ArchiveServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"rnd.zip cannot be had: the server answers 404 Not Found; check --domain"):
        get(server, tmp_path, base_url=f"{server.url}/elsewhere")
    assert len(server.requested) == 1
    with pytest.raises(UserError, match="unknown collection 'rmd' of ExORL; did you mean 'rnd'"):
        download(tmp_path, "jaco", "rmd")
    with pytest.raises(UserError, match="unknown domain 'cheetah' of data sets"):
        download(tmp_path, "cheetah", "rnd")


def test_no_server_at_all_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    with serving(PATH, content) as server:
        pass
    with pytest.raises(UserError, match=r"refused.*; 0 bytes are kept, and the same command continues"):
        get(server, tmp_path)


def test_another_checksum_is_refused(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    with pytest.raises(UserError, match=r"has the SHA-256 \w{64} and not 0{64}, so it was deleted"):
        get(server, tmp_path, sha256="0" * 64)
    assert files_in(tmp_path) == ["jaco/rnd/rnd.zip.json"]
    get(server, tmp_path, sha256=hashlib.sha256(content).hexdigest().upper())
    assert_whole(tmp_path, episodes)


def test_another_archive_than_last_time_is_refused(server: ArchiveServer, tmp_path: Path) -> None:
    dataset = get(server, tmp_path)
    (dataset.folder / "dataset.json").unlink()
    for path in dataset.buffer.iterdir():
        path.unlink()
    server.content = pack({"buffer/episode_000000_250.npz": b"another"})
    with pytest.raises(UserError, match=r"was deleted; download it again, or .* remove .*rnd.zip.sha256"):
        get(server, tmp_path)


def test_a_damaged_archive_is_deleted_and_downloaded_again(
    server: ArchiveServer, tmp_path: Path, content: bytes, episodes: dict[str, bytes]
) -> None:
    damaged = bytearray(content)
    damaged[3000] ^= 1  # in the data of the first episode: only its CRC tells
    server.content = bytes(damaged)
    with pytest.raises(UserError, match=r"rnd.zip is damaged \(Bad CRC-32 for file '.*'\), so it was deleted"):
        get(server, tmp_path)
    assert not (tmp_path / "jaco" / "rnd" / "buffer").exists()
    server.content = content
    get(server, tmp_path)
    assert_whole(tmp_path, episodes)


def test_nothing_is_unpacked_outside_the_data_set(
    server: ArchiveServer, tmp_path: Path, episodes: dict[str, bytes]
) -> None:
    first, second = episodes.items()
    server.content = pack({f"../../../{first[0]}": first[1], f"/{second[0]}": second[1], "../evil.py": b"import os"})
    get(server, tmp_path / "data")
    assert_whole(tmp_path / "data", episodes)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"rnd/video/0.mp4": b"film"}, "holds no episodes"),
        (
            {"a/episode_000000_250.npz": b"one", "b/episode_000000_250.npz": b"two"},
            r"holds two episodes called episode_000000_250.npz",
        ),
        ({"buffer/episode_000000_250.npz": b"no arrays"}, r"episode_000000_250.npz is damaged"),
    ],
)
def test_archives_of_something_else_are_refused(
    server: ArchiveServer, tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    server.content = pack(files)
    with pytest.raises(UserError, match=message):
        get(server, tmp_path)
    assert not (tmp_path / "jaco" / "rnd" / "dataset.json").exists()


def test_an_interrupted_unpacking_is_done_again(
    server: ArchiveServer, tmp_path: Path, episodes: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("urlbench.data.download.import_folder", killed)
        with pytest.raises(KeyboardInterrupt):
            get(server, tmp_path)
    get(server, tmp_path)
    assert len(server.requested) == 1
    assert_whole(tmp_path, episodes)


def test_an_archive_that_is_no_longer_needed_is_deleted(server: ArchiveServer, tmp_path: Path, content: bytes) -> None:
    dataset = get(server, tmp_path)
    (dataset.folder / "rnd.zip").write_bytes(content)
    get(server, tmp_path)
    assert not (dataset.folder / "rnd.zip").exists()


def test_episodes_from_elsewhere_are_not_touched(server: ArchiveServer, tmp_path: Path) -> None:
    buffer = tmp_path / "jaco" / "rnd" / "buffer"
    buffer.mkdir(parents=True)
    (buffer / "episode_000000_250.npz").write_bytes(b"precious")
    with pytest.raises(UserError, match="holds episodes that were not downloaded; index them with: urlbench data imp"):
        get(server, tmp_path)
    assert (buffer / "episode_000000_250.npz").read_bytes() == b"precious"
