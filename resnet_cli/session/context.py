"""RunContext: what a run needs from its surroundings besides its config and folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from resnet_cli.files import write_atomically
from resnet_cli.training.control import RunControl


@dataclass(frozen=True)
class Plans:
    """The plans that were made for a command.

    Args:
        files: Files that a run keeps in its folder, content by name, by the level of its plan.
        seconds: How long planning took; it counts in the time budget of a single run.
        options: Files of the group `plan` by path, in a temporary folder that Hydra searches.
    """

    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)

    def write_options(self) -> None:
        """Write the files of the group `plan` that are missing.

        A job that a launcher has sent to another machine composes its config there, and would find only the options of
        this name that plan nothing. The files stay there, since other jobs of the sweep may need them.
        """
        for path, text in self.options.items():
            if not Path(path).is_file():
                Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomically(Path(path), text)

    def files_of(self, level: str | None) -> Mapping[str, str]:
        """Return the files of a run that was planned at this level; empty for None."""
        return self.files.get(level or "", {})


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """What a run needs from its surroundings besides its config and folder.

    Args:
        control: Ends the run from outside: stop signals and pruning.
        command: The command line that the user typed, for the record.
        overrides: The overrides in it that set the run's config, as typed; a job of a sweep has its own values.
            None if the config was not composed from a command line.
        resume_command: The command line that resumes the run, printed when it is stopped.
        paths: Present locations, by key, of files that are not where the config says; see `resnet_cli.session.paths`.
        files: Further files of the run folder, by name: the plan that the config was made by.
        seconds_before: How many seconds planning took; they count in its time budget.
        sweep: The folder of the sweep that the run is a job of: its jobs record the same code.
        log_to_terminal: Show log lines in the terminal as well as in the run folder's `train.log`.
    """

    control: RunControl = field(default_factory=RunControl)
    command: str = ""
    overrides: Sequence[str] | None = None
    resume_command: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    seconds_before: float = 0.0
    sweep: Path | None = None
    log_to_terminal: bool = True
