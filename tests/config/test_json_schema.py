"""The JSON Schema of a config: types one by one, and the whole against composed presets and wrong values."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from resnet_cli.config.annotations import Opaque
from resnet_cli.config.config_schema import config_schema
from resnet_cli.config.descriptions import argument_descriptions, key_comments_of
from resnet_cli.config.json_schema import NODE, schema_of
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.presets import find_presets
from resnet_cli.config.ranges import AtLeast, Below, Bounds, NotEmpty, Positive
from resnet_cli.hydra_app.compose import compose_settings
from tests.support import tiers

PRESETS = find_presets([CONFIG_FOLDER])
NEEDED = {"data=arrays": "data.file=x.npz", "data=csv": "data.file=x.csv", "data=image_folder": "data.root=x",
          "data=webdataset": "data.shards=x.tar"}  # fmt: skip


class Flavour(Enum):
    SWEET = "sweet"
    OTHER = object()


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Any, {}),
        (int | None, {"type": ["integer", "null"]}),
        (Literal["a", "b"] | None, {"enum": ["a", "b", None]}),
        (Flavour, {"enum": ["sweet", "OTHER", "SWEET"]}),
        (Annotated[float, Positive()], {"type": "number", "exclusiveMinimum": 0}),
        (Annotated[float, Below(0, 1)], {"type": "number", "minimum": 0, "exclusiveMaximum": 1}),
        (Annotated[int, Bounds(gt=1, le=4)], {"type": "integer", "exclusiveMinimum": 1, "maximum": 4}),
        (Annotated[str, NotEmpty()], {"type": "string", "pattern": r"\S"}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (Mapping[str, float], {"type": "object", "additionalProperties": {"type": "number"}}),
        (Opaque, NODE),
        (Annotated[int, AtLeast(1)] | str, {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]}),
        (tuple[int, int], {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "minItems": 2, "maxItems": 2}),
    ],
)
def test_types(annotation, schema):
    assert schema_of(annotation) == schema


def test_descriptions_come_from_docstrings_and_comments():
    found = argument_descriptions("resnet_cli.data.Augment")
    assert found["crop"].startswith("Padding")
    text = "a: 1  # one\nb:  # two\n  c: [1,\n    2]  # three\n  d: '#'\ne: |\n  x # no\n"
    assert key_comments_of(text) == {"a": "one", "b": "two", "b.c": "three"}


@pytest.fixture(scope="module")
def validator():
    jsonschema = pytest.importorskip("jsonschema")
    schema = config_schema(PRESETS)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def together(presets):
    """Commands that choose every preset once, several groups at a time."""
    by_group = {}
    for preset in presets:
        if preset.group not in ("plan", "experiment", "logger") and not preset.group.startswith("hydra"):
            by_group.setdefault(preset.group, []).append(preset.override)
    rows = [
        [options[i] for options in by_group.values() if i < len(options)]
        for i in range(max(map(len, by_group.values())))
    ]
    rows[0] += ["logger=[tensorboard,wandb,mlflow]"]
    return rows + [[p.override] for p in presets if p.group == "experiment"]


@pytest.mark.parametrize("overrides", tiers.mostly_slow(together(PRESETS), every=8), ids=" ".join)
def test_every_preset_is_valid(validator, overrides):
    settings = compose_settings([*overrides, *(NEEDED[item] for item in overrides if item in NEEDED)]).settings
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(settings)] == []


def test_wrong_values_are_not(validator):
    settings = compose_settings([]).settings
    trainer = {**settings["trainer"], "precision": "fp8", "epochs": -1, "epoks": 3}
    wrong = {**settings, "trainer": trainer, "seed": "x", "sed": 1, "loss": {"_target_": 3}}
    paths = {error.json_path for error in validator.iter_errors(wrong)}
    assert paths >= {"$", "$.seed", "$.loss", "$.trainer", "$.trainer.precision", "$.trainer.epochs"}
    own = {**settings, "model": {"_target_": "mine.Net", "anything": [1]}}
    assert validator.is_valid(own)


def test_keys_have_types_defaults_and_descriptions():
    schema = config_schema([preset for preset in PRESETS if preset.group == "trainer"])
    keys = schema["$defs"]["trainer"]["allOf"][0]["then"]["properties"]
    assert keys["precision"]["enum"] == ["auto", "fp32", "tf32", "bf16", "fp16"]
    assert all(key.get("description") or "allOf" in key for name, key in keys.items() if name != "_target_")
