"""RunContext: what a run needs from its surroundings besides its config and folder."""

from dataclasses import dataclass, field

from resnet_cli.training.control import RunControl


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run needs from its surroundings besides its config and folder.

    Args:
        control: Ends the run from outside: stop signals and pruning.
        command: The command line that the user typed, for the record.
        resume_command: The command line that resumes the run, printed when it is stopped.
        log_to_terminal: Show log lines in the terminal as well as in the run folder's `train.log`.
    """

    control: RunControl = field(default_factory=RunControl)
    command: str = ""
    resume_command: str = ""
    log_to_terminal: bool = True
