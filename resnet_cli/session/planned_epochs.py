"""What the plan of a run expected of its time budget, if the run gets far fewer epochs."""

import json
from collections.abc import Mapping
from contextlib import suppress

from resnet_cli.config.counts import counted
from resnet_cli.runs.folder import RunDir

NOTABLE_SHARE = 0.5  # of the expected epochs, below which the run says what was expected


def describe_shortfall(files: Mapping[str, str], epochs: float) -> str:
    """Return what the plan expected if a run gets less than half as many epochs; else an empty string.

    Args:
        files: Further files of the run folder, content by name: those of a plan have its facts.
        epochs: The epochs of the run.
    """
    expected = None
    with suppress(ValueError, AttributeError):
        expected = json.loads(files.get(RunDir("").fingerprint.name, "{}")).get("expected_epochs")
    if not isinstance(expected, int) or epochs >= NOTABLE_SHARE * expected:
        return ""
    return f" (the plan expected about {counted(expected, 'epoch')})"
