"""A source of images selected from one or several other sources, in any order."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.source import ImageSource


class PickedSource:
    """Images picked from other sources.

    Args:
        sources: The sources.
        picks: The number of the source and the index in it of each image.
    """

    def __init__(self, sources: Sequence[ImageSource], picks: Sequence[tuple[int, int]]) -> None:
        self.sources, self.picks = list(sources), list(picks)

    def __len__(self) -> int:
        return len(self.picks)

    @property
    def place(self) -> str:
        """Return the place of the first source, for messages."""
        return self.sources[0].place

    @property
    def readers(self) -> int:
        """Return the number of threads to read with, the largest one of the sources."""
        return max(int(getattr(source, "readers", 1)) for source in self.sources)

    def open(self, index: int) -> Path | EncodedImage:
        """Return image `index`."""
        source, i = self.picks[index]
        return self.sources[source].open(i)

    def describe(self, index: int) -> str:
        """Return the file or row of image `index`."""
        source, i = self.picks[index]
        return self.sources[source].describe(i)

    def identity(self) -> str:
        """Return the identities of all sources."""
        return "\n".join(dict.fromkeys(source.identity() for source in self.sources))

    def cache_facts(self) -> Iterator[str]:
        """Yield the cache facts of the sources, and the selection."""
        for source in self.sources:
            yield from source.cache_facts()
        yield f"\npicked {self.picks}"

    def content_facts(self) -> Iterator[bytes]:
        """Yield the content facts of the sources, and the selection."""
        for source in self.sources:
            yield from source.content_facts()
        yield f"\npicked {self.picks}".encode()

    def mean_bytes(self) -> float:
        """Return the approximate mean size of an encoded image in bytes."""
        return sum(source.mean_bytes() * len(source) for source in self.sources) / sum(map(len, self.sources))
