"""The Hydra app: a config composed, and a job called with it. `--help` imports no more of the package than this."""

import gc
import os
import sys
from collections.abc import Callable, Sequence

import hydra
from omegaconf import DictConfig

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import JobFailedError, StoppedError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.overrides import hydra_arguments
from resnet_cli.hydra_app.search_path import use_working_folder
from resnet_cli.session.signals import JobStoppedError, RunFailedError, StopSignals

HELP = ("--help", "-h", "--hydra-help")


def show_help(arguments: Sequence[str], stop: StopSignals) -> int:
    """Print what `arguments`, with one of `HELP` among them, ask for; gives the exit status."""
    gc.disable()  # Hydra copies its configs for every group that it lists, a tenth of the time spent on looking at them
    try:
        return run(arguments, stop, lambda composed: None)
    finally:
        gc.enable()


def run(arguments: Sequence[str], stop: StopSignals, job: Callable[[DictConfig], float | None]) -> int:
    """Let Hydra compose the config and call `job`, for each job of a sweep; gives the exit status.

    Raises:
        StoppedError: a signal ended it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises instead of printing, so that its errors can be told in a line
    try:
        _start_hydra(hydra_arguments(arguments), stop, job)
    except SystemExit as done:  # --help and the like
        return int(done.code or 0)
    except RunFailedError as failed:
        if isinstance(failed.error, JobStoppedError):
            raise StoppedError(failed.error.signum) from None
        from resnet_cli.hydra_app.errors import print_error

        return print_error(failed.error)
    except JobStoppedError as stopped:
        raise StoppedError(stopped.signum) from None
    except Exception as error:
        if stop.signum is not None:  # jobs in other processes end in ways of their launcher's
            raise StoppedError(stop.signum) from None
        from resnet_cli.hydra_app import errors
        from resnet_cli.sweeps import launch

        if isinstance(error, JobFailedError) and launch.launching() is not None:
            return 1  # the table tells
        return errors.print_error(error)
    return 0


def _start_hydra(arguments: Sequence[str], stop: StopSignals, job: Callable[[DictConfig], float | None]) -> None:
    compat.silence_schema_warning()
    use_working_folder()
    stop()  # from here to the task signals are noted: raised inside Hydra they would leave its empty folder behind
    typed = sys.argv[1:]
    sys.argv[1:] = arguments
    try:
        with compat.patched_argparse():
            hydra.main(config_path=str(CONFIG_FOLDER), config_name="train", **compat.main_options())(job)()
    finally:
        sys.argv[1:] = typed
