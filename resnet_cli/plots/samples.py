"""Training images as the network sees them, with the names of their classes: one picture for a run."""

from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cli.plots.contact_sheet import draw_contact_sheet, one_line

MAX_IMAGES = 32
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

    The same batch gives the same picture. Of images with two channels, the first is shown; of those with more than
    three, the first three.

    Args:
        images_BCHW: Normalised images, float [B, C, H, W].
        labels: Classes [B], or scores of the classes [B, K]: shares of mixed images, or 1 for each of several labels.
        class_names: Names of the classes, indexed by label.
        mean: Mean of each channel that the images were normalised with, on the scale 0 to 1.
        std: Standard deviation of each channel, likewise.
        title: Line above the images.
    """
    pixels_BHWC = to_pixels(images_BCHW[:MAX_IMAGES], mean, std)
    captions = [caption_lines(label, class_names) for label in labels[:MAX_IMAGES].cpu()]
    channels = images_BCHW.shape[1]
    note = {1: "", 2: ", channel 1 of 2", 3: ""}.get(channels, f", channels 1 to 3 of {channels}")
    return draw_contact_sheet(list(pixels_BHWC), captions, title=title + note)


def caption_lines(label: Tensor, class_names: Sequence[str]) -> list[str]:
    """Return the class of an image, the shares of the classes of a mixed one, or its several labels; a line each."""
    if not label.ndim:
        return [one_line(class_names[int(label)])]
    shares = {one_line(class_names[k]): float(label[k]) for k in label.argsort(descending=True, stable=True).tolist()}
    found = {name: share for name, share in shares.items() if share > MIN_SHARE}
    if all(share == 1 for share in found.values()):
        return list(found) or ["no label"]
    return [f"{share:.0%} {name}" for name, share in list(found.items())[:3]]


def to_pixels(images_BCHW: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo the normalisation: uint8 [B, H, W, 1 or 3] of float [B, C, H, W]."""
    images = images_BCHW.detach().float().cpu()
    shown = 3 if images.shape[1] >= 3 else 1
    scale, shift = (torch.tensor(list(values[:shown])).view(1, -1, 1, 1) for values in (std, mean))
    values = (images[:, :shown] * scale + shift).nan_to_num().clamp(0, 1)
    return (values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
