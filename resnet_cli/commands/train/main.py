"""Entry point of resnet-train. The work is in `job`, the help in `app`; both are imported late."""

import sys
from collections.abc import Sequence

from resnet_cli import __version__
from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.session.signals import StopSignals

COMPLETION = ("-sc", "--shell-completion")


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-train` with these arguments and return the exit status (see docs/reference/exit_statuses.md)."""
    if arguments and arguments[0] in COMPLETION:
        status = _complete(arguments)
        if status is not None:
            return status
    if "--version" in arguments:  # Hydra would print its own
        print(f"resnet-cli {__version__}")
        return 0
    with StopSignals() as stop:
        try:
            # Importing Hydra takes half a second, during which signals must be handled already.
            from resnet_cli.commands.train import app

            if any(argument in app.HELP for argument in arguments):
                return app.show_help(arguments, stop)
            from resnet_cli.distributed.environment import find_existing_rank

            place = find_existing_rank()
            if place is not None:
                from resnet_cli.session.existing_ranks import run_on_existing

                return run_on_existing(place, stop, lambda: _run_jobs(arguments, stop))
            from resnet_cli.commands.train import job

            return job.run(arguments, stop)
        except InputError as error:
            from resnet_cli.hydra_app.errors import print_error

            return print_error(error)
        except StoppedError as stopped:
            return 128 + stopped.signum
        except KeyboardInterrupt:
            return 130


def _complete(arguments: Sequence[str]) -> int | None:
    """Answer a query of shell completion without Hydra, and return the exit status; None if there is no query."""
    from resnet_cli.commands import completion

    text = completion.answer(arguments)
    return None if text is None else completion.print_answer(text)


def _run_jobs(arguments: Sequence[str], stop: StopSignals) -> int:
    """Compose and run the jobs of a command line, on the first of the processes that torchrun or srun has started."""
    from resnet_cli.commands.train import job

    return job.run(arguments, stop)


if __name__ == "__main__":
    main()
