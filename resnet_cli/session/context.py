"""RunContext: what a run needs from its surroundings besides its config and folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
        log_to_terminal: Show log lines in the terminal as well as in the run folder's `train.log`.
    """

    control: RunControl = field(default_factory=RunControl)
    command: str = ""
    overrides: Sequence[str] | None = None
    resume_command: str = ""
    log_to_terminal: bool = True
