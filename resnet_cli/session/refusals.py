"""Explain why a target of the config could not be built: the error or the wrong result, as a problem of its key."""

import re
from collections.abc import Set
from typing import Any

from resnet_cli.config.run_config import Node
from resnet_cli.config.signatures import Signature
from resnet_cli.errors import InputError

# How Python refuses a call whose arguments do not suit the signature.
WRONG_ARGUMENTS = re.compile(r"\(\) (got an unexpected|got multiple values|missing \d+ required|takes )")


def explain_refusal(error: Exception, target: str, known: Signature) -> str | None:
    """Return why a target cannot be called with its arguments; None for a defect of a user's class.

    Args:
        error: What it raised.
        target: Its dotted name.
        known: Its signature. One that takes any keyword may pass it on to a callable that does not.
    """
    text = str(error)
    first = (text.splitlines() or [""])[0]
    if isinstance(error, MemoryError) or "memory" in text or "Storage size" in text:
        return f"{target} needs more memory than there is"
    if "overflow" in text.lower():
        return f"{target} is given a number that is too large: {first}"
    if known.open and isinstance(error, TypeError) and WRONG_ARGUMENTS.search(first):
        return f"{target} takes any argument, but {first}"
    return first if target.startswith("torch.") else None


def with_full_key(key: str, problem: str, parameters: Set[str]) -> str:
    """Return `depth=21: ...` as `model.depth=21: ...`."""
    if problem.startswith((f"{key}.", f"{key}=")):
        return problem
    return f"{key}{'.' if re.split(r'[^a-z_]', problem)[0] in parameters else ': '}{problem}"


def with_image_size(problem: str, size: Any) -> str:
    """Return `model: in_size=[3, 24, 24]: ...` with the setting of the user's, `data.image_size=24`.

    If it is None, the setting is a hint at the end.
    """
    if size is not None:
        return re.sub(r"^(model: )?in_size=\[[^\]]*\]: ", f"data.image_size={size}: ", problem)
    return f"{problem}; set data.image_size to resize the images" if "in_size=" in problem else problem


def require_kind(key: str, node: Node, built: Any, kind: Any, expected: str, returned: str = "returned a") -> None:
    """Raise an `InputError` unless a target has returned an instance of a class.

    Args:
        key: Full key of the node.
        node: The node.
        built: What its target returned.
        kind: The class, or several in a tuple.
        expected: The class in words.
        returned: How the message describes an object of another class, whose name follows.
    """
    if not isinstance(built, kind):
        raise InputError(f"{key}._target_: {node['_target_']} {returned} {type(built).__name__}, not {expected}")


def require_foreseeable(trainer: Node) -> None:
    """Raise an `InputError` for an option of a run with a time budget that takes a time which few steps do not show."""
    every = trainer.get("log_sharpness")
    if every is not None:
        raise InputError(
            f"trainer.log_sharpness={every}: takes as long as several epochs, which a time budget cannot account for; "
            "set trainer.epochs instead of trainer.time_budget"
        )
