"""The exported graph: uint8 images in, probabilities or logits out, with the run's preprocessing inside.

Shapes: B images, H height, W width, C channels, K classes.
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnet_cli.data.images.resize import background_color
from resnet_cli.export.resize import EnlargeCenter, ResizeImages
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.preprocessing import Preprocessing
from resnet_cli.inference.rejection import Rejection
from resnet_cli.session.build import get_argument

Output = Literal["probabilities", "logits"]
Precision = Literal["fp32", "fp16"]


class ExportGraph(nn.Module):
    """A trained net with its preprocessing as one module that can be traced.

    Args:
        classifier: The trained net.
        resizes: Whether the graph takes images of any size and resizes them to that of the net.
        output: `probabilities`, or the net's own `logits`.
        precision: `fp16` runs the net in half precision; preprocessing and output stay in float32.
        rejection: Adds an output `rejected`; see `resnet_cli.inference.rejection`.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        classifier: Classifier,
        *,
        resizes: bool,
        output: Output = "probabilities",
        precision: Precision = "fp32",
        rejection: Rejection | None = None,
    ) -> None:
        super().__init__()
        preprocessing = classifier.preprocessing
        _, height, width = preprocessing.in_size
        self.resize = _resize_module(preprocessing) if resizes else None
        crop = preprocessing.eval_crop
        self.center = EnlargeCenter(height, width, crop) if crop != 1 else None
        # The same multiply-add as `resnet_cli.data.loading.batch_loader.Normalize`.
        self.register_buffer("scale", torch.tensor([1 / (255 * s) for s in preprocessing.std]))
        pairs = zip(preprocessing.mean, preprocessing.std, strict=True)
        self.register_buffer("shift", torch.tensor([-m / s for m, s in pairs]))
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.net = copy.deepcopy(classifier.model).to("cpu", self.dtype).requires_grad_(False)
        self.output, self.rejection = output, rejection
        self.temperature, self.has_label_sets = classifier.temperature, classifier.has_label_sets

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the output for uint8 images [B, H, W, C]: float32 [B, K], and bool [B] if images are rejected."""
        pixels = images if self.resize is None else self.resize(images)
        if self.center is not None:
            pixels = self.center(pixels.double())
        inputs_BCHW = (pixels.float() * self.scale + self.shift).permute(0, 3, 1, 2)
        logits_BK = self.net(inputs_BCHW.to(self.dtype)).float()
        found = logits_BK
        if self.output == "probabilities":
            scaled_BK = logits_BK / self.temperature
            found = scaled_BK.sigmoid() if self.has_label_sets else scaled_BK.softmax(1)
        if self.rejection is None:
            return (found,)
        return found, self.rejection.scores(logits_BK) < self.rejection.threshold


def is_resized(data_node: Mapping[str, Any] | None) -> bool:
    """Return whether the run's images were resized when decoded, so that its graph should take images of any size."""
    return (
        data_node is not None
        and get_argument(data_node, "resize") is not None
        and bool(get_argument(data_node, "image_size"))
    )


def _resize_module(preprocessing: Preprocessing) -> ResizeImages:
    channels, height, width = preprocessing.in_size
    decoding = preprocessing.decoding
    background = background_color(decoding.background, channels) if decoding.resize == "pad" else [0] * channels
    return ResizeImages(height, width, decoding.resize, background, decoding.interpolation)
