"""Contact sheets: images side by side with lines of text below them, as one PNG."""

from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image, ImageFont

COLUMNS = 8
MIN_TILE, MAX_TILE = 96, 160  # pixels of the longer side: smaller images are enlarged by a whole factor
GAP, MARGIN, LINE = 8, 16, 16
TITLE_SIZE, TEXT_SIZE = 15, 12
INK, GREY, PAPER = "#111111", "#666666", "#ffffff"


def draw_contact_sheet(
    images: Sequence[Tensor], captions: Sequence[Sequence[str]], *, title: str, columns: int = COLUMNS
) -> bytes:
    """Draw images in rows, and return the picture as PNG. The same images give the same picture.

    Args:
        images: uint8 [H, W, 1 or 3], all of one size.
        captions: Lines below each image, the first in black and the others in grey.
        title: Line above the images.
        columns: Images in a row.
    """
    from PIL import Image, ImageDraw

    width, height = _tile_size(images[0].shape[1], images[0].shape[0]) if images else (MIN_TILE, MIN_TILE)
    lines = max(map(len, captions), default=0)
    rows, shown = -(-len(images) // columns), min(columns, len(images))
    cell_width, cell_height = max(width, MIN_TILE) + GAP, height + lines * LINE + GAP
    size = (2 * MARGIN + max(shown, 4) * cell_width - GAP, 2 * MARGIN + 2 * LINE + rows * cell_height - GAP)
    picture = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(picture)
    title_font, font = _load_font(TITLE_SIZE), _load_font(TEXT_SIZE)
    draw.text((MARGIN, MARGIN), _truncate(title, title_font, size[0] - 2 * MARGIN), fill=INK, font=title_font)
    for index, (pixels_HWC, caption) in enumerate(zip(images, captions, strict=True)):
        x = MARGIN + index % columns * cell_width
        y = MARGIN + 2 * LINE + index // columns * cell_height
        picture.paste(_tile(pixels_HWC, width, height), (x, y))
        for number, line in enumerate(caption):
            text = _truncate(line, font, cell_width - GAP)
            draw.text((x, y + height + 2 + number * LINE), text, fill=GREY if number else INK, font=font)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def one_line(name: str) -> str:
    """Return a name without line breaks."""
    return " ".join(str(name).split()) or "(no name)"


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
