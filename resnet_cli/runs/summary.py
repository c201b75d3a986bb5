"""A run summarised as plain data, the facts that its card and resnet-info show.

A record may come from elsewhere: each fact has its type or is None, and long texts and lists are cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.data_keys import names_images
from resnet_cli.runs.reading import Run, finite_number, section

Summary = dict[str, Any]

LONGEST_TEXT = 4000
LONGEST_LIST = 100
LARGEST_NUMBER = 1 << 63
DEEPEST = 5
SPLIT_KEYS = ("val_fraction", "split_seed", "train_size", "folds", "fold", "group", "splits", "label_noise")
TRAINING_KEYS = {
    "loss": "loss._target_", "optimizer": "optimizer._target_", "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay", "schedule": "schedule._target_", "warmup": "schedule.warmup",
    "batch_size": "data.batch_size", "accumulate": "trainer.accumulate", "averaging": "trainer.averaging",
    "max_batches": "trainer.max_batches", "overfit_batches": "trainer.overfit_batches", "init_from": "init_from",
    "seed.init": "seed_init", "seed.order": "seed_order", "seed.augment": "seed_augment",
}  # fmt: skip
PLACES = ("name", "root", "file", "shards")  # keys of `data` that say which images, the first that is set


def summarise(run: Run) -> Summary:
    """Return the facts of a run, those that are not known as None or empty."""
    record = run.record
    return {
        "folder": str(run.folder),
        "name": _text(run.name),
        "status": run.status,
        "reason": _text(record.get("reason")),
        "command": _text(record.get("command")),
        "overrides": plain(record.get("overrides")) if isinstance(record.get("overrides"), list) else None,
        "started": _text(record.get("started")),
        "ended": _text(record.get("ended")),
        "seconds": run.seconds,
        "seed": _whole(record.get("seed")),
        "epochs": {"planned": _whole(record.get("epochs")), "done": _whole(run.epochs) or 0},
        "model": {"target": _text(run.settings.get("model._target_")), "parameters": _whole(record.get("parameters"))},
        "data": _data(run),
        "training": {name: plain(run.settings.get(key)) for name, key in TRAINING_KEYS.items()},
        "start": _start(record),
        "base_model": _text(section(record, "weights").get("repository")),
        "teacher": _teacher(run),
        "resumes": _mappings(record, "resumed_from"),
        "out_of_memory": _mappings(record, "out_of_memory"),
        "environment": _environment(record),
        "best": plain(section(record, "best")),
        "selection": plain(section(record, "selection")),
        "test": plain(section(record, "test")),
        "test_reads": _test_reads(record),
        "evaluations": _mappings(record, "evaluations"),
        "exports": _mappings(record, "exports"),
        "fitted": {name: _without_images(record[name]) for name in ("temperature", "reject") if record.get(name)},
    }


def plain(value: Any, depth: int = 0) -> Any:
    """Return nested plain data without what is too long, too deep or not finite."""
    if isinstance(value, str):
        return cut(value, LONGEST_TEXT)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        number = finite_number(value)
        return number if number is not None and abs(number) <= LARGEST_NUMBER else None
    if depth == DEEPEST:
        return None
    if isinstance(value, Mapping):
        items = list(value.items())[:LONGEST_LIST]
        return {cut(str(key), 100): plain(item, depth + 1) for key, item in items}
    if isinstance(value, Sequence):
        return [plain(item, depth + 1) for item in value[:LONGEST_LIST]]
    return None


def flat_facts(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an evaluation or export that are not nested, and settings such as `data` as texts."""
    shown = {}
    for key, value in item.items():
        if (
            isinstance(value, Mapping)
            and value
            and not any(isinstance(inner, Mapping | list) for inner in value.values())
        ):
            shown[key] = " ".join(f"{name}={_short(inner)}" for name, inner in value.items())
        elif isinstance(value, list) and value and all(isinstance(inner, str) for inner in value):
            shown[key] = " ".join(value)
        elif not isinstance(value, Mapping | list):
            shown[key] = value
    return shown


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def chosen_split(split: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a split that have an effect: no fold without folds, no noise of 0."""
    pointless = {"fold": not split["folds"], "label_noise": not split["label_noise"]}
    return {key: value for key, value in split.items() if value is not None and not pointless.get(key)}


def times(count: int) -> str:
    """Return a count in words: `never`, `once`, `twice`, `3 times`."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def cut(text: str, limit: int) -> str:
    """Return a text with at most `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def count_threads(threads: int | None, device: str | None) -> str:
    """Return the number of threads in words; empty if it is not known, or the name of the device has it."""
    if not threads or "thread" in (device or ""):
        return ""
    return counted(threads, "thread")


def _text(value: Any) -> str | None:
    return cut(value, LONGEST_TEXT) if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    """Return a number that is whole and not negative, and None for anything else."""
    number = finite_number(value)
    return int(number) if number is not None and 0 <= number <= LARGEST_NUMBER and number == int(number) else None


def _mappings(record: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return the mappings in a list of the record, the last ones of a long list."""
    found = record.get(key)
    return [plain(item) for item in found[-LONGEST_LIST:] if isinstance(item, dict)] if isinstance(found, list) else []


def _data(run: Run) -> Summary:
    """Return the facts about a run's images: the counts in the record, and the options in the config."""
    counted = section(run.record, "data")
    images, names, size = section(counted, "images"), counted.get("class_names"), counted.get("in_size")
    places = (run.settings.get(f"data.{key}") for key in PLACES)
    return {
        "target": _text(run.settings.get("data._target_")),
        "place": next((text for place in places if (text := _text(place))), None),
        "revision": _text(run.record.get("data_revision")),
        "images": {split: _whole(images.get(split)) for split in ("train", "val", "test")},
        "in_size": [_whole(side) for side in size] if isinstance(size, list) and len(size) == 3 else None,
        "classes": _whole(counted.get("classes")),
        "class_names": [cut(str(name), 100) for name in names[:LONGEST_LIST]] if isinstance(names, list) else [],
        "labels": "multi" if counted.get("labels") == "multi" else "single",
        "split": {key: plain(run.settings.get(f"data.{key}")) for key in SPLIT_KEYS},
    }


def _without_images(chosen: Any) -> Any:
    """Return what was chosen on validation images without the digests that identify these."""
    facts = {key: value for key, value in chosen.items() if key != "images"} if isinstance(chosen, dict) else chosen
    return plain(facts)


def _teacher(run: Run) -> Summary:
    """Return which network a run learns from, and how; empty if there is none."""
    found = plain(section(run.record, "teacher"))
    how = {key: plain(run.settings.get(f"distillation.{key}")) for key in ("temperature", "weight")}
    return {**found, **how} if found else {}


def _environment(record: Mapping[str, Any]) -> Summary:
    versions = {cut(name, 100): cut(str(version), 100) for name, version in section(record, "versions").items()}
    dirty = record.get("git_dirty")
    return {
        "versions": dict(list(versions.items())[:LONGEST_LIST]),
        "platform": _text(record.get("platform")),
        "device": _text(record.get("device")),
        "threads": _whole(record.get("threads")),
        "precision": _text(record.get("precision")),
        "git_commit": _text(record.get("git_commit")),
        "git_dirty": dirty if isinstance(dirty, bool) else None,
    }


def _test_reads(record: Mapping[str, Any]) -> dict[str, int]:
    """Return how often the test set was read: at an end of training, and by evaluations since.

    Records of former versions do not count the first; they have a test result or none.
    """
    reads, evaluations = record.get("test_reads"), record.get("evaluations")
    of_test = [
        item
        for item in (evaluations if isinstance(evaluations, list) else [])
        if isinstance(item, dict) and item.get("split") == "test" and not _is_of_other_images(item.get("data"))
    ]
    by_training = len(reads) if isinstance(reads, list) else int(bool(section(record, "test")))
    return {"training": by_training, "evaluations": len(of_test)}


def _is_of_other_images(data: Any) -> bool:
    """Return whether overrides of group `data` name other images than the run's own."""
    return isinstance(data, Mapping) and any(names_images(str(key)) for key in data)


def _start(record: Mapping[str, Any]) -> str | None:
    """Return what a run started from: another run, a file, published weights, or `scratch`."""
    start, weights = _text(record.get("start")), section(record, "weights")
    name, net = _text(weights.get("name")), _text(weights.get("net"))
    return f"{name} of {net}" if start == "scratch" and name and net else start
