"""Class-activation maps: the regions of an image that support a class.

Shapes: B images, C channels, H height, W width, K classes.
"""

from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError

STRENGTH = 0.5  # opacity of the colours over the image


def grad_cam(model: nn.Module, images_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """Return Grad-CAM maps, float32 [B, h, w] from 0 to 1, in the size of the net's last feature maps.

    The maps are the feature maps weighted by the mean gradient of the class's logit, and rectified (Selvaraju et al.
    2017, arXiv 1610.02391, equations 1 and 2); each is divided by its maximum. In a map of zeros no part of the image
    supports the class.

    Args:
        model: Model in evaluation mode, on the device of the images.
        images_BCHW: Normalised images.
        classes_B: For each image, the class whose map is computed.

    Raises:
        InputError: The net has no feature maps, or does not use the last of them.
    """
    layer = find_feature_layer(model, images_BCHW[:1])
    captured: list[Tensor] = []

    def capture(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not _are_feature_maps(output):  # the module is called several times with different shapes
            return output
        captured.append(output.requires_grad_() if not output.requires_grad else output)
        return captured[-1] * 1  # a copy, since the next layer may change it in place

    handle = layer.register_forward_hook(capture)
    try:
        with torch.enable_grad():
            logits_BK = model(images_BCHW)
            chosen = logits_BK.gather(1, classes_B[:, None].to(logits_BK.device)).sum()
            (gradient_BChw,) = torch.autograd.grad(chosen, captured[-1], allow_unused=True)
    finally:
        handle.remove()
    if gradient_BChw is None:
        raise InputError(f"--explain: the classes of {type(model).__name__} do not depend on its last feature maps")
    weights_BC11 = gradient_BChw.mean((2, 3), keepdim=True)
    maps_Bhw = (weights_BC11 * captured[-1]).sum(1).relu().detach().float()
    largest_B11 = maps_Bhw.amax((1, 2), keepdim=True)
    return maps_Bhw / torch.where(largest_B11 > 0, largest_B11, torch.ones_like(largest_B11))


def find_feature_layer(model: nn.Module, image_1CHW: Tensor) -> nn.Module:
    """Return the module that computes the last feature maps: the last output [B, C, H, W] of more than one position.

    Raises:
        InputError: There is no such module.
    """
    found: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if _are_feature_maps(output):
            found.append(module)

    handles = [module.register_forward_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model(image_1CHW)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError(f"--explain: {type(model).__name__} has no feature maps to explain")
    return found[-1]


def _are_feature_maps(output: Any) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1


def overlay_maps(pixels_BHWC: Tensor, maps_Bhw: Tensor) -> Tensor:
    """Return images with their maps in colours over them, uint8 [B, H, W, 3].

    Args:
        pixels_BHWC: uint8 images of one or three channels.
        maps_Bhw: From 0 to 1; enlarged to the size of the images.
    """
    from matplotlib import colormaps

    _, height, width, channels = pixels_BHWC.shape
    enlarged = nn.functional.interpolate(maps_Bhw[:, None].cpu(), (height, width), mode="bilinear", align_corners=False)
    colours = torch.from_numpy(colormaps["inferno"](enlarged[:, 0].numpy())[..., :3]) * 255
    grey = pixels_BHWC.float() if channels == 3 else pixels_BHWC.float().expand(-1, -1, -1, 3)
    return ((1 - STRENGTH) * grey + STRENGTH * colours).round().clamp(0, 255).to(torch.uint8)
