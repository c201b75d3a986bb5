"""What can go wrong in a way that a user can act on; each kind has its own exit status."""


class InputError(ValueError):
    """The user's input is wrong: config, data, checkpoint or path (exit status 2).

    Args:
        problems: One for each line: text that names the key or path, what was given and what is allowed, or an object
            that renders so (`resnet_cli.config.messages.Problem`).

    Attributes:
        problems: The lines.
        details: The problems as they were passed, for programs.
    """

    def __init__(self, *problems: object) -> None:
        self.details = problems
        self.problems = tuple(map(str, problems))
        super().__init__("\n".join(self.problems))


class DivergedError(RuntimeError):
    """Training met a non-finite loss, gradient or buffer (exit status 3)."""


class MachineError(OSError):
    """The machine failed: disk full, no permission, no shared memory (exit status 4)."""


class PrunedError(RuntimeError):
    """A search gave the run up, which is as good as done: its best epoch so far stays."""


class JobFailedError(RuntimeError):
    """A job of a sweep did not finish; what went wrong was told when it happened (exit status 1)."""


class NotIdenticalError(JobFailedError):
    """A run that was killed and resumed ended otherwise than one that was not: a defect (exit status 1)."""


class StoppedError(BaseException):
    """A signal asked the run to stop; the step was finished and saved first (exit status 128 + signal)."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by signal {signum}")
