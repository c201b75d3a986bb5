"""The head of a net: the layers that compute the class scores."""

import re

from torch import nn

LAYERS = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
HEAD_NAMES = re.compile(r"(heads?|classifier|fc|logits)([._]|$)")  # usual names of a net's own modules
# What distinguishes the names of further heads for distillation and auxiliary losses: head_dist, aux_head.
FURTHER_HEAD = re.compile(r"_dist\b|\baux_")


def find_head(model: nn.Module, num_classes: int | None = None) -> list[nn.Module]:
    """Return the layers of the head, of which there are several in nets with a head for distillation or for each scale.

    The head is the last layer with an output for each class; layers with a usual name, such as `head` or `fc`, come
    before others. Without such a layer, it is the last convolution or linear layer.

    Args:
        model: The net; the order of its layers is that of their registration.
        num_classes: Number of classes K, which is the number of rows of the head's weight; None if it is unknown.

    Returns:
        The layers; an empty list if the net has neither.
    """
    modules = dict(model.named_modules())
    found = [name for name, module in modules.items() if num_classes is not None and _rows(module) == num_classes]
    if not found:
        layers: list[nn.Module] = [module for module in modules.values() if isinstance(module, LAYERS)]
        return layers[-1:]
    last = max(found, key=lambda name: (HEAD_NAMES.match(name) is not None, found.index(name)))
    return [modules[name] for name in found if _are_parallel(name, last, modules)]


def head_parameters(model: nn.Module, num_classes: int) -> list[str]:
    """Return the names of the parameters of `find_head`."""
    own = {parameter for layer in find_head(model, num_classes) for parameter in layer.parameters(recurse=False)}
    return [name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter in own]


def _rows(module: nn.Module) -> int | None:
    weight = module._parameters.get("weight")
    if weight is None or weight.ndim < 2 or isinstance(module, nn.Embedding):
        return None
    return weight.shape[0]


def _are_parallel(name: str, last: str, modules: dict[str, nn.Module]) -> bool:
    """Return whether two layers are heads side by side, by their names or as entries of a list of heads."""
    parent, _, _ = last.rpartition(".")
    in_list = isinstance(modules[parent], nn.ModuleList) and "head" in parent and name.rpartition(".")[0] == parent
    return in_list or FURTHER_HEAD.sub("", name) == FURTHER_HEAD.sub("", last)
