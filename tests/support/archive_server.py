"""A web server of one archive, with the faults that downloads meet."""

import hashlib
import io
import re
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from processes import HANG_SECONDS


def pack(files: dict[str, bytes]) -> bytes:
    """A zip archive of the files, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class ArchiveServer(ThreadingHTTPServer):
    """Serves `content` at `path`, with ETag and ranges unless it is told otherwise.

    Attributes:
        cut_after: bytes after which each of the next answers breaks off, one number an answer.
        ranges: False ignores the header Range.
        etag: False sends none.
        errors: status codes of the next answers.
        requested: the Range header of every request, None without.
    """

    daemon_threads = True

    def __init__(self, path: str, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.content = path, content
        self.cut_after: list[int] = []
        self.errors: list[int] = []
        self.ranges = self.etag = True
        self.requested: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        server = self.server
        server.requested.append(self.headers.get("Range"))
        if server.errors:
            self.send_error(server.errors.pop(0))
            return
        if self.path != server.path:
            self.send_error(404)
            return
        content, etag = server.content, f'"{hashlib.sha256(server.content).hexdigest()[:16]}"'
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        part = server.ranges and match is not None and self.headers.get("If-Range") == etag
        start = int(match[1]) if part and match else 0
        self.send_response(206 if part else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if server.etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + server.cut_after.pop(0) if server.cut_after else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def serving(path: str, content: bytes) -> Iterator[ArchiveServer]:
    """A server in a thread of its own, which downloads give all the time that it needs."""
    server = ArchiveServer(path, content)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("urlbench.data.download._TIMEOUT_SECONDS", HANG_SECONDS)
            yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
