"""RunContext: what a run needs from its surroundings besides its config and folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resnet_cli.training.control import RunControl


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run needs from its surroundings besides its config and folder.

    Args:
        control: Ends the run from outside: stop signals and pruning.
        command: The command line that the user typed, for the record.
        overrides: The overrides among them that set the run's config, as typed; a job of a sweep has its own values.
            None if the config was not composed from a command line.
        resume_command: The command line that resumes the run, printed when it is stopped.
        paths: Where files are that are not where the config says, by key; see `resnet_cli.session.paths`.
        files: Further files of the run folder, by name: the plan that the config was made by.
        sweep: The folder of the sweep that the run is a job of: its jobs record the same code.
        log_to_terminal: Show log lines in the terminal as well as in the run folder's `train.log`.
    """

    control: RunControl = field(default_factory=RunControl)
    command: str = ""
    overrides: Sequence[str] | None = None
    resume_command: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    sweep: Path | None = None
    log_to_terminal: bool = True
