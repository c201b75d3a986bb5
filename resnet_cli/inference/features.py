"""The features of a net: the inputs of its last linear layer.

Shapes: B images, D features, K classes.
"""

import copy
import threading
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.heads import find_head


class FeatureNet(nn.Module):
    """A net that returns its features instead of its scores; it shares the weights of the net that it is made of.

    Args:
        model: The net.
        num_classes: Number of classes K.

    Attributes:
        width: Number of features D.

    Raises:
        InputError: The net does not end with a linear layer, or with several side by side.
    """

    def __init__(self, model: nn.Module, num_classes: int) -> None:
        super().__init__()
        name, head = find_linear_head(model, num_classes)
        shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
        self.net: nn.Module = copy.deepcopy(model, shared)  # `model` itself gets no hook
        self.net.get_submodule(name).register_forward_pre_hook(self._keep, with_kwargs=True)
        self.width = head.in_features
        self._kept = threading.local()  # threads may share a classifier

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the features of images, float [B, D]: means over positions where the layer is called at several.

        Raises:
            InputError: The net uses the layer without calling it.
        """
        self._kept.inputs = None
        self.net(images_BCHW)  # which may scale or normalise the scores after the layer
        found: Tensor | None = self._kept.inputs
        self._kept.inputs = None
        if found is None:
            raise InputError(f"{type(self.net).__name__} does not call its last linear layer, and so has no features")
        return found if found.ndim <= 2 else found.flatten(1, -2).mean(1)

    def _keep(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._kept.inputs = args[0] if args else kwargs["input"]


def find_linear_head(model: nn.Module, num_classes: int) -> tuple[str, nn.Linear]:
    """Return the name and module of the linear layer that computes the logits.

    Raises:
        InputError: There is none, or there are several.
    """
    heads = find_head(model, num_classes)
    if len(heads) > 1:
        raise InputError(f"{type(model).__name__} has {len(heads)} heads that compute the logits together; no features")
    for name, part in model.named_modules():
        if part in heads and isinstance(part, nn.Linear) and part.out_features == num_classes:
            return name, part
    raise InputError(f"{type(model).__name__} has no linear layer that computes the logits, and so no features")
