"""Config to objects. Below this file there are plain keyword arguments and no config.

Each function takes a node (`_target_` and its arguments as plain data, checked by `resnet_cli.config.validation`)
and what the builder knows: the data's sizes, the device, the seed.
"""

import re
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnet_cli.config.annotations import convert
from resnet_cli.config.signatures import locate, signature
from resnet_cli.config.stored import plain_data
from resnet_cli.config.trust import check_names
from resnet_cli.config.validation import CONFIG_GROUPS, check_part
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders, make_loaders
from resnet_cli.errors import InputError
from resnet_cli.loggers import Logger, require_packages
from resnet_cli.optimizers import build_optimizer
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.session.trusted_kinds import check_kinds
from resnet_cli.training.trainer import ClassifierTrainer

Node = Mapping[str, Any]

LARGEST_IMAGE = 1 << 26  # numbers in one image of what a checkpoint says of its data


def instantiate(key: str, node: Node, given: Mapping[str, Any], *, skip: frozenset[str] = frozenset()) -> Any:
    """Call what `node` names with its arguments and those of `given` that it has parameters for.

    A callable that takes any keyword gets `num_classes` of `given`, the usual name, unless it names the number of
    classes otherwise. Nodes among the arguments are called first.

    Args:
        key: Where the node stands in the config.
        node: `_target_` and arguments.
        given: What the builder passes, under every name that it may have.
        skip: Keys of the node that somebody else reads.

    Raises:
        InputError: the callable refused a value.
    """
    target = node["_target_"]
    known = signature(target)
    arguments = {}
    for name, value in node.items():
        if name == "_target_" or (name in skip and name not in known.parameters):
            continue
        is_node = isinstance(value, Mapping) and "_target_" in value
        parameter = known.parameters.get(name)
        plain = value if parameter is None else convert(value, parameter.annotation)
        arguments[name] = instantiate(f"{key}.{name}", value, given) if is_node else plain
    arguments |= {name: value for name, value in given.items() if name in known.parameters and name not in arguments}
    if known.open and "num_classes" in given and not {"num_classes", "out_classes"} & set(arguments):
        arguments["num_classes"] = given["num_classes"]
    try:
        return locate(target)(**arguments)
    except InputError as error:
        own = set(known.parameters) - set(given)
        raise InputError(*(_with_full_key(key, problem, own) for problem in error.problems)) from error
    except ValueError as error:
        raise InputError(_with_full_key(key, " ".join(str(error).split()), set())) from error
    except (RuntimeError, MemoryError) as error:
        if "memory" in str(error) or "overflow" in str(error) or isinstance(error, MemoryError):
            raise InputError(f"{key}: {target} needs more memory than there is") from error
        raise


def _with_full_key(key: str, problem: str, parameters: Set[str]) -> str:
    """`depth=21: ...` as `model.depth=21: ...`."""
    if problem.startswith((f"{key}.", f"{key}=")):
        return problem
    return f"{key}{'.' if re.split(r'[^a-z_]', problem)[0] in parameters else ': '}{problem}"


def get_argument(node: Node, name: str) -> Any:
    """What the node's callable gets for `name`: the node's value, or the parameter's default; None if it takes none."""
    if name in node:
        return node[name]
    parameter = signature(node["_target_"]).parameters.get(name)
    return parameter.default if parameter else None


def _readers_keys(part: str) -> frozenset[str]:
    """Keys of a part's node that its reader takes, not its target."""
    return frozenset(name for reader in CONFIG_GROUPS[part].readers for name in signature(reader).parameters)


def loaders(node: Node, *, device: torch.device, seed: int) -> Loaders:
    """The data set that `node` names, split and behind loaders."""
    keys = _readers_keys("data")
    dataset = instantiate("data", node, {}, skip=keys)
    options = {name: value for name, value in node.items() if name in keys}
    if options.get("augment") is not None:
        options["augment"] = instantiate("data.augment", options["augment"], {})
    return make_loaders(dataset, device=device, seed=seed, **options)


def model(node: Node, *, in_size: tuple[int, int, int], num_classes: int, seed: int) -> nn.Module:
    """The model that `node` names, for images of `in_size` (C, H, W) and `num_classes` classes.

    The seed is set first, so that equal seeds draw equal weights. The model is then run once on blank images.

    Raises:
        InputError: it does not run on images of this size, or gives another number of scores.
    """
    torch.manual_seed(seed)
    given = {
        "in_size": in_size,
        "in_channels": in_size[0],
        "out_classes": num_classes,
        "num_classes": num_classes,
    }
    built = instantiate("model", node, given)
    if not isinstance(built, nn.Module):
        raise InputError(f"model._target_: {node['_target_']} gave a {type(built).__name__}, not a torch.nn.Module")
    size = "x".join(map(str, in_size))
    training = built.training
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            scores = built.eval()(torch.zeros(2, *in_size))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"model: {node['_target_']} does not run on images of {size}: {reason}") from error
    finally:
        built.train(training)
    if tuple(scores.shape) != (2, num_classes):
        raise InputError(
            f"model: {node['_target_']} gives scores of shape {list(scores.shape)} for 2 images of {size}; "
            f"the data have {num_classes} classes, so it must be [2, {num_classes}]"
        )
    return built


def optimizer(node: Node, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that `node` names over the net's parameters."""
    keys = _readers_keys("optimizer")
    options = {name: value for name, value in node.items() if name in keys}

    def factory(groups: list[dict[str, Any]], **rest: Any) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = instantiate(
            "optimizer", {"_target_": node["_target_"], **rest}, {"params": groups}
        )
        return made

    rest = {name: value for name, value in node.items() if name not in keys and name != "_target_"}
    try:
        return build_optimizer(net, factory, **options, **rest)
    except InputError as error:
        raise InputError(*(p if p.startswith("optimizer") else f"optimizer.{p}" for p in error.problems)) from error


def schedule(node: Node, *, total_steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The schedule that `node` names: step -> factor on the learning rate."""
    made: Callable[[int], float] = instantiate(
        "schedule", node, {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}
    )
    return made


def trainer(
    node: Node, *, net: nn.Module, optimizer: torch.optim.Optimizer, schedule: Callable[[int], float], seed: int
) -> ClassifierTrainer:
    """The trainer that `node` names, with cross-entropy as its loss."""
    given = {"model": net, "loss_fn": None, "optimizer": optimizer, "schedule": schedule, "seed": seed}
    made: ClassifierTrainer = instantiate("trainer", node, given)
    return made


def loggers(nodes: Mapping[str, Node] | None) -> dict[str, Logger]:
    """The trackers that `nodes` name, by their names.

    Raises:
        InputError: a package is not installed, or what is named is no tracker.
    """
    require_packages(nodes)
    made = {name: instantiate(f"logger.{name}", node, {}) for name, node in (nodes or {}).items()}
    for name, tracker in made.items():
        if not isinstance(tracker, Logger):
            raise InputError(f"logger.{name}: {type(tracker).__name__} is no subclass of resnet_cli.loggers.Logger")
    return made


def load_weights(net: nn.Module, path: str) -> list[str]:
    """Fill a net with the weights of another run, as far as names and shapes agree (`init_from=RUN`).

    Args:
        net: Its own weights stay where the other run has none that fit, such as a head for other classes.
        path: A run folder, or one of its checkpoints.

    Returns:
        The names of what was left as it is.

    Raises:
        InputError: no such run, or nothing in it fits.
    """
    run = find_run(path)
    file = Path(path).expanduser()
    if file == run.path or file.is_dir():
        file = run.best if run.best.exists() else run.last
    stored = _weights(checkpoints.load(file), file)
    own = net.state_dict()
    fitting = {name: value for name, value in stored.items() if name in own and own[name].shape == value.shape}
    if not any(name in fitting for name, _ in net.named_parameters()):
        raise InputError(f"init_from: {file} is of another model: none of its {len(stored)} tensors fits this one")
    net.load_state_dict(fitting, strict=False)
    return [name for name in own if name not in fitting]


def _weights(payload: Mapping[str, Any], file: Path) -> dict[str, torch.Tensor]:
    """The model's tensors in a checkpoint.

    Raises:
        InputError: they are something else.
    """
    found = payload["state"].get("model")
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"{file}: not a checkpoint of resnet-cli: state.model holds no weights")
    return found


def _sizes(payload: Mapping[str, Any], file: Path) -> tuple[tuple[int, int, int], int]:
    """`in_size` and the number of classes that a checkpoint says its data had.

    Raises:
        InputError: it says something else, or images larger than any.
    """
    size, names = payload["data"].get("in_size"), payload["data"].get("class_names")
    whole = isinstance(size, list) and len(size) == 3 and all(type(n) is int and n > 0 for n in size)
    if not whole or size[0] * size[1] * size[2] > LARGEST_IMAGE:
        raise InputError(f"{file}: data.in_size: {format_value(size)} is no size of an image")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file}: data.class_names: {format_value(names)} are no names")
    channels, height, width = size
    return (channels, height, width), len(names)


def open_run(
    path: str, *, device: str = "cpu", trust: bool = False, named: Mapping[str, str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A trained model from a run folder or checkpoint, in evaluation mode, and what it knows of its data.

    The config in the checkpoint says what is built: a model of this package, `torch.nn` or `torchvision.models`.

    Args:
        path: A run folder (its best checkpoint, or the last where there is no best) or a checkpoint in one.
        device: Where the model goes.
        trust: Build whatever else the config names; that runs code of its author's choice.
        named: Build these others, if the config names them: dotted names by key (`{"model": "my_package.Net"}`).

    Returns:
        The model, and a mapping with `class_names`, `in_size` (C, H, W), `mean` and `std` (per channel, of images in
        the range 0 to 1).

    Raises:
        InputError: no such run, its checkpoint is damaged or does not fit its config, or that names other classes.
    """
    run: RunDir = find_run(path)
    file = Path(path).expanduser()
    if file.is_dir():
        file = run.best if run.best.exists() else run.last
    payload = checkpoints.load(file)
    node = {"model": plain_data(payload["config"], str(file)).get("model")}
    if not trust:
        check_names(node, named or {})
    check_part("model", node["model"])
    if not trust:
        check_kinds(node, named or {})
    in_size, classes = _sizes(payload, file)
    weights = _weights(payload, file)
    net = model(node["model"] or {}, in_size=in_size, num_classes=classes, seed=0)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{file}: its weights do not fit its config: {str(error).splitlines()[-1].strip()}") from error
    return net.to(device).eval(), payload["data"]
