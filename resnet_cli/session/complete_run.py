"""A run that is resumed although nothing is left to do: what its stored config keeps."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.config import stored
from resnet_cli.errors import InputError
from resnet_cli.session.prepare import PreparedRun

TTA = "trainer.test_tta"
LOCATIONS = ("root", "file", "labels_file", "shards", "val_shards", "test_shards", "splits")  # of data


def settings_to_store(
    prepared: PreparedRun, before: Mapping[str, Any], overrides: Sequence[str]
) -> tuple[dict[str, Any], list[str]]:
    """Return the config to store, and a line for each typed option that has no effect since the run is complete.

    A complete run keeps the config that it was trained with. Loggers, which get its epochs, the number of epochs, for
    when it continues, and where its data are may change.

    Args:
        prepared: The run.
        before: Its record before it is resumed; empty for a new run.
        overrides: The overrides that were typed.
    """
    given = prepared.config.stored()
    trainer = prepared.trainer
    is_done = trainer.state.is_done(trainer.epochs, trainer.early_stopping)
    if prepared.start.file is None or not is_done or not before.get("test"):
        return given, []
    try:
        own = stored.read(prepared.run.config)
    except (InputError, OSError):  # missing or damaged: written again
        return given, []
    kept = _with_effective_options(own, given)
    old, new = stored.flat(kept), stored.flat(given)
    changed = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    lines = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if any(name == key or name.startswith(f"{key}.") for name in changed):
            hint = f"; use resnet-eval {prepared.run.path} --tta {value}" if key == TTA and value != "none" else ""
            lines.append(f"{key}={value}: has no effect, the run is complete{hint}")
    return kept, lines


def _with_effective_options(own: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the run's own config with those of the given options that may change."""
    data, trainer = given["data"], dict(own["trainer"])
    if "epochs" in given["trainer"]:
        trainer["epochs"] = given["trainer"]["epochs"]
    locations = {key: data[key] for key in LOCATIONS if key in data}
    return {**own, "data": {**own["data"], **locations}, "trainer": trainer, "logger": given.get("logger")}
