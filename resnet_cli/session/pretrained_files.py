"""Files of published weights: found where their libraries keep them, else downloaded to there."""

import http.client
import logging
import re
import socket
import sys
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home
from resnet_cli.models.pretrained import Pretrained

logger = logging.getLogger("resnet_cli")

SERVER_TIMEOUT = 30.0  # seconds without a byte from the server


def find_pretrained_file(pretrained: Pretrained) -> Path:
    """Return the file of published weights, which is downloaded if it is not there.

    Args:
        pretrained: The weights.

    Raises:
        InputError: there is no such file, and it could not be fetched: one line that says where to put it.
        MachineError: the cache cannot be written to.
    """
    if pretrained.is_file:
        file = expand_home(pretrained.name)
        if not file.is_file():
            raise InputError(f"{pretrained.key}={pretrained.name}: no such file{similar_file(file)}")
        return file
    from torch import hub

    file = Path(hub.get_dir()) / "checkpoints" / pretrained.file_name
    if not file.is_file():
        _download(pretrained, file)
    return file


def _download(pretrained: Pretrained, file: Path) -> None:
    """Download a file under another name, check its hash, and rename it."""
    from torch import hub

    url = str(pretrained.url)
    hash_prefix = re.search(r"-([0-9a-f]{8,})\.", pretrained.file_name)
    logger.info("downloading %s to %s", url, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _timeout():
            hub.download_url_to_file(
                url, str(file), hash_prefix.group(1) if hash_prefix else None, progress=sys.stderr.isatty()
            )
    except (urllib.error.URLError, http.client.HTTPException, RuntimeError, TimeoutError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the error holds the connection
        cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        reason = " ".join(str(cause).split())[:120] or type(error).__name__
        raise InputError(
            f"{pretrained.key}={pretrained.name}: could not fetch {url} ({reason}): put it at {file} yourself"
        ) from None
    except OSError as error:
        raise MachineError(error.errno, f"{file}: cannot be stored there: {error.strerror}") from None


@contextmanager
def _timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SERVER_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
