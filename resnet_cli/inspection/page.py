"""The report of resnet-data as one HTML page, with sample images of each class and an augmented batch."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.duplicates import describe_image
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.batch_loader import Normalize
from resnet_cli.data.loading.device_loader import DeviceLoader, ResidentSplit
from resnet_cli.errors import InputError
from resnet_cli.inspection import text
from resnet_cli.inspection.inspected import Inspected, build_augment
from resnet_cli.plots.samples import MAX_IMAGES, draw_samples

MAX_SAMPLES = 400  # images of the page, shared among the classes
SAMPLES = (2, 12)  # fewest and most images of a class
NARROW = 4  # images of a class up to which classes are set side by side
MAX_SIDE = 128  # pixels; larger images are reduced
SMALL_SIDE = 64  # pixels; images up to this size are stored losslessly
MAX_DAMAGED = 100  # damaged images in the list
MAX_CLASSES = 200  # with samples; of more, the largest and the smallest are shown

HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>{css}</style></head><body><h1>{title}</h1>
"""


def format_html(found: Inspected, *, seed: int) -> str:
    """Format the page, with all text from the data escaped."""
    css = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    overview, findings = text.format_overview(found.report), text.format_findings(found.report, MAX_DAMAGED)
    return "".join([
        HEAD.format(title=_escape(f"Data: {found.dataset.name}"), css=css),
        f"<pre>{_lines(overview)}</pre>\n",
        f'<h2>Damaged, suspicious and equal images</h2>\n<pre class="list">{_lines(findings)}</pre>\n',
        "<h2>A batch as the network sees it</h2>\n",
        _batch(found, seed),
        f"<h2>Training images of each class</h2>\n{_class_samples(found)}</body></html>\n",
    ])  # fmt: skip


def _escape(line: str) -> str:
    return escape(escape_control_characters(line))


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(map(_escape, lines))


def _usable(found: Inspected) -> Tensor:
    """Return the indices of the training images that can be decoded."""
    survey, indices = found.samples("train")
    return indices[torch.from_numpy(survey.pixels)[indices] > 0]


def _batch(found: Inspected, seed: int) -> str:
    """Return a picture of the first images in a random order, augmented."""
    usable = _usable(found)
    if not len(usable):
        return "<p>No training image can be decoded.</p>\n"
    split, _ = found.partition.samples["train"]
    chosen = usable[torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))][:MAX_IMAGES]
    statistics = found.report["statistics"]
    mean = statistics["used_mean"] or statistics["mean"]
    std = statistics["used_std"] or [value or 1.0 for value in statistics["std"]]
    images = [(_pixels(split, i), split.labels[i]) for i in chosen.tolist()]
    size = next((image.shape for image, _ in images if image.shape[2] == len(mean)), None)
    pairs = [(image, label) for image, label in images if image.shape == size]
    if size is None:
        return f"<p>None of {len(images)} images has {len(mean)} channels, as the first one.</p>\n"
    try:
        augment = build_augment(found.node, (size[2], size[0], size[1]))
    except InputError as error:
        return f"<p>{_lines(error.problems)}</p>\n"
    small = DatasetSplit(torch.stack([image for image, _ in pairs]), torch.stack([label for _, label in pairs]))
    loader = DeviceLoader(
        ResidentSplit(small, "cpu"), torch.arange(len(small)), batch_size=len(small), seed=seed,
        num_classes=len(found.dataset.class_names), normalize=Normalize(mean, std), augment=augment,
    )  # fmt: skip
    images_BCHW, labels = next(iter(loader.epoch(0)))
    names = found.dataset.class_names
    picture = draw_samples(images_BCHW, labels, class_names=names, mean=mean, std=std, title="augmented")
    return f'<img class="batch" alt="A batch of augmented images" src="{_data_url(picture)}">\n'


def _class_samples(found: Inspected) -> str:
    """Return a row of evenly spaced sample images for each class."""
    names = found.dataset.class_names
    split, _ = found.partition.samples["train"]
    usable = _usable(found)
    labels = split.labels[usable]
    chosen, note = _choose_classes([row["train"] for row in found.report["classes"]])
    each = min(max(MAX_SAMPLES // len(chosen), SAMPLES[0]), SAMPLES[1])
    rows = []
    for k in chosen:
        is_class = labels == k if labels.ndim == 1 else labels[:, k] > 0
        of_class = usable[is_class]
        places = torch.linspace(0, len(of_class) - 1, min(each, len(of_class))).long()
        images = _images(split, of_class[places].tolist())
        total = found.report["classes"][k]["train"]
        count = f"{len(places)} of {total:,}" + (f", {len(of_class):,} usable" if len(of_class) < total else "")
        title = f"<h3>{_escape(names[k])} <small>{count}</small></h3>"
        rows.append(f"<section>{title}<div>{images}</div></section>\n")
    columns = "narrow" if each <= NARROW else "wide"
    return f'{note}<div class="classes {columns}">{"".join(rows)}</div>'


def _choose_classes(counts: Sequence[int]) -> tuple[list[int], str]:
    """Return the classes to show samples of, in order, and a paragraph about any that are left out."""
    if len(counts) <= MAX_CLASSES:
        return list(range(len(counts))), ""
    half = MAX_CLASSES // 2
    ordered = sorted(range(len(counts)), key=lambda k: -counts[k])
    note = f"<p>The {half} largest and the {half} smallest of {len(counts):,} classes.</p>\n"
    return sorted([*ordered[:half], *ordered[-half:]]), note


def _pixels(split: DatasetSplit, index: int) -> Tensor:
    """Return an image, uint8 [H, W, C]; images may differ in size."""
    images = split.images
    return images.examine(index)[0] if isinstance(images, LazyImages) else images[index]


def _images(split: DatasetSplit, indices: Sequence[int]) -> str:
    from PIL import Image

    elements = []
    for index in indices:
        array = _pixels(split, index).numpy()
        image = Image.fromarray(array[..., 0] if array.shape[2] < 3 else array[..., :3].copy())
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        buffer = BytesIO()
        kind = "PNG" if max(image.size) <= SMALL_SIDE else "JPEG"  # a photograph takes a fifth of the bytes as JPEG
        image.save(buffer, kind, **({} if kind == "PNG" else {"quality": 85}))
        name = escape(escape_control_characters(describe_image("train", split, index)), quote=True)
        elements.append(f'<img alt="{name}" title="{name}" src="{_data_url(buffer.getvalue(), kind.lower())}">')
    return "".join(elements)


def _data_url(picture: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{b64encode(picture).decode()}"
