"""Published weights of other libraries (`model.weights`, `model.pretrained`): load them, and prepare images as they do.

Files are looked for where their libraries keep them, so that they are downloaded once for all programs, and can be put
there by hand on a machine without a network.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from torch import nn

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.signatures import signature
from resnet_cli.config.values import is_valid
from resnet_cli.models.pretrained import Preprocessing, native_tensors, pretrained_of
from resnet_cli.runs.weight_files import read_weights
from resnet_cli.session.load import InitialWeights, load_weights, resolve_weights
from resnet_cli.session.pretrained_files import find_pretrained_file, hash_in_name

CHANNELS = {"mnist": 1, "fashion_mnist": 1, "cifar10": 3, "cifar100": 3, "svhn": 3, "flowers102": 3}
CHANNELS_OF_MODE = {"RGB": 3, "L": 1}


def with_defaults_of_weights(settings: dict[str, Any], given_keys: Collection[str]) -> dict[str, Any]:
    """Return a checked config with the weights' own image size and normalisation where the user has chosen none.

    `DEFAULT` is replaced by the name of the weights, since it may mean others in another version of their library.

    Args:
        settings: The config.
        given_keys: The keys that the user has set, on the command line or in an experiment's file.

    Raises:
        InputError: the model has no weights of that name.
    """
    model, data = settings["model"], settings["data"]
    pretrained = pretrained_of(model)
    if pretrained is None:
        return settings
    settings = {**settings, "model": {**model, **pretrained.stored}}
    if pretrained.preprocessing is None:
        return settings
    own = data_defaults(pretrained.preprocessing, data)
    chosen = {key: value for key, value in own.items() if f"data.{key}" not in given_keys}
    return {**settings, "data": {**data, **chosen}}


def data_defaults(preprocessing: Preprocessing, data: Node) -> dict[str, Any]:
    """Return the options with which a data set prepares images as the weights expect, as far as it has such options.

    A value that the data set does not allow is left out. Grey images are normalised by the mean over the channels; if
    the number of channels is not known, the data set keeps its own normalisation.
    """
    channels = _channels(data)
    height, width = preprocessing.image_size
    found: dict[str, Any] = {"image_size": height if height == width else [height, width]}
    found["interpolation"] = preprocessing.interpolation
    for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
        if channels == len(values):
            found[name] = list(values)
        elif channels == 1:
            found[name] = [round(sum(values) / len(values), 6)]
    known = signature(str(data["_target_"])).parameters
    return {
        key: value
        for key, value in found.items()
        if key in data and (key not in known or is_valid(value, known[key].annotation))
    }


def _channels(data: Node) -> int | None:
    """Return the number of channels of a data set's images; None if only the images show it."""
    if "mode" in data:
        return CHANNELS_OF_MODE.get(str(data["mode"]))
    return CHANNELS.get(str(data["_target_"]).rpartition(".")[2])


def describe_preparation(preprocessing: Preprocessing, data: Node) -> str:
    """Describe to the user how the preparation of the run's images compares with that of the weights' images."""
    own = data_defaults(preprocessing, data)
    same = [f"data.{key}={_text(value)}" for key, value in own.items() if _text(data[key]) == _text(value)]
    other = [
        f"data.{key}={_text(data[key])} not {_text(value)}"
        for key, value in own.items()
        if _text(data[key]) != _text(value)
    ]
    words = [f"images as theirs: {', '.join(same)}"] if same else []
    words += [f"other than theirs: {', '.join(other)}"] if other else []
    return "; ".join(words)


def _text(value: Any) -> str:
    return str(list(value) if isinstance(value, list | tuple) else value).replace(" ", "")


def require_weight_files(config: RunConfig, paths: Mapping[str, str]) -> None:
    """Find the file of the weights that a new run starts from, if any, before its data are read; download it if needed.

    Args:
        config: The config, with the present locations of files.
        paths: Present locations of files, by key.

    Raises:
        InputError: there is no such file, and it could not be fetched.
    """
    if config.init_from is not None:
        resolve_weights(paths.get("init_from", config.init_from), warns=False)
    elif (pretrained := pretrained_of(config.model)) is not None:
        find_pretrained_file(pretrained)


def load_pretrained(
    model: nn.Module, config: RunConfig, *, in_channels: int, class_names: Sequence[str]
) -> InitialWeights:
    """Load the published weights that the config's model asks for, if any.

    Args:
        model: Receives the weights.
        config: The config, with the present locations of files.
        in_channels: Channels of the images.
        class_names: Names of the classes.

    Raises:
        InputError: no such file, it could not be fetched, or it does not fit.
    """
    pretrained = pretrained_of(config.model)
    if pretrained is None:
        return InitialWeights()
    found = read_weights(find_pretrained_file(pretrained))
    source = replace(found, tensors=native_tensors(config.model, found.tensors))
    line, record = load_weights(
        model, source, in_channels=in_channels, class_names=class_names, key=f"{pretrained.key}={pretrained.name}"
    )
    line = f"{pretrained.name} of {pretrained.net}: {line}"
    known = pretrained.preprocessing
    if known is not None:
        line += f"; {describe_preparation(known, config.data)}"
        record["preprocessing"] = asdict(known)
    hash_prefix = hash_in_name(source.path.name)
    if hash_prefix is not None and not record["sha256"].startswith(hash_prefix):
        line += f"; warning: the SHA-256 of {source.path} does not begin with {hash_prefix} as its name says"
    if pretrained.repository is not None:
        record["repository"] = pretrained.repository[0]
    return InitialWeights(None, line, {"name": pretrained.name, "net": pretrained.net, **record})
