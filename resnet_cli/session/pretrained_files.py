"""Files of published weights: found where their libraries keep them, else downloaded to there."""

import errno
import logging
import re
import sys
import urllib.error
from collections.abc import Sequence
from pathlib import Path

from resnet_cli.config.suggestions import similar_file
from resnet_cli.data.images.download import CONNECTION_ERRORS, server_timeout
from resnet_cli.errors import InputError, MachineError, first_line
from resnet_cli.files import expand_home
from resnet_cli.models.pretrained import Pretrained

logger = logging.getLogger("resnet_cli")

DISK_ERRORS = (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM)


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
    on_hub = _find_on_hub(*pretrained.repository) if pretrained.repository else None
    if on_hub is not None:
        return on_hub
    from torch import hub

    file = Path(hub.get_dir()) / "checkpoints" / (pretrained.file_name or "none")
    if file.is_file():
        return file
    if pretrained.repository:
        return _fetch_from_hub(pretrained, *pretrained.repository)
    _download(pretrained, file)
    return file


def hash_in_name(file_name: str) -> str | None:
    """Return the beginning of a file's SHA-256 that its name ends in, as in `resnet18-f37072fd.pth`; None without."""
    found = re.search(r"-([0-9a-f]{8,})\.", file_name)
    return found[1] if found else None


def has_published_weights(name: str) -> bool:
    """Return whether the default weights of a classifier of torchvision are in the cache of `torch.hub`."""
    from torch import hub
    from torchvision import models

    pretrained = Pretrained(name, "DEFAULT", url=models.get_model_weights(name).DEFAULT.url)
    return (Path(hub.get_dir()) / "checkpoints" / pretrained.file_name).is_file()


def _find_on_hub(repository: str, names: Sequence[str]) -> Path | None:
    """Return the first of these files that the cache of the Hugging Face hub has."""
    from huggingface_hub import try_to_load_from_cache

    repo, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(repo, name, revision=revision or None) for name in names)
    return next((Path(file) for file in found if isinstance(file, str)), None)


def _fetch_from_hub(pretrained: Pretrained, repository: str, names: Sequence[str]) -> Path:
    """Download the first of these files that a repository of the hub has into the hub's cache."""
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repo, _, revision = repository.partition("@")
    place = Path(constants.HF_HUB_CACHE) / f"models--{repo.replace('/', '--')}" / "snapshots" / (revision or "main")
    failure: Exception | None = None
    for name in names:
        logger.info("downloading %s of %s from the Hugging Face hub", name, repo)
        try:
            with server_timeout():
                return Path(hf_hub_download(repo, name, revision=revision or None))
        except EntryNotFoundError as error:
            if isinstance(error, LocalEntryNotFoundError):  # there is no network, or it must not be used
                failure = error
                break
        except OSError as error:
            if error.errno in DISK_ERRORS:
                raise MachineError(error.errno, f"{place}: cannot be stored there: {error.strerror or error}") from None
            failure = error
            break
        except Exception as error:  # the hub's client passes on whatever its connections raise
            failure = error
            break
    reason = "it has no such file" if failure is None else first_line(failure)[:120].rstrip(" .")
    raise InputError(
        f"{pretrained.key}={pretrained.name}: could not fetch {repo} from the Hugging Face hub ({reason}): put its "
        f"{names[0]} at {place / names[0]} yourself"
    )


def _download(pretrained: Pretrained, file: Path) -> None:
    """Download a file under another name, check its hash, and rename it."""
    from torch import hub

    url = str(pretrained.url)
    logger.info("downloading %s to %s", url, file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with server_timeout():
            hub.download_url_to_file(url, str(file), hash_in_name(pretrained.file_name), progress=sys.stderr.isatty())
    except CONNECTION_ERRORS as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the error holds the connection
        cause = error if isinstance(error, urllib.error.HTTPError) else getattr(error, "reason", error)
        reason = " ".join(str(cause).split())[:120] or type(error).__name__
        raise InputError(
            f"{pretrained.key}={pretrained.name}: could not fetch {url} ({reason}): put it at {file} yourself"
        ) from None
    except OSError as error:
        raise MachineError(error.errno, f"{file}: cannot be stored there: {error.strerror or error}") from None
