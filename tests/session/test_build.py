"""Config to objects: what the builder passes, and what it refuses."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import nn

from resnet_cli.config.validation import check_part
from resnet_cli.data import Dataset, DatasetSplit, synthetic
from resnet_cli.data.origins import Origins
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.info.describe import describe
from resnet_cli.session import build
from resnet_cli.session.refusals import with_image_size
from resnet_cli.session.resolution import require_every_size
from resnet_cli.training.step import StepOptions, compute_loss

RESNET8 = {"_target_": "resnet_cli.models.CifarResNet", "depth": 8}
CNN = {"_target_": "resnet_cli.models.CNN", "channels": [4], "pool_every": 1, "hidden_dims": []}
CONSTANT = {"_target_": "resnet_cli.schedules.constant"}


class Fixed(nn.Module):
    """A model that is told nothing of the data."""

    def __init__(self, classes: int = 10):
        super().__init__()
        self.head = nn.Linear(12, classes)

    def forward(self, images):
        return self.head(images.flatten(1))


class Greedy(nn.Module):
    """A model that takes any keyword."""

    def __init__(self, in_channels: int, **options):
        super().__init__()
        self.options = {"in_channels": in_channels, **options}
        self.head = nn.Linear(12, options["num_classes"])

    def forward(self, images):
        return self.head(images.flatten(1))


class Outer(nn.Module):
    """A model with a model in it."""

    def __init__(self, inner: nn.Module, num_classes: int):
        super().__init__()
        self.inner, self.classes = inner, num_classes

    def forward(self, images):
        return self.inner(images)


class Branched(nn.Module):
    """A model with models in a mapping and in a list in it, and with a mapping of plain data."""

    def __init__(
        self, branches: Mapping[str, nn.Module | Sequence[nn.Module]], plain: Mapping[str, Any], num_classes: int
    ):
        super().__init__()
        self.first, [self.second] = branches["a"], branches["b"]
        self.plain = plain

    def forward(self, images):
        return self.first(images)


def of(cls, **arguments):
    return {"_target_": f"{__name__}.{cls.__name__}", **arguments}


def make(node, in_size=(3, 2, 2), num_classes=3, seed=0):
    return build.model(node, in_size=in_size, num_classes=num_classes, seed=seed)


def test_what_the_data_determine_is_passed_under_any_usual_name():
    assert make(RESNET8, (1, 8, 8), 7)(torch.zeros(1, 1, 8, 8)).shape == (1, 7)
    assert make(of(Greedy)).options == {"in_channels": 3, "num_classes": 3}
    assert make({"_target_": "torchvision.models.resnet18"}, (3, 32, 32)).fc.out_features == 3


def test_nodes_among_the_arguments_are_built():
    assert isinstance(make(of(Outer, inner=of(Fixed, classes=3))).inner, Fixed)


def test_nodes_in_mappings_are_built_at_any_depth_where_the_annotation_has_objects():
    plain = {"later": of(Fixed, classes=3)}
    model = make(of(Branched, branches={"a": of(Fixed, classes=3), "b": [of(Fixed, classes=5)]}, plain=plain))
    assert (model.first.head.out_features, model.second.head.out_features) == (3, 5)
    assert model.plain == plain


def test_nodes_in_mappings_are_checked_where_they_are_built():
    wrong = of(Fixed, clases=3)
    with pytest.raises(InputError) as caught:
        check_part("model", of(Branched, branches={"a": wrong, "b": [wrong]}, plain={"later": wrong}))
    assert [problem.key for problem in caught.value.details] == [
        "model.branches.a.clases", "model.branches.b[0].clases",
    ]  # fmt: skip


def test_equal_seeds_draw_equal_weights():
    a, b, c = (make(RESNET8, (1, 8, 8), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_trying_the_model_leaves_no_trace():
    torch.manual_seed(5)
    expected = [nn.Linear(12, 3).weight, torch.rand(1)]
    torch.manual_seed(5)
    built = make(of(Fixed, classes=3), seed=5)
    assert torch.equal(built.head.weight, expected[0])
    assert torch.equal(torch.rand(1), expected[1])
    assert built.training
    batch_norm = make(RESNET8, (1, 8, 8)).state_dict()
    assert all(value == 0 for name, value in batch_norm.items() if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (of(Fixed), r"returns scores of shape \[2, 10\].*data have 3 classes"),
        ({"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 3}, "does not run on images of 3x2x2"),
        ({"_target_": "fractions.Fraction"}, "not a torch.nn.Module"),
        (RESNET8, "model: in_size=.*must be 4 or more"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(node, words):
    with pytest.raises(InputError, match=words):
        make(node)


class Failing(nn.Module):
    """A model whose forward pass, or constructor, raises an error."""

    KINDS: ClassVar = {
        "key": (lambda: {}["boo"], r"KeyError: 'boo'"),
        "number": (lambda: 1 // 0, "ZeroDivisionError: .*zero"),
        "attribute": (lambda: None.size, "AttributeError: 'NoneType' object has no attribute 'size'"),
        "torch": (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "mat1 and mat2 shapes cannot be multiplied .*"),
        "empty": (lambda: next(iter(())), "StopIteration"),
    }

    def __init__(self, kind: str, num_classes: int):
        super().__init__()
        self.kind = kind
        if kind == "constructor":
            raise ValueError("no such kind")

    def forward(self, images):
        return self.KINDS[self.kind][0]()


@pytest.mark.parametrize("kind", Failing.KINDS)
def test_any_error_of_a_users_forward_is_a_line_with_its_place(kind):
    reason = rf"{Failing.KINDS[kind][1]} \(test_build\.py:\d+\)$"
    with pytest.raises(InputError, match=rf"^model: \S+\.Failing does not run on images of 3x2x2: {reason}"):
        make(of(Failing, kind=kind))
    resolution = SimpleNamespace(sizes=lambda: [(0, 2, 2)])
    with pytest.raises(
        InputError, match=r"^trainer\.resolution: Failing does not run on images of 3x2x2: .*test_build"
    ):
        require_every_size(Failing(kind, 3), resolution, 3)
    settings = {"model": of(Failing, kind=kind), "data": {"_target_": "resnet_cli.data.mnist"}}
    with pytest.raises(InputError, match=rf"^model: \S+\.Failing does not run on images of .*: {reason}"):
        describe(SimpleNamespace(settings=settings, model="own", run=None, keys=()))


def test_a_value_that_a_users_constructor_refuses_is_a_line_with_its_place():
    with pytest.raises(InputError, match=r"^model: no such kind \(test_build\.py:\d+\)$"):
        make(of(Failing, kind="constructor"))


def test_errors_of_this_package_and_of_torch_have_no_place():
    with pytest.raises(InputError, match=r"does not run on images of 3x2x2: mat1 and mat2 [^()]*\([^()]*\)$"):
        make({"_target_": "torch.nn.Linear", "in_features": 5, "out_features": 3})


def test_a_refused_value_carries_its_key():
    with pytest.raises(InputError, match="optimizer: Invalid learning rate"):
        build.optimizer({"_target_": "torch.optim.SGD", "lr": -1.0}, nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"optimizer\.groups: 'nowhere' matches no parameter"):
        build.optimizer({"_target_": "torch.optim.SGD", "groups": {"nowhere": {"lr": 1.0}}}, nn.Linear(2, 2))
    warmup = {"_target_": "resnet_cli.schedules.cosine", "warmup": 9}
    with pytest.raises(InputError, match=r"schedule\.warmup=9"):
        build.schedule(warmup, total_steps=10, steps_per_epoch=5)
    with pytest.raises(InputError, match=r"model\.depth=9: must be 6n\+2"):
        make({**RESNET8, "depth": 9}, (1, 8, 8))


def test_optimizer_options_reach_the_optimizer_and_its_groups():
    node = {"_target_": "torch.optim.AdamW", "lr": 0.01, "weight_decay": 0.1, "decay_norm_and_bias": False}
    optimizer = build.optimizer(node, nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 0.1]
    assert all(group["lr"] == 0.01 for group in optimizer.param_groups)


def test_data_of_another_kind_are_refused():
    with pytest.raises(InputError, match=r"data\._target_: os\.getcwd returned a str, not a resnet_cli\.data\.Dataset"):
        build.dataset({"_target_": "os.getcwd"})


class Mapped(Fixed):
    """A model that returns its scores in a dictionary; with `later`, in training mode alone."""

    def __init__(self, classes: int = 10, *, later: bool = False):
        super().__init__(classes)
        self.later = later

    def forward(self, images):
        scores = super().forward(images)
        return scores if self.later and not self.training else {"logits": scores}


def returns_text(*, total_steps, steps_per_epoch):
    return lambda step: "1"


def returns_nothing(*args, **arguments):
    return None


def passes_on(**arguments):
    return Greedy(3, strict=True, **arguments)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_refusal_of_torch_is_a_line(optimizer):
    node = {"_target_": f"torch.optim.{optimizer}", "fused": True, "foreach": True}
    with pytest.raises(InputError, match=r"^optimizer: `fused` and `foreach`"):
        build.optimizer(node, Fixed())


def test_a_target_that_passes_on_what_its_callee_does_not_take_is_a_line():
    with pytest.raises(InputError, match=r"^model: tests\.session\.test_build\.passes_on takes any.*'strict'"):
        build.instantiate("model", {"_target_": f"{__name__}.passes_on", "strict": 1}, {"num_classes": 10})


def test_a_defect_inside_a_users_class_keeps_its_traceback():
    with pytest.raises(TypeError):
        build.instantiate("model", {"_target_": f"{__name__}.Fixed", "classes": "ten"}, {})


def test_scores_that_are_no_tensor_are_refused_in_either_mode():
    sizes = {"in_size": (3, 2, 2), "num_classes": 10, "seed": 0}
    with pytest.raises(InputError, match=r"^model: tests\.session\.test_build\.Mapped returns a dict, not a tensor"):
        build.model({"_target_": f"{__name__}.Mapped"}, **sizes)
    model = build.model({"_target_": f"{__name__}.Mapped", "later": True}, **sizes)
    options = StepOptions(nn.functional.cross_entropy)
    with pytest.raises(InputError, match=r"^model: in training mode it returns a dict"):
        compute_loss(model(torch.zeros(2, 3, 2, 2)), torch.zeros(2, 3, 2, 2), torch.zeros(2).long(), 1.0, options)


def test_what_is_no_schedule_optimizer_or_trainer_is_refused():
    text, nothing = ({"_target_": f"{__name__}.{name}"} for name in ("returns_text", "returns_nothing"))
    length = {"total_steps": 4, "steps_per_epoch": 2}
    with pytest.raises(InputError, match=r"^schedule\._target_: .* a function to a str, not .* to a number"):
        build.schedule(text, **length)
    with pytest.raises(InputError, match=r"^optimizer\.groups\.head\.schedule\._target_: .* returned a NoneType"):
        build.schedule(CONSTANT, **length, groups={"head": {"schedule": nothing}})
    with pytest.raises(InputError, match=r"^optimizer\._target_: .* returned a NoneType"):
        build.optimizer(nothing, Fixed())
    with pytest.raises(InputError, match=r"^trainer\._target_: .* returned a NoneType"):
        build.trainer(nothing, model=Fixed(), optimizer=None, schedule=None, seed=0)


def test_whole_numbers_serve_where_floats_are_expected():
    optimizer = build.optimizer({"_target_": "torch.optim.Adam", "betas": [0, 0.9]}, Fixed())
    assert optimizer.defaults["betas"] == (0.0, 0.9)
    node = {**RESNET8, "branch_scale": 0}
    model = build.model(node, in_size=(3, 8, 8), num_classes=10, seed=0)
    assert model.stages[0][0].main_path.branch_scale.scalar.item() == 0.0


@pytest.mark.parametrize(
    ("node", "words"),
    [
        ({**RESNET8, "width": 2**62}, r"^model\.width=4611686018427387904: must be a whole number from 1 to 1000$"),
        ({**CNN, "pooling_params": {"kernel_size": 0}}, r"^model\.pooling_params\.kernel_size=0: must be a whole"),
        ({**CNN, "conv_params": {"kernel_size": 3, "padding": 1.5}}, r"^model\.conv_params\.padding=1\.5: must be"),
        ({**CNN, "conv_params": {"kernel_size": [3, 3, 3]}}, r"^model\.conv_params\.kernel_size=\[3, 3, 3\]: must be"),
        ({**CNN, "conv_params": {"kernel_size": 3, "padding": 10**30}}, r"^model\.conv_params\.padding=1000"),
    ],
)
def test_numbers_that_no_layer_can_have_are_refused(node, words):
    with pytest.raises(InputError, match=words):
        build.model(node, in_size=(3, 8, 8), num_classes=10, seed=0)


def test_a_refused_size_of_images_is_named_by_the_key_that_sets_it():
    problem = "model: in_size=[3, 24, 24]: too small"
    assert with_image_size(problem, 24) == "data.image_size=24: too small"
    assert with_image_size(problem, None) == f"{problem}; set data.image_size to resize the images"
    assert with_image_size("model.depth=9: no", None) == with_image_size("model.depth=9: no", 24) == "model.depth=9: no"


def test_a_pattern_of_groups_beside_groups_of_the_data_set_is_refused_in_new_runs(monkeypatch):
    split = DatasetSplit(torch.zeros(8, 4, 4, 1, dtype=torch.uint8), torch.arange(8) % 2, groups=torch.arange(8) // 2)
    own = Dataset("scans", ("a", "b"), split, split, mean=[0.5], std=[0.5])
    monkeypatch.setattr(build, "dataset", lambda _: own)
    node = {"_target_": "resnet_cli.data.synthetic", "group": "x", "val_fraction": 0.25, "workers": 0}
    with pytest.raises(
        InputError, match=r"^data\.group=x: scans has groups of its own, which are used; leave the key out$"
    ):
        build.loaders(node, device="cpu", seed=0, is_new=True)
    assert build.loaders(node, device="cpu", seed=0).counts["val"] == 2
    assert build.loaders({**node, "group": None}, device="cpu", seed=0, is_new=True).counts["val"] == 2


def test_groups_that_are_also_in_held_out_test_images_are_refused_in_new_runs(monkeypatch):
    pixels = torch.zeros(8, 4, 4, 1, dtype=torch.uint8)
    train = DatasetSplit(pixels, torch.arange(8) % 2, names=[f"p{i // 2}_{i}.png" for i in range(8)])
    test = DatasetSplit(pixels[:2], torch.arange(2), names=["p0_8.png", "p4_9.png"])
    own = Dataset(
        "scans", ("a", "b"), train, test, mean=[0.5], std=[0.5], origins=Origins.of_parts({"train": "all rows"}, 0.2)
    )
    monkeypatch.setattr(build, "dataset", lambda _: own)
    node = {"_target_": "resnet_cli.data.synthetic", "group": r"p\d", "val_fraction": 0.25, "workers": 0}
    with pytest.raises(InputError, match=r"^data\.group=p\\d: 1 group would be in the training and in the test images"):
        build.loaders(node, device="cpu", seed=0, is_new=True)
    assert build.loaders(node, device="cpu", seed=0).counts["val"] == 2
    with_split = dataclasses.replace(own, origins=Origins.of_parts({"train": "train/", "test": "test/"}, 0.2))
    monkeypatch.setattr(build, "dataset", lambda _: with_split)
    assert build.loaders(node, device="cpu", seed=0, is_new=True).counts["test"] == 2


def scans(count: int = 96, seed: int = 0) -> Dataset:
    """A data set of the user's own, with a key that the builder passes to loaders alone."""
    return synthetic(count=count + seed, test_count=32, classes=3, image_size=8)


def only_model(model, lr: float = 0.1):
    """An optimizer that asks for the model, which is not passed."""


def test_an_own_data_set_may_have_a_key_that_is_passed_to_the_loaders():
    typed = [f"data._target_={__name__}.scans", "data.seed=3", "data.count=90"]
    node = compose_settings(typed).settings["data"]
    assert len(build.dataset(node).train) == 93
    assert build.loaders(node, device=torch.device("cpu"), seed=0).train.seed == 0
    with pytest.raises(InputError, match=r"^data\.device: unknown key"):
        compose_settings([*typed, "data.device=cpu"])


def test_an_optimizer_that_takes_only_the_model_is_refused():
    with pytest.raises(InputError, match="is not an optimizer: it takes no params"):
        compose_settings([f"optimizer._target_={__name__}.only_model"])
