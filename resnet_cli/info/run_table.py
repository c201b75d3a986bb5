"""The description of a run by resnet-info as lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.durations import format_seconds
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.info.text_table import LABEL_WIDTH
from resnet_cli.runs.card_metadata import scores_of
from resnet_cli.runs.summary import chosen_split, count_threads, cut, flat_facts, times

Facts = Mapping[str, Any]

NEWEST = 10  # evaluations, exports and resumes that are shown
LONGEST_LINE = 500


def format_run(facts: Facts) -> list[str]:
    """Format what is known of a run; what is not known is left out."""
    lines = []
    for label, values in _facts(facts):
        for i, value in enumerate(values):
            text = escape_control_characters(cut(value, LONGEST_LINE))
            lines.append(f"{'' if i else label:{LABEL_WIDTH}}{text}")
    return lines


def _facts(facts: Facts) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the labels and values, in the order in which a reader asks for them."""
    yield "run", [f"{facts['folder']}: {_status(facts)}"]
    yield "command", _known(facts["command"])
    yield "data", [_data(facts["data"])]
    yield "split", [_pairs(chosen_split(facts["data"]["split"]))]
    training = {name: value for name, value in facts["training"].items() if value is not None}
    yield "training", [_pairs({**training, "seed": facts["seed"]})]
    yield "time", _time(facts)
    yield "started from", _known(facts["start"])
    yield "teacher", _known(_pairs(flat_facts(facts["teacher"])))
    yield "resumed", [_pairs(flat_facts(item)) for item in facts["resumes"][-NEWEST:]]
    yield "checkpoints", [*map(_checkpoint, facts["checkpoints"])] or ["none: this run has saved nothing"]
    yield from _environment(facts["environment"])
    epoch = facts["best"].get("epoch")
    best = _scores(facts["best"], "val_")
    validated = "training batches:" if facts["training"]["overfit_batches"] else "validation"
    yield "best", [f"epoch {epoch}: {validated} {best}"] if best else []
    yield "test", _known(_scores(facts["test"]))
    views = _scores(facts["test"], "tta_")
    yield "test with tta", [f"{facts['test'].get('tta')}: {views}"] if views else []
    reads = facts["test_reads"]
    yield "test set read", [f"{times(reads['training'])} by training, {times(reads['evaluations'])} by evaluations"]
    yield "evaluations", [_pairs(flat_facts(item)) for item in facts["evaluations"][-NEWEST:]]
    yield "fitted", [f"{name}  {value}" for name, value in flat_facts(facts["fitted"]).items()]
    yield "exports", [_pairs(flat_facts(item)) for item in facts["exports"][-NEWEST:]]


def _known(value: str | None) -> list[str]:
    return [value] if value else []


def _status(facts: Facts) -> str:
    done, planned = facts["epochs"]["done"], facts["epochs"]["planned"]
    reason = f" ({facts['reason']})" if facts["reason"] else ""
    return f"{facts['status']}{reason}, {done:,}{f' of {planned:,}' if planned else ''} epochs"


def _data(data: Facts) -> str:
    counts = [f"{count:,} {SPLIT_NAMES[split]}" for split, count in data["images"].items() if count is not None]
    images = f": {', '.join(counts)} images" if counts else ""
    size = f" of {'x'.join(map(str, data['in_size']))}" if data["in_size"] else ""
    classes = f", {counted(data['classes'], 'class')}" if data["classes"] is not None else ""
    several = ", several labels per image" if data["labels"] == "multi" else ""
    place = f" ({data['place']})" if data["place"] else ""
    return f"{data['target'] or 'not known'}{place}{images}{size}{classes}{several}"


def _time(facts: Facts) -> list[str]:
    taken = f"{format_seconds(facts['seconds'])} of training" if facts["seconds"] else ""
    dates = f"{facts['started'] or '?'} to {facts['ended'] or '?'}" if facts["started"] or facts["ended"] else ""
    return _known(", ".join(filter(None, (taken, dates))))


def _checkpoint(found: Facts) -> str:
    size = f"{found['file']}  {found['bytes']:,} bytes"
    if found["problem"] is not None:
        return f"{size}  not usable: {found['problem']}"
    version = f" of resnet-cli {found['version']}" if found["version"] else ""
    return f"{size}  epoch {found['epoch']}, step {found['step']}  format {found['format']}{version}"


def _environment(found: Facts) -> Iterator[tuple[str, Sequence[str]]]:
    threads = count_threads(found["threads"], found["device"])
    yield "device", _known(", ".join(filter(None, (found["device"], found["precision"], threads, found["platform"]))))
    yield "versions", _known(", ".join(f"{name} {version}" for name, version in found["versions"].items()))
    dirty = " with changes that are not committed" if found["git_dirty"] else ""
    yield "commit", _known(found["git_commit"] and f"{found['git_commit']}{dirty}")


def _scores(found: Facts, prefix: str = "") -> str:
    shown = (
        f"{words.removesuffix(' (%)')} {value:.2f} %" if words.endswith("(%)") else f"{words} {value:.4g}"
        for _, value, words in scores_of(found, prefix)
    )
    return ", ".join(shown)


def _pairs(values: Facts) -> str:
    texts = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in values.items()}
    return "  ".join(f"{key}={value}" for key, value in texts.items() if value not in ("None", "[]"))
