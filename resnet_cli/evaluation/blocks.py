"""The accuracy of a run after deleting each of its blocks, after deleting several, and after swapping blocks."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import torch

from resnet_cli.analysis.block_deletion import (
    BlockShape,
    find_blocks,
    random_deletions,
    random_swaps,
    single_deletions,
)
from resnet_cli.errors import InputError
from resnet_cli.evaluation.files import format_csv, format_json
from resnet_cli.evaluation.images import EvaluatedImages
from resnet_cli.inference.classifier import Classifier
from resnet_cli.plots.panels import make_figure, mark_series
from resnet_cli.session.trained import TrainedRun
from resnet_cli.training.backend import Batch

MOST_KEPT_BYTES = 1 << 30  # of normalised images, up to which they are kept in memory


def require_blocks(run: TrainedRun) -> list[BlockShape]:
    """Return the residual blocks of a run's net.

    Raises:
        InputError: The images have several labels, or the net has no residual blocks.
    """
    if run.has_label_sets:
        raise InputError("--delete-blocks: the images have several labels; the accuracy is that of one")
    blocks = find_blocks(run.model, torch.zeros(1, *run.in_size, device=run.backend.device))
    if not blocks:
        raise InputError("--delete-blocks: this net has no residual blocks; cifar_resnet, resnet and "
                         "residual_mlp have them, including their plain variants")  # fmt: skip
    return blocks


def damage_blocks(run: TrainedRun, images: EvaluatedImages) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the accuracies, as plain data, and the content of blocks.json, blocks.csv and blocks.png by name.

    Raises:
        InputError: See `require_blocks`.
    """
    blocks = require_blocks(run)
    classifier = Classifier(run, reads_images=False)
    model, batches = run.model, repeatable(images, run.in_size)

    def accuracy() -> float:
        right, count = 0, 0
        for images_BCHW, labels_B in batches():
            predicted_B = classifier.forward_normalised(images_BCHW).argmax(1).cpu()
            right, count = right + int(predicted_B.eq(labels_B.cpu()).sum()), count + len(labels_B)
        return 100 * (right / count)

    facts: dict[str, Any] = {
        "accuracy": accuracy(),
        "without": single_deletions(model, blocks, accuracy),
        "deleted": [vars(row) for row in random_deletions(model, blocks, accuracy)],
        "swapped": [vars(row) for row in random_swaps(model, blocks, accuracy)],
    }
    table = format_csv(
        ["block", "accuracy"], ([name, "" if a is None else f"{a:.6g}"] for name, a in facts["without"].items())
    )
    files = {
        "blocks.json": format_json(facts).encode(), "blocks.csv": table.encode(), "blocks.png": draw_blocks(facts)
    }  # fmt: skip
    return facts, files


def repeatable(images: EvaluatedImages, in_size: Sequence[int]) -> Callable[[], Iterator[Batch]]:
    """Return a function that yields the batches at each call: from memory if they are small, else read again.

    Args:
        images: The images.
        in_size: (C, H, W) of an image.
    """
    if torch.float32.itemsize * prod(in_size) * len(images.names) > MOST_KEPT_BYTES:
        return images.batches
    kept = list(images.batches())
    return lambda: iter(kept)


def draw_blocks(facts: Mapping[str, Any]) -> bytes:
    """Draw the accuracy without each block (left), and by the number of deleted blocks and of swaps (right), as PNG."""
    figure, (left, right) = make_figure("Accuracy with blocks deleted, and with blocks swapped", 1, 2)
    singles = [(i, value) for i, value in enumerate(facts["without"].values(), start=1) if value is not None]
    mark_series(left, {"without one block": singles})
    left.set_xlabel("the block")
    several = {name: [(row["count"], row["mean"]) for row in facts[name]] for name in ("deleted", "swapped")}
    mark_series(right, {f"blocks {name}" if name == "deleted" else "swaps": of for name, of in several.items() if of})
    right.set_xlabel("how many, chosen at random")
    for axes in (left, right):
        axes.axhline(facts["accuracy"], color="black", linewidth=0.8)
        axes.set_ylim(-3, 103)
        axes.set_ylabel("accuracy (%)")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def format_blocks(facts: Mapping[str, Any]) -> list[str]:
    """Return lines for the terminal."""
    known = {name: value for name, value in facts["without"].items() if value is not None}
    lines = []
    if known:
        worst = min(known, key=lambda name: known[name])
        mean = sum(known.values()) / len(known)
        lines.append(f"without one block: accuracy {mean:.2f} % on average, {known[worst]:.2f} % without {worst}")
    for name, words in (("deleted", "random blocks deleted"), ("swapped", "random swaps of two blocks")):
        rows: Sequence[Mapping[str, Any]] = facts[name]
        if rows:
            lines.append(f"{words}: " + ", ".join(f"{row['count']}: {row['mean']:.2f} %" for row in rows))
    return lines
