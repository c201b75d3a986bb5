"""Hydra without what it does twice, for tests that run many commands in one process."""

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.hydra import Hydra
from omegaconf import OmegaConf

SETS_MODE = re.compile(r"[+~]*hydra(?!\.(run|sweep)\.)")  # an override after which the mode can be another


def install(replace: Callable[[Any, str, Any], object] = setattr) -> None:
    """Compose a run's config once, and parse each YAML text once.

    Hydra 1.3 composes every config twice, the first time only to read `hydra.mode`, and drops what goes wrong then. It
    still does so where something could set that: an override of Hydra's own node, or config files of a test's own.
    A YAML text is parsed once, by its content: what is handed out is a copy, and a wrong text is parsed in place.

    Nothing can hide behind this: what is composed, checked and told is the same. And tests that start resnet-train as
    a process have Hydra as it is.

    Args:
        replace: Sets an attribute; pytest's `monkeypatch.setattr` takes it back.
    """
    parsed: dict[str, bytes] = {}
    load, get_mode = OmegaConf.load, Hydra.get_mode

    def load_once(file: Any) -> Any:
        text = file.read() if hasattr(file, "read") else Path(file).read_text(encoding="utf-8")
        if text not in parsed:
            try:
                parsed[text] = pickle.dumps(load(io.StringIO(text)))
            except Exception:
                if hasattr(file, "read"):
                    file.seek(0)
                return load(file)  # the error names the file
        return pickle.loads(parsed[text])  # a fifth of the time of a deep copy

    def mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        plain = not Path("conf").exists() and not any(SETS_MODE.match(override) for override in overrides)
        return None if plain else get_mode(self, config_name, overrides)

    replace(OmegaConf, "load", staticmethod(load_once))
    if hydra.__version__.startswith("1.3"):
        replace(Hydra, "get_mode", mode)
