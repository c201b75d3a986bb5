"""A pass over all images of a source, in order, with a progress bar; problems are reported together at the end."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from resnet_cli.config.counts import counted
from resnet_cli.data.images.source import ImageSource
from resnet_cli.data.images.threads import map_in_order
from resnet_cli.errors import InputError

T = TypeVar("T")

Notes = dict[str, list[Any]]  # note -> number of images and a description of the first
FileFacts = tuple[str, tuple[str, ...]]  # Pillow mode, and notes on what the file loses in decoding

# Mean size of an encoded image below which threads do not help: decoding holds the interpreter lock.
SMALL_FILE_BYTES = 16_384


class SizeError(InputError):
    """An image has another size than the set."""


def process_images(
    source: ImageSource,
    mode: str,
    read: Callable[[int], tuple[T, FileFacts]],
    title: str,
    consume: Callable[[int, tuple[T, FileFacts]], object],
) -> dict[str, Any]:
    """Read all images, in threads if they are large.

    Args:
        source: The images.
        mode: The mode to which they are converted.
        read: Reads an image by its index; returns a result and facts about its encoded form; may run in a thread.
        title: Label of the progress bar.
        consume: Called with each index and the pair returned by `read`, in order.

    Returns:
        `notes`: the number of images with each note, and a description of the first.

    Raises:
        InputError: Images cannot be read (the message lists the first five), or differ in size (reported once).
    """
    problems: list[str] = []
    notes: Notes = {}
    sizes_differ = False

    def read_or_catch(index: int) -> tuple[T, FileFacts] | InputError:
        try:
            return read(index)
        except InputError as error:
            return error

    for index, result in enumerate(_read_with_progress(source, read_or_catch, title)):
        if isinstance(result, SizeError) and sizes_differ:
            continue
        if isinstance(result, InputError):
            sizes_differ |= isinstance(result, SizeError)
            problems.append(str(result))
            continue
        consume(index, result)
        add_notes(notes, source.describe(index), mode, result[1])
    if problems:
        total = [f"{len(problems)} of {len(source)} {source.place} cannot be used"] if len(problems) > 5 else []
        raise InputError(*problems[:5], *total)
    return {"notes": notes}


def add_notes(notes: Notes, name: str, mode: str, facts: FileFacts) -> None:
    """Count the notes on an image: how it is converted, and what it loses."""
    for note, description in _notes(name, mode, facts):
        notes.setdefault(note, [0, description])[0] += 1


def format_notes(notes: Notes, images: int) -> list[str]:
    """Return a line for each note on a set with this number of images."""
    return [
        f"{count:,} of {counted(images, 'image')} {note}; the first: {name}" for note, (count, name) in notes.items()
    ]


def _notes(name: str, mode: str, facts: FileFacts) -> Iterator[tuple[str, str]]:
    """Yield notes on an image with its description."""
    file_mode, losses = facts
    if mode not in (file_mode, "all") and not losses:
        yield f"are not {mode} and are converted", f"{name} is {file_mode}"
    for loss in losses:
        yield loss, name


def _read_with_progress(source: ImageSource, read: Callable[[int], T], title: str) -> Iterable[T]:
    """Return an iterator over `read(index)` for all images in order, with a progress bar."""
    threads = 1 if source.mean_bytes() < SMALL_FILE_BYTES else torch.get_num_threads()
    results = map_in_order(read, len(source), threads)
    return tqdm(results, title, len(source), leave=False, disable=None, unit="image")
