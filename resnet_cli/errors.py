"""Failures that a user can act on, each with its own exit status."""


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


class InUseError(InputError):
    """Another process writes to a folder (exit status 2)."""


class DivergedError(RuntimeError):
    """Training met a non-finite loss, gradient or buffer (exit status 3)."""


class MachineError(OSError):
    """The machine failed: disk full, no permission, no shared memory (exit status 4)."""


class PrunedError(RuntimeError):
    """A search pruned the run: it counts as done and keeps its best epoch so far."""


class JobFailedError(RuntimeError):
    """A job of a sweep did not finish; the reason was printed when it happened (exit status 1)."""


class NotIdenticalError(JobFailedError):
    """Two runs that should be the same are not (exit status 1): one that was resumed, or one that was reproduced."""


class ParityError(JobFailedError):
    """An exported file computes something else than the run that it was exported from (exit status 1)."""


class StoppedError(BaseException):
    """A signal stopped the run after the step was finished and saved (exit status 128 + signal)."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(f"stopped by signal {signum}")
