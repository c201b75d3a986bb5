"""The composed config against the signatures: every shipped file, every key, and what is said of wrong ones."""

import copy

import pytest
from omegaconf import OmegaConf

from resnet_cli.config import stored, validation
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.run_config import CONTROL_KEYS, OPTIONAL_KEYS, RunConfig
from resnet_cli.config.signatures import signature
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import to_plain
from resnet_cli.hydra_app.overrides import hydra_arguments
from tests.support.settings import problems_of, settings_of

GROUPS = ("model", "optimizer", "schedule", "loss", "data", "trainer", "experiment")
OPTIONS = [(group, path.stem) for group in GROUPS for path in sorted((CONFIG_FOLDER / group).glob("*.yaml"))]


def complete(settings):
    """Names in the place of those that only the user can give."""
    settings["data"] |= {key: "images" for key, value in settings["data"].items() if value == "???"}
    return settings


def arguments_of(path, node):
    """Full keys of a node's arguments and of those of the nodes in it."""
    for key, value in node.items():
        if key == "_target_":
            continue
        yield f"{path}.{key}"
        if isinstance(value, dict) and "_target_" in value:
            yield from arguments_of(f"{path}.{key}", value)


def changes(before, given):
    return [str(difference) for difference in stored.differences(before, given)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_file_composes_and_passes(group, option):
    assert problems_of(complete(settings_of(f"{group}={option}"))) == []


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] != "experiment"])
def test_every_key_of_every_shipped_file_refuses_a_wrong_type(group, option):
    settings = complete(settings_of(f"{group}={option}"))
    keys = list(arguments_of(group, settings[group]))
    assert keys
    for key in keys:
        wrong = copy.deepcopy(settings)
        *path, last = key.split(".")
        node = wrong
        for name in path:
            node = node[name]
        takes_mapping = isinstance(node[last], dict) and "_target_" not in node[last]
        node[last] = ["wrong"] if takes_mapping else {"wrong": True}
        found = problems_of(wrong)
        assert len(found) == 1, key
        assert found[0].startswith(f"{key}: ")


@pytest.mark.parametrize("key", ["seed", "name", "resume", "init_from", "resume_force", "trust"])
def test_every_top_level_key_refuses_a_wrong_type(key):
    settings = settings_of()
    settings[key] = ["wrong"]
    assert [problem.split(":")[0] for problem in problems_of(settings)] == [key]


COMPLETE = ("optimizer", "schedule", "loss", "trainer")


@pytest.mark.parametrize(("group", "option"), [o for o in OPTIONS if o[0] in COMPLETE])
def test_shipped_files_list_what_can_be_set(group, option):
    """`--cfg job` shows a user everything that a part of the package takes."""
    node = settings_of(f"{group}={option}")[group]
    if not node["_target_"].startswith("resnet_cli."):
        return
    part = validation.CONFIG_GROUPS[group]
    takes = {name for target in (node["_target_"], *part.readers) for name in signature(target).parameters}
    assert takes - set(part.given) == set(node) - {"_target_"}


def test_all_problems_come_together_with_the_nearest_names():
    settings = settings_of()
    settings["model"]["depht"] = 20
    settings["trainer"]["precision"] = "fp17"
    settings["optimizer"]["lr"] = "abc"
    settings["clip_norm"] = 3
    settings["data"]["augment"] = {"_target_": "resnet_cli.data.Augment", "flipp": "random"}
    found = "\n".join(problems_of(settings))
    for words in (
        "model.depht: unknown key; did you mean model.depth?",
        "trainer.precision: fp17 is not allowed; it takes one of auto, fp32, tf32, bf16, fp16; did you mean fp16?",
        "optimizer.lr: abc is not allowed; it takes a number",
        "clip_norm: unknown key; did you mean trainer.clip_norm?",
        "data.augment.flipp: unknown key; did you mean data.augment.flip?",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("target", "key", "expected"),
    [
        ("Augment", "vertical_flip", "transforms=[{_target_: torchvision.transforms.v2.RandomVerticalFlip}] does that"),
        ("Augment", "hue", "torchvision.transforms.v2.ColorJitter, hue: 0.1}] does that"),
        ("Augment", "rotate", "unknown key; did you mean data.augment.rotation?"),
        ("arrays", "image_size", "unknown key; arrays are not resized: resize the images in the file"),
        ("digits", "hue", "unknown key (allowed: "),
    ],
)
def test_keys_of_other_programs_are_answered_by_what_does_the_same(target, key, expected):
    settings = settings_of()
    node = {"_target_": f"resnet_cli.data.{target}", key: 8}
    if target == "Augment":
        settings["data"]["augment"] = node
    else:
        settings["data"] = node
    assert expected in problems_of(settings)[0]


def test_names_that_yaml_reads_as_other_values_are_answered_with_quotes():
    settings = settings_of()
    settings["data"]["classes"] = ["cat", None, 1.0]
    (line,) = problems_of(settings)
    assert line == (
        "data.classes: [cat, null, 1.0] is not allowed; it takes a list of (text or a whole number) or null; write "
        'such a name in quotes, "null"'
    )
    settings["data"]["classes"] = [{"a": 1}, "b"]
    assert len(problems_of(settings)) == 1


def test_a_part_that_is_no_node_is_refused():
    settings = settings_of()
    settings["model"] = None
    settings["schedule"] = {"warmup": 3}
    found = problems_of(settings)
    assert found[0].startswith("model: null is not a node")
    assert found[1].startswith("schedule: has no _target_; a file of this group names the class")


def test_a_replaced_target_leaves_the_old_arguments_behind():
    settings = settings_of()
    settings["model"]["_target_"] = "torch.nn.Flatten"
    settings["model"]["start_dim"] = 1
    settings["optimizer"]["_target_"] = "torch.optim.NAdam"
    kept = validation.without_leftovers(
        settings, ["model._target_", "model.start_dim", "optimizer._target_", "optimizer.lr"]
    )
    assert kept["model"] == {"_target_": "torch.nn.Flatten", "start_dim": 1}
    assert set(kept["optimizer"]) >= {"_target_", "lr", "groups", "decay_norm_and_bias"}
    assert "nesterov" not in kept["optimizer"]
    assert problems_of(kept) == []


def test_interpolations_that_lead_nowhere_are_named():
    with pytest.raises(InputError, match="nope"):
        to_plain(OmegaConf.create({"a": "${nope}"}))
    assert problems_of(settings_of("data=image_folder")) == ["data.root: a value must be given (data.root=...)"]


def test_stored_configs_round_trip():
    settings = settings_of("model=resnet20")
    assert stored.load(stored.dump(settings), "config.yaml") == settings
    assert stored.differences(settings, settings) == []


@pytest.mark.parametrize(
    "text",
    ["a: &x [1]\nb: *x\n", "- 1\n", "a: [", "!!python/object/apply:os.system ['true']", "a: " + "[" * 3000],
)
def test_stored_configs_are_data(text):
    with pytest.raises(InputError, match=r"config\.yaml(:\d+)?: not a stored config: "):
        stored.load(text, "config.yaml")


def test_a_stored_interpolation_stays_text(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    assert stored.load("a: ${oc.env:SECRET}\n", "config.yaml") == {"a": "${oc.env:SECRET}"}


def test_differences_name_keys_and_values():
    before, given = settings_of(), settings_of("optimizer.lr=0.2", "trainer.epochs=40", "data.workers=0", "seed=3")
    assert changes(before, given) == ["seed: 0 -> 3", "optimizer.lr: 0.1 -> 0.2"]
    shorter = settings_of("trainer.epochs=3")
    assert stored.differences(before, shorter) == [stored.Difference("trainer.epochs", "20", "3")]
    assert changes(before, shorter) == ["trainer.epochs: 20 -> 3"]


def test_overrides_go_on_top_of_a_stored_config():
    before, composed = settings_of("model=resnet20", "seed=5"), settings_of("trainer.epochs=40", "optimizer=adamw")
    result = stored.overlaid(before, composed, ["trainer.epochs", "optimizer", "resume"])
    assert result["model"] == before["model"]
    assert result["seed"] == 5
    assert result["trainer"]["epochs"] == 40
    assert result["optimizer"] == composed["optimizer"]


def test_arguments_for_hydra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    given = ["model=resnet20", "seed=1", "model.width=2", "+a=1", "~b", "hydra.run.dir=x", "loss=focal", "--cfg", "job"]
    assert hydra_arguments(given) == [
        "--cfg", "job", "model=resnet20", "++seed=1", "++model.width=2", "+a=1", "~b", "hydra.run.dir=x", "loss=focal",
    ]  # fmt: skip
    assert hydra_arguments(["-sc", "install=bash"]) == ["-sc", "install=bash"]
    for arguments, words in [
        (["seed=1", "seed=2"], "seed: given twice"),
        (["--experimental-rerun=x"], "refused"),
        (["seed=1", "--experimental-rerun", "x"], "refused"),
        (["--exp", "x"], "refused"),  # argparse takes beginnings of options unless told not to
        (["resume=nowhere"], "resume=nowhere: no such run folder"),
    ]:
        with pytest.raises(InputError, match=words):
            hydra_arguments(arguments)
    run = tmp_path / "it's a run"
    run.mkdir()
    (run / "config.yaml").write_text("a: 1\n")
    assert hydra_arguments([f'resume="{run}"']) == [f'hydra.run.dir="{run}"', f'++resume="{run}"']


def without(settings, *keys):
    settings = copy.deepcopy(settings)
    for key in keys:
        *path, last = key.split(".")
        node = settings
        for name in path:
            node = node[name]
        del node[last]
    return settings


def test_a_key_that_one_side_lacks_has_its_default():
    full = settings_of()
    old = without(full, "trainer.log_gradients", "optimizer.nesterov", "data.augment.mixup", "data.drop_last", "seed")
    old["optimizer"]["nesterov"] = False
    new = copy.deepcopy(full)
    new["optimizer"]["nesterov"] = False
    assert changes(old, new) == []
    assert changes(new, old) == []
    del old["optimizer"]["nesterov"]
    assert changes(old, new) == []
    new["data"]["augment"]["mixup"], new["seed"] = 0.5, 1
    assert set(changes(old, new)) == {"data.augment.mixup: 0.0 -> 0.5", "seed: 0 -> 1"}
    assert set(changes(new, old)) == {"data.augment.mixup: 0.5 -> 0.0", "seed: 1 -> 0"}
    assert changes(without(full, "model.depth"), full) == ["model.depth: 20 -> 8"]
    del new["model"]["_target_"]
    assert "model._target_: (absent) -> resnet_cli.models.CifarResNet" in changes(new, full)


def test_a_node_against_none_is_a_difference():
    full, none = settings_of(), settings_of("data.augment=null")
    assert any(line.startswith("data.augment") for line in changes(full, none))
    assert any(line.startswith("data.augment") for line in changes(none, full))
    assert any(line.startswith("data.augment") for line in changes(without(full, "data.augment"), full))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (1, 1.0, True), ((0.9, 1), [0.9, 1.0], True), (True, 1, False), ([1], [1, 2], False), (0, None, False),
        ("1", 1, False),
    ],
)  # fmt: skip
def test_numbers_are_equal_whatever_their_type(a, b, same):
    before, after = settings_of(), settings_of()
    before["optimizer"]["lr"], after["optimizer"]["lr"] = a, b
    assert (stored.differences(before, after) == []) is same


def test_only_more_epochs_are_safe():
    before = settings_of()
    for epochs, same in [(20, True), (21, True), (19, False), ("21", False), (None, False)]:
        after = settings_of()
        after["trainer"]["epochs"] = epochs
        assert (stored.differences(before, after) == []) is same
        assert (stored.differences(after, before) == []) is (epochs in (19, 20))


@pytest.mark.parametrize("value", [[[]], {1: 2}, 1 << 70, b"x", object()])
def test_a_checkpoints_config_must_be_plain(value):
    value = value if value != [[]] else [value] * 30_000
    with pytest.raises(InputError, match="not a stored config"):
        stored.differences({"model": value}, settings_of())


@pytest.mark.parametrize(
    ("group", "target", "words"),
    [
        ("optimizer", "os.system", "os.system is not an optimizer: it takes no params"),
        ("optimizer", "torch.nn.Linear", "torch.nn.Linear is not an optimizer"),
        ("loss", "torch.nn.functional.cross_entropy", "not a loss to build: name a class"),
        ("loss", "os.system", "os.system is not a loss to build: name a class, such as torch.nn.CrossEntropyLoss"),
        ("data", "os.system", "os.system is not a data set: name a function that returns a resnet_cli.data.Dataset"),
        ("data", "torchvision.datasets.CIFAR10", "torchvision.datasets.CIFAR10 is not a data set: name a function"),
        ("model", "os.system", "os.system accepts none of in_size"),
        ("trainer", "os.system", "os.system accepts none of model"),
        ("schedule", "os.system", "os.system accepts none of total_steps"),
        (
            "schedule",
            "torch.optim.lr_scheduler.CosineAnnealingLR",
            "CosineAnnealingLR is not a schedule: it",
        ),
    ],
)
def test_a_target_of_another_kind_is_told_as_such(group, target, words):
    settings = settings_of()
    settings[group] = {"_target_": target}
    with pytest.raises(InputError) as caught:
        validation.check(settings)
    (problem,) = caught.value.details
    assert (problem.key, problem.given) == (f"{group}._target_", target)
    assert problem.kind in ("wrong kind of class", "size arguments missing")
    assert words in str(problem)


def test_a_logger_of_another_kind_is_told_as_such():
    settings = {**settings_of(), "logger": {"mine": {"_target_": "os.system"}}}
    assert problems_of(settings) == [
        "logger.mine._target_: os.system is not a logger: name a subclass of resnet_cli.loggers.Logger"
    ]


def test_a_config_from_before_the_group_loss_has_cross_entropy():
    before, given = settings_of(), settings_of()
    del before["loss"]
    assert problems_of(before) == []
    assert changes(before, given) == changes(given, before) == []
    given["loss"]["label_smoothing"] = 0.1
    assert changes(before, given) == ["loss.label_smoothing: 0.0 -> 0.1"]
    focal = settings_of("loss=focal")
    assert changes(before, focal)[0] == "loss._target_: resnet_cli.losses.CrossEntropy -> resnet_cli.losses.Focal"
    without = {*CONTROL_KEYS, *OPTIONAL_KEYS} - {"loss"}  # which say nothing here, and are not stored
    assert RunConfig(**before).stored() == {k: v for k, v in before.items() if k not in without}


def test_a_group_without_a_target_and_an_experiment_without_its_package_are_told_as_such():
    settings = {**settings_of(), "experiment": {"optimizer": {"lr": 0.2}}}
    del settings["optimizer"]["_target_"]
    with pytest.raises(InputError) as caught:
        validation.check(settings)
    kinds = {(problem.key, problem.kind) for problem in caught.value.details}
    assert kinds == {("optimizer", "no target"), ("experiment", "experiment without package")}


@pytest.mark.parametrize("key", ["experiment", "logger", "model"])
def test_the_name_of_an_option_in_place_of_a_node_is_told_as_such(key):
    with pytest.raises(InputError) as caught:
        validation.check({**settings_of(), key: "fast"})
    assert [(problem.key, problem.kind) for problem in caught.value.details] == [(key, "not a node")]
