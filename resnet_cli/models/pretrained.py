"""Published weights of other libraries' nets: their names, sources and preprocessing.

Nothing is downloaded or loaded here; see `resnet_cli.session.pretrained`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError
from resnet_cli.models.timm_models import require_timm_name

DEFAULT = "DEFAULT"
TIMM = "resnet_cli.models.timm_model"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # in a repository of the hub, in order of preference
FORMER_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
FILE_SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar", ".safetensors")


@dataclass(frozen=True)
class Preprocessing:
    """How images are prepared for published weights.

    Args:
        mean: Mean of each channel by which images are normalised, on the scale 0 to 1.
        std: Standard deviation of each channel.
        image_size: Height and width of the images.
        interpolation: Kernel of resizing: `bilinear`, `bicubic`, ...
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: tuple[int, int]
    interpolation: str


@dataclass(frozen=True)
class Pretrained:
    """Weights that a net of another library can start from.

    Args:
        net: The net and its library, for messages.
        name: Name of the weights, or the user's file.
        key: The config key that names them.
        url: URL of the file; None for the user's file and for the hub.
        repository: Name on the Hugging Face Hub, and the files to try there in turn.
        preprocessing: Preprocessing of the images; None if unknown.
        stored: Arguments that replace the node's own in the stored config: the name of `DEFAULT` weights, since another
            version of the library may have another default.
    """

    net: str
    name: str
    key: str = "model.weights"
    url: str | None = None
    repository: tuple[str, tuple[str, ...]] | None = None
    preprocessing: Preprocessing | None = None
    stored: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """True if the weights are a user's file."""
        return self.url is None and self.repository is None

    @property
    def file_name(self) -> str:
        """Name of the file behind `url`."""
        return PurePath(urlparse(self.url or "").path).name


def pretrained_of(node: Mapping[str, Any]) -> Pretrained | None:
    """Return the published weights that a node of group `model` names; None if it names none.

    Raises:
        InputError: there are no weights of that name.
    """
    find = _SOURCES.get(str(node.get("_target_")))
    return find(node) if find is not None else None


def torchvision_weights(name: str, weights: str) -> Pretrained:
    """Return weights of one of torchvision's classifiers.

    Args:
        name: Name of the net.
        weights: `DEFAULT`, the name of weights, or a file. Published weights take precedence over a file of that name.

    Raises:
        InputError: no such weights; the message has the nearest name.
    """
    from torchvision import models  # slow to import, and needed only here

    net = f"torchvision's {name}"
    nets = models.list_models(module=models)
    if name not in nets:
        raise InputError(f"model.name={name}: torchvision has no such classifier{did_you_mean(name, nets)}")
    found: dict[str, Any] = dict(models.get_model_weights(name).__members__)
    short = weights.rpartition(".")[2] if weights.partition(".")[0].endswith("_Weights") else weights
    if short in found:
        published = found[short]
        return Pretrained(
            net, published.name, url=published.url, preprocessing=_torchvision_preprocessing(published),
            stored={"weights": published.name},
        )  # fmt: skip
    if "/" not in weights and "\\" not in weights and PurePath(weights).suffix.lower() not in FILE_SUFFIXES:
        names = list(dict.fromkeys([DEFAULT, *found]))
        there = f"{net} has {', '.join(names)}" if found else f"{net} has no published weights"
        raise InputError(f"model.weights={weights}: {there}, or give a file{did_you_mean(weights, names)}")
    same_file = next((w for w in found.values() if PurePath(urlparse(w.url).path).name == PurePath(weights).name), None)
    return Pretrained(net, weights, preprocessing=_torchvision_preprocessing(same_file) if same_file else None)


def _torchvision_preprocessing(weights: Enum) -> Preprocessing:
    preset = weights.transforms()  # type: ignore[attr-defined]
    crop = list(preset.crop_size)
    return Preprocessing(
        tuple(preset.mean), tuple(preset.std), (crop[0], crop[-1]), str(preset.interpolation.value).lower()
    )


def timm_weights(name: str) -> Pretrained:
    """Return the published weights of one of timm's classifiers.

    Args:
        name: Name of the net, with the tag of its weights or, for timm's default weights, without.

    Raises:
        InputError: timm is not installed, does not have the net, or does not have weights for it.
    """
    require_timm_name(name)
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or _is_readable(config.url)):
        raise InputError(f"model.pretrained=true: timm has no published weights of {name} that can be read")
    full_name = f"{name.partition('.')[0]}.{config.tag}" if config.tag else name
    files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
    return Pretrained(
        "timm", full_name, key="model.name",
        url=str(config.url) if _is_readable(config.url) else None,
        repository=(config.hf_hub_id, files) if config.hf_hub_id else None,
        preprocessing=Preprocessing(
            tuple(config.mean), tuple(config.std), (config.input_size[1], config.input_size[2]),
            str(config.interpolation),
        ),
        stored={"name": full_name},
    )  # fmt: skip


def _is_readable(url: Any) -> bool:
    return isinstance(url, str) and PurePath(urlparse(url).path).suffix.lower() in FILE_SUFFIXES


def native_tensors(node: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return published weights under the current parameter names, as the net's library converts old ones.

    Args:
        node: The node of group `model`.
        tensors: The weights by the names in their file.

    Raises:
        InputError: the library rejects the weights.
    """
    if node["_target_"] == TIMM:
        return _native_to_timm(str(node["name"]), tensors)
    if str(node.get("name")).startswith("densenet"):  # files from before torchvision 0.3 have norm.1 for norm1
        return {FORMER_DENSENET.sub(r"\1\2", name): value for name, value in tensors.items()}
    return tensors


def _native_to_timm(name: str, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Load weights into the net that they were published for, as timm converts them, and return its state."""
    import timm

    try:
        with torch.random.fork_rng(devices=[]):
            net = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"state_dict": dict(tensors)})
    except Exception as error:  # timm's many conversions may raise anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()[:200]
        raise InputError(f"model.name={name}: timm cannot load these weights: {reason}") from None
    state: dict[str, Tensor] = net.state_dict()
    return state


def _timm_pretrained(node: Mapping[str, Any]) -> Pretrained | None:
    return timm_weights(str(node.get("name", "resnet18"))) if node.get("pretrained") is True else None


def _torchvision_pretrained(node: Mapping[str, Any]) -> Pretrained | None:
    weights = node.get("weights")
    return torchvision_weights(str(node.get("name", "resnet18")), str(weights)) if weights is not None else None


_SOURCES: Mapping[str, Callable[[Mapping[str, Any]], Pretrained | None]] = {
    "resnet_cli.models.torchvision_model": _torchvision_pretrained,
    TIMM: _timm_pretrained,
}
