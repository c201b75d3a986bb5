"""Start a search for a setting: check its options, and write its files."""

import csv
import io
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnet_cli.config.run_config import RunConfig
from resnet_cli.errors import InputError
from resnet_cli.files import write_atomically
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.context import RunContext
from resnet_cli.session.find.batch_size import find_batch_size
from resnet_cli.session.find.lr import find_lr

logger = logging.getLogger("resnet_cli")


def find_setting(config: RunConfig, run: RunDir, context: RunContext) -> dict[str, Any]:
    """Find the setting that `config.find` names, and write `find_<name>.json`, `.csv` and, for `lr`, `.png`.

    Args:
        config: The config.
        run: The folder to write to, which holds no run.
        context: Signals, and the command line for the record.

    Returns:
        `find`, what was searched for, and the content of the JSON file.

    Raises:
        InputError: the folder holds a run, or a key is set that applies to a run only.
        MachineError: the folder cannot be written.
        StoppedError: a signal arrived; nothing has been written.
    """
    for key in ("resume", "reproduce"):
        if getattr(config, key) not in (None, "auto"):
            raise InputError(f"{key}: cannot be combined with find={config.find}, which trains nothing")
    if config.verify_resume:
        raise InputError(f"verify_resume: cannot be combined with find={config.find}")
    if run.exists:
        raise InputError(f"{run.path}: already holds a run; give find={config.find} another hydra.run.dir")
    run.require_writable()
    trainer = {key: value for key, value in config.trainer.items() if key not in ("time_budget", "on_oom")}
    plain = replace(config, resume=None, trainer=trainer)
    find = find_lr if config.find == "lr" else find_batch_size
    facts, rows = find(plain, run, context)
    facts = {
        "find": config.find, **facts, "seed": config.seed, "command": context.command,
        "overrides": list(context.overrides) if context.overrides is not None else None, "at": utc_now(),
    }  # fmt: skip
    _write(run.path, f"find_{config.find}", facts, rows)
    logger.info("files   %s", ", ".join(sorted(str(path) for path in run.path.glob(f"find_{config.find}.*"))))
    return facts


def _write(folder: Path, name: str, facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the facts with the rows as JSON, and the rows as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", json.dumps({**facts, "rows": list(rows)}, indent=2) + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / f"{name}.csv", table.getvalue())
