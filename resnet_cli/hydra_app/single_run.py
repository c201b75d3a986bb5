"""What a single run needs of its composed config, whether it is started by a command or from Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from resnet_cli.errors import InputError
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.runs.folder import find_run_of, is_sweep
from resnet_cli.runs.names import quote_override


def swept_keys(config: DictConfig, overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the keys that an experiment sweeps over; empty if each of them is set to one value.

    Args:
        config: The composed config, with Hydra's node.
        overrides: The overrides of the command.
    """
    params = tuple(map(str, config.hydra.sweeper.get("params") or {}))
    given = override_keys(overrides)
    return params if any(key.lstrip("+") not in given for key in params) else ()


def require_single_run(settings: Mapping[str, Any], run_dir: str, swept: Sequence[str]) -> None:
    """Refuse a config that a single run cannot start with.

    Args:
        settings: The composed config as plain data.
        run_dir: The run folder.
        swept: What `swept_keys` returned.

    Raises:
        InputError: The experiment sweeps, or the run folder has no name, is that of a sweep, or is not that of the run
            to resume.
    """
    if swept:
        raise InputError(f"this experiment sweeps over {', '.join(swept)}: add -m, or set each of them to one value")
    if not run_dir.strip():
        raise InputError("hydra.run.dir: is empty; give a folder")
    if is_sweep(Path(run_dir)):
        raise InputError(f"hydra.run.dir={run_dir}: the folder of a sweep, whose jobs are in it; give another folder")
    resume = settings.get("resume")
    if not isinstance(resume, str) or not resume.strip() or resume == "auto":
        return
    folder = find_run_of("resume", resume).path
    if folder.resolve() != Path(run_dir).resolve():  # a file has set it, and only a typed one sets the folder
        raise InputError(
            f"resume: {resume}: a run is resumed on the command line: resume={quote_override(str(folder))}"
        )
