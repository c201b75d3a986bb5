"""JSON texts that users write."""

import json
from collections.abc import Sequence
from typing import Any

from resnet_cli.errors import InputError


def parse_json(text: str) -> Any:
    """Return the content of a JSON text.

    Raises:
        InputError: The text is not JSON, or has a key twice in an object: Python would ignore the first one.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}") from None


def _without_repeated_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise InputError(f"has the key {json.dumps(key, ensure_ascii=False)} twice")
        content[key] = value
    return content
