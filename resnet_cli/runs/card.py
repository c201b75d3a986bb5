"""card.md: a run described for people, and for the Hugging Face Hub by its metadata, from the run's files alone."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config.counts import counted
from resnet_cli.config.durations import format_seconds
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.errors import InputError
from resnet_cli.files import write_atomically
from resnet_cli.runs.card_metadata import SCORES, metadata, scores_of
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.limitations import limitations
from resnet_cli.runs.markdown import code, code_block, heading, table
from resnet_cli.runs.names import format_command, quote_override, resume_command
from resnet_cli.runs.reading import finite_number, read_run
from resnet_cli.runs.summary import Summary, chosen_split, count_threads, cut, flat_facts, summarise, times

logger = logging.getLogger("resnet_cli")

MOST_COLUMNS = 16
LONGEST_TABLE = 20  # evaluations and exports, the newest
LISTED_CLASSES = 20
LONGEST_PLAN = 20_000  # characters
TOP = """\
<!-- Written by resnet-cli from run.json, config.yaml and metrics.jsonl at the start and at the end of a run, an
evaluation and an export; edits made by hand are then lost. -->"""


def write_card(run: RunDir) -> None:
    """Write `card.md` from the files of a run.

    Raises:
        InputError: the record or the config of the run is damaged.
        MachineError: the folder cannot be written.
    """
    write_atomically(run.card, format_card(summarise(read_run(run.path, run.path.name, [])), run))


def update_card(run: RunDir) -> None:
    """Write `card.md`; if that fails, log the reason and continue."""
    try:
        write_card(run)
    except InputError as error:
        logger.info("card.md could not be written: %s", error)
    except OSError as error:  # its `str` begins with its number
        file = f"{error.filename}: " if error.filename else ""
        logger.info("card.md could not be written: %s%s", file, error.strerror or error)


def format_card(summary: Summary, run: RunDir) -> str:
    """Return the card of a run.

    Args:
        summary: Its facts.
        run: Its folder: only files that exist are linked.
    """
    front = yaml.safe_dump(metadata(summary), sort_keys=False, allow_unicode=True, width=10_000)
    sections = {
        "Trained on": _data_facts(summary["data"]),
        "Results": _results(summary, run),
        "Training": _training(summary),
        **({"Plan": _plan(run)} if run.plan.is_file() else {}),
        "How to use it": _suggested_commands(summary),
        "Limitations": [f"- {line}" for line in limitations(summary)],
    }
    lines = [TOP, "", f"# {heading(summary['name'] or 'run')}", "", *_status(summary)]
    for title, content in sections.items():
        lines += ["", f"## {title}", "", *content]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()
    return f"---\n{front}---\n{text}\n"


def _plan(run: RunDir) -> list[str]:
    """Return the plan that the config was made by, with a reason for each value."""
    with suppress(OSError, UnicodeDecodeError), run.plan.open(encoding="utf-8") as file:
        lines = [line for line in file.read(LONGEST_PLAN).splitlines() if not line.startswith("# @package")]
        return ["What was chosen for these images and this machine, and why:", "", *code_block(lines)]
    return []


def _status(summary: Summary) -> list[str]:
    done, planned = summary["epochs"]["done"], summary["epochs"]["planned"]
    epochs = f"{done:,} of {counted(planned, 'epoch')}" if planned else counted(done, "epoch")
    seconds = f", {format_seconds(summary['seconds'])} of training" if summary["seconds"] else ""
    reason = f" {code(summary['reason'])}" if summary["reason"] else ""
    ended = f", ended {code(summary['ended'], 40)}" if summary["ended"] else ""
    started = f" Started {code(summary['started'], 40)}{ended}." if summary["started"] else ""
    return [f"**{summary['status']}**{reason}: {epochs}{seconds}.{started}"]


def _data_facts(data: Summary) -> list[str]:
    """Return the images, their classes, and how they were split."""
    place = f" from {code(data['place'])}" if data["place"] else ""
    size = f" of {'x'.join(map(str, data['in_size']))} (channels, height, width)" if data["in_size"] else ""
    lines = [f"- data: {code(data['target'] or 'not known')}{place}{size}"]
    counts = [f"{count:,} {SPLIT_NAMES[split]}" for split, count in data["images"].items() if count is not None]
    lines += [f"- images: {', '.join(counts)}"] if counts else []
    if data["classes"] is not None:
        names = data["class_names"][:LISTED_CLASSES]
        more = f" and {data['classes'] - len(names):,} more" if data["classes"] > len(names) > 0 else ""
        several = ", several labels per image" if data["labels"] == "multi" else ""
        listed = ": " + ", ".join(code(name, 60) for name in names) if names else ""
        lines.append(f"- classes: {data['classes']:,}{several}{listed}{more}")
    chosen = chosen_split(data["split"])
    lines.append(f"- split: {_settings(chosen) or 'not known'}")
    return [*lines, *([f"- revision: {code(data['revision'])}"] if data["revision"] else [])]


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(code(f"{key}={value}") for key, value in values.items())


def _results(summary: Summary, run: RunDir) -> list[str]:
    """Return the best epoch, the test result, and what evaluations and exports have found since."""
    best, chosen = summary["best"], summary["selection"]
    validated = "training batches" if summary["training"]["overfit_batches"] else "validation"
    found = {
        f"{validated}, epoch {_number(finite_number(best.get('epoch')), 0)}": scores_of(best, "val_"),
        "test": scores_of(summary["test"]),
        f"test with tta={cut(str(summary['test'].get('tta')), 40)}": scores_of(summary["test"], "tta_"),
    }
    lines = _score_table(found) or ["No results yet." if summary["status"] == "running" else "No results."]
    weights, by = chosen.get("weights"), chosen.get("by")
    if isinstance(weights, str):
        lines.append(f"Weights: {code(weights)}{f' by {code(by)}' if isinstance(by, str) else ''}.")
    reads = summary["test_reads"]
    again = f", and {times(reads['evaluations'])} by evaluations after it" if reads["evaluations"] else ""
    lines += ["", f"The test set was read {times(reads['training'])} by training{again}."]
    lines += [*_listed("Evaluations", summary["evaluations"]), *_listed("Exports", summary["exports"])]
    fitted = [f"- {name}: {_cell(value)}" for name, value in flat_facts(summary["fitted"]).items()]
    lines += ["", "Fitted on the validation images after training:", "", *fitted] if fitted else []
    for path, words in (
        (run.curves, "Loss and accuracy by epoch"),
        (run.samples, "Training images as the net sees them"),
    ):
        lines += ["", f"![{words}]({path.name})"] if path.is_file() else []
    kept = [
        (run.path / "eval", "figures and pictures of evaluations"), (run.exports, "exported models"),
        (run.path / "code", "the code at the start of the run"),
    ]  # fmt: skip
    lines += [""] + [f"- [{path.name}/]({path.name}): {words}" for path, words in kept if path.is_dir()]
    return lines


def _score_table(found: Mapping[str, Sequence[tuple[str, float, str]]]) -> list[str]:
    """Return a table with a row for each split that has scores, and a column for each score that one of them has."""
    known = {where: {words: value for _, value, words in scores} for where, scores in found.items() if scores}
    columns = [words for _, words in SCORES.values() if any(words in row for row in known.values())]
    rows = [[where, *(_score(words, row.get(words)) for words in columns)] for where, row in known.items()]
    return table(["images", *columns], rows)


def _score(words: str, value: float | None) -> str:
    return _number(value, 2 if words.endswith("(%)") else 4)


def _listed(title: str, items: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of the newest items, a column for each of their facts that is not nested."""
    newest = [flat_facts(item) for item in items[-LONGEST_TABLE:]]
    columns = list(dict.fromkeys(key for item in newest for key in item))[:MOST_COLUMNS]
    rows = [[_cell(item.get(column)) for column in columns] for item in newest]
    older = [f"{len(items) - LONGEST_TABLE} older ones are in run.json."] if len(items) > LONGEST_TABLE else []
    return ["", f"{title}:", *table([code(column, 40) for column in columns], rows), *older] if columns else []


def _cell(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if isinstance(value, int) else code(str(value))


def _number(value: float | None, digits: int = 4) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if abs(value) < 1e9 else f"{value:.3g}"


def _training(summary: Summary) -> list[str]:
    """Return the net, the command, the settings that matter most, and the environment."""
    model, environment = summary["model"], summary["environment"]
    count = f", {model['parameters']:,} parameters" if model["parameters"] is not None else ""
    dirty = {True: ", with changes that are not committed", False: ""}.get(environment["git_dirty"], "")
    commit = f"{code(environment['git_commit'], 60)}{dirty}" if environment["git_commit"] else "not known"
    versions = ", ".join(f"{code(name, 40)} {code(version, 40)}" for name, version in environment["versions"].items())
    device = ", ".join(code(str(environment[key])) for key in ("device", "precision") if environment[key])
    threads = count_threads(environment["threads"], environment["device"])
    threads = f", {threads}" if threads else ""
    platform = f", {code(environment['platform'])}" if environment["platform"] else ""
    given = {key: value for key, value in summary["training"].items() if value is not None}
    lines = [
        f"- model: {code(model['target'] or 'not known')}{count}",
        f"- settings: {_settings({**given, 'seed': summary['seed']})}; all of them are in [config.yaml](config.yaml)",
        f"- device: {device or 'not known'}{threads}{platform}",
        f"- versions: {versions or 'not known'}",
        f"- commit: {commit}",
    ]
    if summary["start"] not in (None, "scratch"):
        lines.append(f"- started from: {code(summary['start'])}")
    lines += [f"- teacher: {_settings(flat_facts(summary['teacher']))}"] if summary["teacher"] else []
    lines += [f"- {line}" for line in _resumes(summary["resumes"])]
    for item in summary["out_of_memory"]:
        epoch, step, size = (_cell(item.get(key)) for key in ("epoch", "step", "micro_batch"))
        lines.append(
            f"- out of memory in epoch {epoch}, step {step}: micro-batches of at most {size} images from there on"
        )
    return [*lines, *(["", "Command:", *code_block([summary["command"]])] if summary["command"] else [])]


def _resumes(resumes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for item in resumes[-LONGEST_TABLE:]:
        changes = item.get("changes")
        with_changes = f", with {code(', '.join(map(str, changes)))}" if isinstance(changes, list) and changes else ""
        epoch, step, at = (_cell(item.get(key)) for key in ("epoch", "step", "at"))
        yield f"resumed at epoch {epoch}, step {step}, {at}{with_changes}"


def _suggested_commands(summary: Summary) -> list[str]:
    """Return the commands that use or continue a run."""
    path, planned = Path(summary["folder"]), summary["epochs"]["planned"]
    longer = [f"trainer.epochs={2 * planned}"] if summary["status"] == "finished" and planned else []
    again = format_command("resnet-train", [f"reproduce={quote_override(path.as_posix())}"])
    commands = {
        "continue training": resume_command(path, *longer),
        "evaluate another split": format_command("resnet-eval", [path.as_posix(), "--split", "val"]),
        **({"train it again and compare": again} if summary["status"] == "finished" else {}),
        "classify images": format_command("resnet-predict", [path.as_posix(), "IMAGE"]),
        "export to ONNX": format_command("resnet-export", [path.as_posix()]),
        "a summary of the run and its network": format_command("resnet-info", [path.as_posix()]),
        "compare with other runs": format_command("resnet-report", [path.as_posix()]),
    }
    return [line for words, command in commands.items() for line in (f"{words}:", *code_block([command]))]
