"""The metadata of a model card, by which the Hugging Face Hub finds, files and compares models."""

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.runs.reading import finite_number
from resnet_cli.runs.summary import Summary, cut

ON_THE_HUB = {
    "resnet_cli.data.cifar10": "uoft-cs/cifar10", "resnet_cli.data.cifar100": "uoft-cs/cifar100",
    "resnet_cli.data.mnist": "ylecun/mnist", "resnet_cli.data.fashion_mnist": "zalando-datasets/fashion_mnist",
    "resnet_cli.data.svhn": "ufldl-stanford/svhn",
}  # fmt: skip
HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"
SCORES = {  # by key of a record: the name of the metric on the Hub, and in words
    "accuracy": ("accuracy", "accuracy (%)"), "balanced_accuracy": ("balanced_accuracy", "balanced accuracy (%)"),
    "map": ("mean_average_precision", "mean average precision (%)"), "macro_f1": ("f1", "macro F1 (%)"),
    "loss": ("loss", "loss"),
}  # fmt: skip


def metadata(summary: Summary) -> dict[str, Any]:
    """Return the metadata of a model card: https://github.com/huggingface/hub-docs/blob/main/modelcard.md."""
    data, model = summary["data"], _last_part(summary["model"]["target"])
    named, base = dataset_name(data), summary["base_model"]
    found = {"test": scores_of(summary["test"])}
    if not summary["training"]["overfit_batches"]:  # which validates on training images
        found["validation"] = scores_of(summary["best"], "val_")
    results = [_result(named, split, scores) for split, scores in found.items() if scores]
    tags = ["image-classification", "pytorch", "resnet-cli", *([_hub_name(model)] if model else [])]
    measured = dict.fromkeys(score["type"] for result in results for score in result["metrics"])
    named_model = cut(escape_control_characters(summary["name"] or "run"), 100)
    return {
        "library_name": "resnet-cli",
        "pipeline_tag": "image-classification",
        "tags": tags,
        **({"base_model": base} if base and re.fullmatch(HUB_NAME, base) else {}),
        "datasets": [named],
        "metrics": [name for name in measured if name != "loss"] or ["accuracy"],
        **({"model-index": [{"name": named_model, "results": results}]} if results else {}),
    }


def _result(dataset: str, split: str, scores: Sequence[tuple[str, float, str]]) -> dict[str, Any]:
    return {
        "task": {"type": "image-classification", "name": "Image classification"},
        "dataset": {"name": dataset, "type": dataset, "split": split},
        "metrics": [
            {"type": kind, "value": round(value, 6), "name": f"{split.capitalize()} {name}"}
            for kind, value, name in scores
        ],
    }


def dataset_name(data: Summary) -> str:
    """Return the name of the data set: its name on the Hub if it is there, else of its folder or file, or its kind."""
    target, place = data["target"] or "", data["place"]
    if target in ON_THE_HUB:
        return ON_THE_HUB[target]
    if target == "resnet_cli.data.huggingface" and place and re.fullmatch(HUB_NAME, place):
        return cut(place, 96)
    is_built_in = target.rsplit(".", 1)[-1] in ("digits", "flowers102", "noise", "synthetic")
    return _hub_name(PurePath(place).stem if place and not is_built_in else target.rsplit(".", 1)[-1])


def _hub_name(text: str) -> str:
    """Return a text with only the characters of names on the Hub."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:96] or "unknown"


def _last_part(target: str | None) -> str:
    return (target or "").rsplit(".", 1)[-1]


def scores_of(found: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float, str]]:
    """Return the known scores in a section of a record: kind, value and words."""
    numbers = ((kind, finite_number(found.get(f"{prefix}{key}")), words) for key, (kind, words) in SCORES.items())
    return [(kind, value, words) for kind, value, words in numbers if value is not None]
