"""Training images as the network sees them, with the names of their classes: one picture for a run."""

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image, ImageFont

MAX_IMAGES = 32
COLUMNS = 8
MIN_TILE, MAX_TILE = 96, 160  # pixels of the longer side: smaller images are enlarged by a whole factor
GAP, MARGIN, LINE = 8, 16, 16
TITLE_SIZE, TEXT_SIZE = 15, 12
INK, GREY, PAPER = "#111111", "#666666", "#ffffff"
MIN_SHARE = 0.005  # of a class in a mixed label: less is not shown


def draw_samples(
    images_BCHW: Tensor,
    labels: Tensor,
    *,
    class_names: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    title: str,
) -> bytes:
    """Draw at most 32 images of a batch with their classes, and return the picture as PNG.

    The same batch gives the same picture. Of images with two channels the first is shown, of those with more than three
    the first three.

    Args:
        images_BCHW: Normalised images, float [B, C, H, W].
        labels: Classes [B], or scores of the classes [B, K]: shares of mixed images, or 1 for each of several labels.
        class_names: Names of the classes, indexed by label.
        mean: Mean of each channel that the images were normalised with, on the scale 0 to 1.
        std: Standard deviation of each channel, likewise.
        title: Line above the images.
    """
    from PIL import Image, ImageDraw

    pixels_BHWC = _to_pixels(images_BCHW[:MAX_IMAGES], mean, std)
    captions = [caption_lines(label, class_names) for label in labels[:MAX_IMAGES].cpu()]
    width, height = _tile_size(images_BCHW.shape[3], images_BCHW.shape[2])
    lines = max(map(len, captions))
    columns, rows = min(COLUMNS, len(captions)), -(-len(captions) // COLUMNS)
    cell_width, cell_height = max(width, MIN_TILE) + GAP, height + lines * LINE + GAP
    size = (2 * MARGIN + max(columns, 4) * cell_width - GAP, 2 * MARGIN + 2 * LINE + rows * cell_height - GAP)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    title_font, font = _load_font(TITLE_SIZE), _load_font(TEXT_SIZE)
    channels = images_BCHW.shape[1]
    note = {1: "", 2: ", channel 1 of 2", 3: ""}.get(channels, f", channels 1 to 3 of {channels}")
    draw.text((MARGIN, MARGIN), _truncate(title + note, title_font, size[0] - 2 * MARGIN), fill=INK, font=title_font)
    for index, (pixels_HWC, caption) in enumerate(zip(pixels_BHWC, captions, strict=True)):
        x = MARGIN + index % COLUMNS * cell_width
        y = MARGIN + 2 * LINE + index // COLUMNS * cell_height
        picture.paste(_tile(pixels_HWC, width, height), (x, y))
        for number, line in enumerate(caption):
            text = _truncate(line, font, cell_width - GAP)
            draw.text((x, y + height + 2 + number * LINE), text, fill=GREY if number else INK, font=font)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def caption_lines(label: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the class of an image, the shares of the classes of a mixed one, or its several labels; a line each."""
    if not label.ndim:
        return [_one_line(class_names[int(label)])]
    shares = {_one_line(class_names[k]): float(label[k]) for k in label.argsort(descending=True, stable=True).tolist()}
    found = {name: share for name, share in shares.items() if share > MIN_SHARE}
    if all(share == 1 for share in found.values()):
        return list(found) or ["no label"]
    return [f"{share:.0%} {name}" for name, share in list(found.items())[:3]]


def _one_line(name: str) -> str:
    return " ".join(str(name).split()) or "(no name)"


def _to_pixels(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo the normalisation: uint8 [B, H, W, 1 or 3] of float [B, C, H, W]."""
    images = images_BCHW.detach().float().cpu()
    shown = 3 if images.shape[1] >= 3 else 1
    scale, shift = (torch.tensor(list(values[:shown])).view(1, -1, 1, 1) for values in (std, mean))
    values = (images[:, :shown] * scale + shift).nan_to_num().clamp(0, 1)
    return (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _tile_size(width: int, height: int) -> tuple[int, int]:
    """Return the size at which images of `width` x `height` are shown."""
    longest = max(width, height)
    if longest > MAX_TILE:
        return max(1, round(width * MAX_TILE / longest)), max(1, round(height * MAX_TILE / longest))
    factor = -(-MIN_TILE // longest)
    return width * factor, height * factor


def _tile(pixels_HWC: Tensor, width: int, height: int) -> "Image.Image":
    from PIL import Image

    array = pixels_HWC.numpy()
    image = Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)
    is_enlarged = width > image.width
    return image.resize((width, height), Image.Resampling.NEAREST if is_enlarged else Image.Resampling.BOX)


def _load_font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    """Return matplotlib's own font, which knows more letters than Pillow's; matplotlib itself is not imported."""
    from PIL import ImageFont

    found = find_spec("matplotlib")
    try:
        folder = Path(found.origin if found and found.origin else "").parent
        return ImageFont.truetype(folder / "mpl-data/fonts/ttf/DejaVuSans.ttf", size)
    except (OSError, ImportError):  # another layout of the package, or a Pillow without FreeType
        return ImageFont.load_default()


def _truncate(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> str:
    """Return the text, cut at its end if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
