"""The head of a net: the layer that computes the class scores."""

from torch import nn


def head_parameters(model: nn.Module, num_classes: int) -> list[str]:
    """Return the names of the parameters of the head: the last layer that has an output for each class.

    Args:
        model: The net; the order of its layers is that of their registration.
        num_classes: Number of classes K, which is the number of rows of the head's weight.

    Returns:
        The names; an empty list if no layer has K outputs.
    """
    found: list[str] = []
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim >= 2 and weight.shape[0] == num_classes:
            own = [inner for inner, value in module._parameters.items() if value is not None]
            found = [f"{name}.{inner}" if name else inner for inner in own]
    return found
