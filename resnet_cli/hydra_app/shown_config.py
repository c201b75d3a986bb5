"""`--cfg PART -p KEY`: one node of the config that is shown, and what is said if it has no such key.

Relies on: the line on stderr with which Hydra exits if there is no such key or its value is null, and `HydraConfig`,
whose node is part of the whole config by then. Tried with Hydra 1.3.8 and 1.4.0rc3;
`tests/hydra_app/test_shown_config.py` fails when one of these changes.
"""

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError

CFG, PACKAGE = ("--cfg", "-c"), ("--package", "-p")
NOT_FOUND = "not found in config\n"  # how Hydra's line ends


def with_whole_config(arguments: Sequence[str]) -> list[str]:
    """Replace `--cfg hydra` by `--cfg all` beside `-p hydra.KEY`, whose value may refer to the rest of the config.

    Raises:
        InputError: There is `-p` without `--cfg`, which would train.
    """
    package = _value_of(arguments, PACKAGE)
    if package is not None and _value_of(arguments, CFG) is None:
        raise InputError(f"-p {package}: needs --cfg job, the config of which it shows a part")
    if _value_of(arguments, CFG) != "hydra" or not (package or "").startswith("hydra"):
        return list(arguments)
    result = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_part = before in CFG or argument.startswith("--cfg=")
        result.append(argument.replace("hydra", "all") if is_part else argument)
    return result


@contextmanager
def missing_package_explained(arguments: Sequence[str]) -> Iterator[None]:
    """Raise an error that users of `-p` can act on, where Hydra exits; a value of null is printed.

    Args:
        arguments: The command line.

    Raises:
        InputError: The part of the config that is shown has no such key.
    """
    part, package = _value_of(arguments, CFG), _value_of(arguments, PACKAGE)
    if part is None or package is None:
        yield
        return
    printed = io.StringIO()
    try:
        with redirect_stderr(printed):
            yield
    except SystemExit:
        if not printed.getvalue().endswith(f"'{package}' {NOT_FOUND}"):
            raise
        printed = io.StringIO()
        _explain(part, package)
    finally:
        sys.stderr.write(printed.getvalue())


def _explain(part: str, package: str) -> None:
    """Print null if that is the value of a key.

    Raises:
        InputError: There is no such key.
    """
    node: Any = HydraConfig.get()
    own: Any = OmegaConf.to_container(node, resolve=False)
    whole: Any = OmegaConf.to_container(node._get_root(), resolve=False)  # from which `--cfg job` removes Hydra's node
    keys = _keys({**whole, "hydra": own})
    is_hydra = package.partition(".")[0] == "hydra"
    if part != "all" and package in keys and is_hydra != (part == "hydra"):
        raise InputError(f"-p {package}: is not in --cfg {part}; use --cfg {'hydra' if is_hydra else 'job'}")
    if package not in keys:
        raise InputError(f"-p {package}: no such key{did_you_mean(package, keys)}")
    print("null")


def _keys(config: Any, prefix: str = "") -> list[str]:
    keys = []
    for key, value in config.items():
        keys += [f"{prefix}{key}", *(_keys(value, f"{prefix}{key}.") if isinstance(value, dict) else ())]
    return keys


def _value_of(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the value of an option, given as `--option value` or `--option=value`; None if it is not given."""
    for argument, after in zip(arguments, [*arguments[1:], None], strict=False):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else after
    return None
