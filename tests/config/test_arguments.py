"""Arguments of calls from Python are validated as the values of a config are."""

import inspect
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.paths import is_path_key
from resnet_cli.config.ranges import AtLeast, Below, Between, Bounds, Positive
from resnet_cli.config.signatures import locate, signature
from resnet_cli.data import Augment, digits, make_loaders
from resnet_cli.errors import InputError
from resnet_cli.losses import CrossEntropy
from resnet_cli.models import CNN, CifarResNet, ResidualBlock, StagedResNet
from resnet_cli.schedules import cosine
from tests.support.public_names import PUBLIC, TARGETS

SIZE = (3, 8, 8)
OWN = [name for group, names in TARGETS.items() if group != "logger" for name in names if name.startswith("resnet_cli")]
PARTS = ["resnet_cli.models.MLP", "resnet_cli.models.ResidualBlock", "resnet_cli.data.make_loaders"]
NUMBERS = AtLeast | Below | Between | Bounds | Positive


def wrong_value(annotation):
    """A value that the annotation does not allow; None if it is neither a choice nor a number in a range."""
    if get_origin(annotation) is Literal:
        return "no such choice"
    limits = [limit for limit in get_args(annotation)[1:] if isinstance(limit, NUMBERS)]
    return -1e300 if limits else None


def wrong_arguments(name):
    """A wrong value for each argument that has a range or choices."""
    found = {key: wrong_value(parameter.annotation) for key, parameter in signature(name).parameters.items()}
    return {key: value for key, value in found.items() if value is not None}


@pytest.mark.parametrize("name", [name for name in [*OWN, *PARTS] if wrong_arguments(name)])
def test_every_range_and_choice_of_a_signature_is_checked_in_python_too(name):
    required = {key: None for key, parameter in signature(name).parameters.items() if parameter.required}
    wrong = wrong_arguments(name)
    with pytest.raises(InputError) as caught:
        locate(name)(**{**required, **wrong})
    assert {problem.partition("=")[0] for problem in caught.value.problems} >= wrong.keys()


@pytest.mark.parametrize("name", [*TARGETS["data"], "resnet_cli.data.make_loaders"])
def test_paths_of_data_may_be_path_objects_for_a_type_checker(name):
    hints = get_type_hints(locate(name))
    texts = [key for key in filter(is_path_key, hints) if Path not in get_args(hints[key])]
    assert texts == []


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: StagedResNet(SIZE, 10, block="botleneck"), "block='botleneck': must be one of basic, bottleneck; did"),
        (lambda: CifarResNet(SIZE, 10, width=1.5), "width=1.5: must be a whole number from 1 to 1000"),
        (lambda: CifarResNet(SIZE, 10, width=True), "width=True: must be a whole number"),
        (lambda: CifarResNet(SIZE, 0), "out_classes=0: must be a whole number 1 or more"),
        (lambda: CifarResNet(8, 10), "in_size=8: must be a list of whole numbers"),
        (lambda: CNN(SIZE, 10, [4, 0.5], 1, []), "channels[1]=0.5: must be a whole number 1 or more"),
        (lambda: CNN(SIZE, 10, "44", 1, []), "channels='44': must be a list of"),
        (lambda: CNN(SIZE, 10, [4], 1, [], conv_params=None), "conv_params=None: must be a mapping"),
        (lambda: ResidualBlock(4, [4], [3], dropout=3.0), "dropout=3.0: must be a number from 0 to below 1"),
        (lambda: make_loaders(digits(), device="cpu", seed=0, val_fraction=1.5), "val_fraction=1.5: must be a number"),
        (lambda: make_loaders(digits(), device="auto", seed=0), "device='auto': must be a device of PyTorch, such as"),
        (lambda: CrossEntropy(class_weights="balanced"), "class_weights=balanced: needs class_counts"),
        (lambda: CrossEntropy(class_weights={"a": 2}), "class_weights: a mapping from class names needs class_names"),
        (lambda: Augment(flip="vertical"), "flip='vertical': must be one of none, random, alternating"),
        (lambda: cosine(total_steps=9, steps_per_epoch=3, warmup=True), "warmup=True: must be a number or text"),
    ],
)
def test_an_error_names_the_argument_its_value_and_what_is_allowed(call, problem):
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.problems[0].startswith(problem)


@pytest.mark.parametrize("number", [np.int64(1), torch.tensor(1)])
@pytest.mark.parametrize("sequence", [list, tuple, np.array, torch.Size, torch.tensor])
def test_numbers_and_sequences_of_other_libraries_are_taken(number, sequence):
    plain = CNN(SIZE, 3, [2, 4], 1, [5]).state_dict()
    other = CNN(sequence(SIZE), 3, sequence([2, 4]), int(number), sequence([5])).state_dict()
    assert {name: tensor.shape for name, tensor in plain.items()} == {n: t.shape for n, t in other.items()}
    assert len(CifarResNet(SIZE, 3, depth=8, width=number).stages) == 3


def test_a_list_of_class_weights_needs_no_names():
    loss = CrossEntropy(class_weights=torch.tensor([1.0, 2.0]))
    assert loss.weight.tolist() == [1.0, 2.0]
    with pytest.raises(InputError, match="2 numbers, but the data have 3 classes: a, b, c"):
        CrossEntropy(class_weights=[1, 2], class_names=["a", "b", "c"])


@validate_arguments
def load(path: str, *, repeats: int = 1, model: torch.nn.Module | None = None) -> tuple:
    """A function to call."""
    return path, repeats, model


def test_what_python_alone_can_pass_is_not_checked():
    model = torch.nn.Identity()
    assert load(Path("a"), model=model) == (Path("a"), 1, model)
    with pytest.raises(InputError, match=r"^repeats='2': must be a whole number$"):
        load("a", repeats="2")


def test_wrong_calls_raise_the_function_s_own_error():
    with pytest.raises(TypeError, match=r"load\(\) got an unexpected keyword argument 'count'"):
        load("a", count=2)
    assert list(inspect.signature(CNN).parameters)[:3] == ["in_size", "out_classes", "channels"]


def test_the_list_of_checked_parts_has_public_names():
    assert {name for name in PARTS if name.rpartition(".")[2] not in PUBLIC[name.rpartition(".")[0]]} == set()
