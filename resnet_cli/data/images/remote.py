"""Files on web servers, read in parts by range requests with retries, without local copies."""

import hashlib
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from resnet_cli.data.images.download import SERVER_TIMEOUT
from resnet_cli.errors import InputError

TRIES = 5  # in a row without receiving a byte
FIRST_PAUSE = 0.25  # seconds before the second try; doubled before each further one
RETRIED_STATUSES = (429, 500, 502, 503, 504)  # HTTP statuses that are retried like interrupted connections
AHEAD = 4 << 20  # bytes per request when images are read consecutively
GAP = 1 << 16  # maximum bytes, of labels and headers, between two images that count as consecutive
CHUNK = 1 << 20  # bytes read at once


class UnreachableError(InputError):
    """A server cannot be reached or does not support range requests, so that its other files cannot be read either."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a web server.

    Args:
        url: Address of the file.
        size: Length in bytes; -1 if not known yet.
        version: `ETag` and time of modification, as far as the server sends them.
    """

    url: str
    size: int = -1
    version: str = ""

    def __str__(self) -> str:
        """Return the address without parts that may be secret: the query, which may be signed, and a password."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def folder_name(self) -> str:
        """Return the name of the file's folder, or of the server."""
        parts = urlsplit(self.url)
        return PurePosixPath(unquote(parts.path)).parent.name or parts.hostname or ""

    def facts(self) -> str:
        """Return address, size and version, which tell files apart and change with them.

        The query, which may be a new signature every time, does not count if the server sends a version. Without one,
        it may be all that tells two files of equal size apart; a hash keeps it secret.
        """
        facts = f"{self}\0{self.size}\0{self.version}"
        if self.version.strip("\0") or not urlsplit(self.url).query:
            return facts
        return f"{facts}\0{hashlib.sha256(self.url.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def probe(self) -> "RemoteFile":
        """Return the file with the size and version that the server reports.

        Raises:
            InputError: There is no such file, or the server does not support range requests.
        """
        for failures in range(1, TRIES + 1):
            try:
                with _requesting(self), self._request(0, 1) as response:
                    total = _total(response)
                    version = "\0".join(response.headers.get(name, "") for name in ("ETag", "Last-Modified"))
                break
            except UnreachableError:
                if failures == TRIES:
                    raise
                time.sleep(FIRST_PAUSE * 2 ** (failures - 1))
        if total is None:
            raise UnreachableError(
                f"{self}: the server does not support HTTP ranges: copy the shards to a folder, or use another server"
            )
        return replace(self, size=total, version=version)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end of the file.

        Raises:
            InputError: The server can no longer be reached, or the file has changed.
        """
        content = bytearray()
        for chunk in self._chunks(offset, min(size, self.size - offset)):
            content += chunk
        return bytes(content)

    def copy_to(self, path: Path) -> None:
        """Download the whole file; errors are those of `read`."""
        with path.open("wb") as file:
            for chunk in self._chunks(0, self.size):
                file.write(chunk)

    def _chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield parts of the file in order, resuming interrupted transfers."""
        end, failures = offset + size, 0
        while offset < end:
            before = offset
            try:
                for chunk in self._received(offset, end):
                    offset += len(chunk)
                    yield chunk
                reason = "the connection was cut"
            except UnreachableError as error:
                reason = str(error)
            failures = failures + 1 if offset == before else 0
            if offset < end and failures == TRIES:
                raise UnreachableError(reason)
            if offset < end and failures:
                time.sleep(FIRST_PAUSE * 2 ** (failures - 1))

    def _received(self, offset: int, end: int) -> Iterator[bytes]:
        """Yield parts of the file in order from one connection, which may be interrupted."""
        with _requesting(self), self._request(offset, end - offset) as response:
            if _total(response) != self.size:
                raise InputError(f"{self}: the archive has changed, or the server no longer sends parts of it")
            while offset < end and (chunk := response.read(min(CHUNK, end - offset))):
                offset += len(chunk)
                yield chunk

    def _request(self, offset: int, size: int) -> "http.client.HTTPResponse":
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={offset}-{offset + size - 1}"})
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=SERVER_TIMEOUT)
        return response


class RangeReader:
    """Reads parts of a file for several threads, with read-ahead if the parts are consecutive.

    Args:
        file: The file.
    """

    def __init__(self, file: RemoteFile) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._end = 0  # of the last part read
        self._start, self._ahead = 0, b""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`, or fewer at the end of the file."""
        with self._lock:
            follows = 0 <= offset - self._end <= GAP
            self._end = offset + size
            is_there = self._start <= offset and offset + size <= self._start + len(self._ahead)
            if follows and not is_there:
                self._start, self._ahead = offset, self.file.read(offset, max(size, AHEAD))
                is_there = True
            if is_there:
                return self._ahead[offset - self._start :][:size]
        return self.file.read(offset, size)


def _total(response: "http.client.HTTPResponse") -> int | None:
    """Return the length of the whole file from a partial response; None if the response is not partial."""
    text = (response.headers.get("Content-Range") or "").rpartition("/")[2]
    return int(text) if response.status == http.HTTPStatus.PARTIAL_CONTENT and text.isdecimal() else None


@contextmanager
def _requesting(file: RemoteFile) -> Iterator[None]:
    """Convert errors of requests: `InputError` if the server refuses, `UnreachableError` for temporary failures."""
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()  # the error holds the connection
        kind = UnreachableError if error.code in RETRIED_STATUSES else InputError
        raise kind(f"{file}: the server answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        text = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise UnreachableError(f"{file}: the server cannot be reached: {text}") from None
    except ValueError as error:  # an address without a host
        raise InputError(f"{file}: not an address: {error}") from None
