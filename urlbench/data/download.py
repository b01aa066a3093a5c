"""Downloading a data set of ExORL: continued after interruptions, checked, unpacked and indexed.

An archive is written to `.zip.part`, with what the server said about it in `.zip.json`; it gets its name when it is
complete, and is deleted when the data set is indexed. Its SHA-256 stays in `.zip.sha256`.
"""

import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

from pydantic import ValidationError

from urlbench.core import exorl
from urlbench.core.durable import explained, write_atomic
from urlbench.core.errors import UserError, unknown_name
from urlbench.core.types import Spec
from urlbench.data.importing import import_folder
from urlbench.episodes.datasets import (
    BUFFER_NAME,
    INDEX_NAME,
    Dataset,
    Origin,
    dataset_folder,
    episode_files,
    is_episode_name,
)
from urlbench.episodes.format import format_of

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60.0
_ATTEMPTS = 5
_PAUSE_SECONDS = 2.0

Advance = Callable[[int, int | None], None]
"""Told how many bytes are there, and of how many if that is known."""


class RemoteFile(Spec):
    """What the server says about an archive; a part is only continued if this is still the same.

    Attributes:
        size: in bytes; None if the server does not say.
        etag: the server's name for this content; None if it gives none.
    """

    url: str
    size: int | None
    etag: str | None


class _Broken(Exception):
    """The transfer ended early; trying again continues it."""


def download(
    root: Path,
    domain: str,
    collection: str,
    *,
    base_url: str = exorl.BASE_URL,
    sha256: str | None = None,
    pause_seconds: float = _PAUSE_SECONDS,
    advance: Advance = lambda done, total: None,
    indexed: Callable[[int], None] = lambda files: None,
) -> Dataset:
    """Get the data set of `domain` that `collection` collected; goes on where an earlier call stopped.

    Args:
        root: folder of all data sets.
        domain: walker, quadruped or jaco.
        collection: a method of ExORL.
        base_url: where the archives lie.
        sha256: of the archive, if it is known; ExORL publishes none. By default the one of the archive that was
            downloaded here before, if there was one.
        pause_seconds: before a broken transfer is continued.
        advance: told about the transfer.
        indexed: called with 1 after every file that was indexed.

    Raises:
        UserError: if the archive cannot be had, is another one or is damaged, or if other episodes are in its place.
    """
    format_of(domain)
    if collection not in exorl.METHODS:
        raise unknown_name("collection", collection, exorl.METHODS, where="of ExORL")
    folder = dataset_folder(root, domain, collection)
    archive = folder / f"{collection}.zip"
    if (folder / INDEX_NAME).exists():
        _forget(archive)
        return Dataset(folder)
    if episode_files(folder / BUFFER_NAME) and _read_sidecar(archive) is None:
        raise UserError(
            f"{folder} holds episodes that were not downloaded; index them with: urlbench data import {folder} "
            f"--domain {domain} --collection {collection} --data {root}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remote = fetch(exorl.archive_url(base_url, domain, collection), archive, pause_seconds, advance)
        digest = _check_digest(archive, sha256)
        unpack(archive, folder)
        write_atomic(_note(archive), f"{digest}  {archive.name}\n")
    except OSError as error:
        raise explained(error, folder, "run the same command again") from error
    details = {"size": archive.stat().st_size, "sha256": digest, "etag": remote.etag}
    origin = Origin(kind="downloaded", source=remote.url, details=details)
    dataset = import_folder(folder, root, domain, collection, origin=origin, advance=indexed)
    _forget(archive)
    return dataset


def _forget(archive: Path) -> None:
    """Delete what the transfer needed; its SHA-256 stays."""
    archive.unlink(missing_ok=True)
    _sidecar(archive).unlink(missing_ok=True)


# --- Transfer ---


def fetch(url: str, target: Path, pause_seconds: float, advance: Advance) -> RemoteFile:
    """Write what is at `url` to `target`, unless it is there.

    Raises:
        UserError: if the server refuses, or if the transfer breaks off again and again; the same call continues.
    """
    part = target.with_name(f"{target.name}.part")
    if target.exists() and (known := _read_sidecar(target)) is not None and known.url == url:
        return known
    failures = 0
    while True:
        before = _size(part)
        try:
            remote = _transfer(url, target, part, advance)
            break
        except urllib.error.HTTPError as error:
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
                raise UserError(
                    f"{url} cannot be had: the server answers {error.code} {error.reason}; "
                    "check --domain, --collection and --base-url."
                ) from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError, _Broken) as error:
            reason = str(error) or type(error).__name__
        # What brought nothing at all is a failure; what brought something is worth going on with.
        failures = 0 if _size(part) > before else failures + 1
        if failures == _ATTEMPTS:
            raise UserError(
                f"{url} cannot be had: {reason}; {_size(part)} bytes are kept, and the same command continues."
            )
        time.sleep(pause_seconds)
    part.replace(target)
    return remote


def _transfer(url: str, target: Path, part: Path, advance: Advance) -> RemoteFile:
    """One request: for the rest if a part of the same file is there, else for all of it."""
    known = _read_sidecar(target)
    start = _size(part) if known is not None and known.url == url and known.etag is not None else 0
    if start and known is not None and start == known.size:
        return known
    headers = {"Range": f"bytes={start}-", "If-Range": str(known.etag)} if start and known is not None else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
        length = response.headers.get("Content-Length")
        expected = int(length) if length is not None else None
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            total = _check_range(response.headers.get("Content-Range", ""), start)
            assert known is not None, "a part is asked for only if it is known what of"
            remote = known if known.size is not None else known.model_copy(update={"size": total})
        else:
            # A server without ranges, or with another file by now, sends all of it.
            start = 0
            remote = RemoteFile(url=url, size=expected, etag=response.headers.get("ETag"))
            write_atomic(_sidecar(target), remote.model_dump_json() + "\n")
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            file.truncate()
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                advance(file.tell(), remote.size)
    size = _size(part)
    if remote.size is not None and size != remote.size:
        raise _Broken(f"the transfer ended after {size} of {remote.size} bytes")
    return remote


def _check_range(content_range: str, start: int) -> int | None:
    """The whole file's size, from a header such as `bytes 100-199/200`."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
    if match is None or int(match[1]) != start:
        raise _Broken(f"the server sent {content_range!r} when asked for bytes from {start} on")
    return None if match[2] == "*" else int(match[2])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sidecar(target: Path) -> Path:
    return target.with_name(f"{target.name}.json")


def _read_sidecar(target: Path) -> RemoteFile | None:
    try:
        return RemoteFile.model_validate_json(_sidecar(target).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _check_digest(archive: Path, expected: str | None) -> str:
    """The archive's SHA-256; UserError, and the archive deleted, if it is not the expected or the noted one."""
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    note = _note(archive)
    if expected is None and note.exists():
        expected = note.read_text(encoding="utf-8").partition(" ")[0]
    if expected is not None and digest != expected.lower():
        archive.unlink()
        raise UserError(
            f"the archive has the SHA-256 {digest} and not {expected.lower()}, so it was deleted; "
            f"download it again, or if the archive is another one by now, check --sha256 and remove {note}."
        )
    return digest


def _note(archive: Path) -> Path:
    """Where the SHA-256 of an archive stays, as `sha256sum` writes it."""
    return archive.with_name(f"{archive.name}.sha256")


# --- Unpacking ---


def unpack(archive: Path, folder: Path) -> None:
    """Put the episodes of an archive into `folder/buffer`, which is there afterwards with all of them.

    Only files that are called like episodes are taken, each under its bare name, so that no archive can write
    anywhere else; videos stay behind. Every file's CRC is checked.

    Raises:
        UserError: if the archive is damaged, holds no episode or two of one name; it is deleted if it is damaged.
    """
    unfinished, buffer = folder / f".{BUFFER_NAME}", folder / BUFFER_NAME
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        with zipfile.ZipFile(archive) as opened:
            for member in opened.infolist():
                name = member.filename.rpartition("/")[2]
                if not is_episode_name(name):
                    continue
                # "x": of two files with one name, neither can be told to be the right one.
                with opened.open(member) as packed, (unfinished / name).open("xb") as file:
                    shutil.copyfileobj(packed, file, _CHUNK_BYTES)
    except FileExistsError as error:
        name = Path(error.filename).name
        raise UserError(f"{archive} holds two episodes called {name}; unpack it by hand.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        archive.unlink()
        raise UserError(f"{archive} is damaged ({error}), so it was deleted; run the same command again.") from error
    if not any(unfinished.iterdir()):
        raise UserError(f"{archive} holds no episodes; check --base-url.")
    shutil.rmtree(buffer, ignore_errors=True)
    unfinished.replace(buffer)
