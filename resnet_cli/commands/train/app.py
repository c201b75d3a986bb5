"""The Hydra app: compose a config and call a task with it. `--help` imports no more of the package than this."""

import gc
import os
import sys
from collections.abc import Callable, Sequence

import hydra
from omegaconf import DictConfig

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import JobFailedError, StoppedError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.argument_parser import hydra_arguments_replaced
from resnet_cli.hydra_app.overrides import hydra_arguments, split_arguments
from resnet_cli.hydra_app.search_path import user_configs
from resnet_cli.hydra_app.shown_config import missing_package_explained, with_whole_config
from resnet_cli.session.signals import JobStoppedError, RunFailedError, StopSignals
from resnet_cli.streams import discard_output

HELP = ("--help", "-h", "--hydra-help")

Task = Callable[[DictConfig], float | None]


def show_help(arguments: Sequence[str], stop: StopSignals) -> int:
    """Print the help that `arguments` ask for with one of `HELP`, and return the exit status.

    Overrides beside it change nothing in it, and Hydra would apply them to a config without our groups.
    """
    options, _ = split_arguments(arguments)
    gc.disable()  # Hydra copies its configs for every group that it lists; collecting them takes a tenth of the time
    try:
        return run(options, stop, lambda composed: None)
    finally:
        gc.enable()


def run(arguments: Sequence[str], stop: StopSignals, task: Task) -> int:
    """Compose the config with Hydra, call `task` with the config of each job, and return the exit status.

    Raises:
        StoppedError: a signal stopped it.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises errors instead of printing them
    try:
        replaced = with_whole_config(hydra_arguments(arguments))
        with hydra_arguments_replaced(replaced), user_configs(arguments), missing_package_explained(arguments):
            compat.silence_schema_warning()
            # Until the task begins, signals are only recorded: raised inside Hydra, they would leave an empty folder.
            stop()
            hydra.main(config_path=str(CONFIG_FOLDER), config_name="train", **compat.main_options())(task)()
    except SystemExit as done:  # --help and the like
        return int(done.code or 0)
    except BrokenPipeError:  # the pipe is closed, as in `resnet-train -sc install=bash | head -1`
        discard_output(sys.stdout)  # Python flushes it once more at exit
        return 0
    except (Exception, RunFailedError) as error:
        return _exit_status(error, stop)
    return 0


def _exit_status(error: Exception | RunFailedError, stop: StopSignals) -> int:
    """Print an error that ended the app, and return the exit status.

    Raises:
        StoppedError: a signal stopped it.
    """
    cause = error.error if isinstance(error, RunFailedError) else error
    if isinstance(cause, JobStoppedError):
        raise StoppedError(cause.signum) from None
    from resnet_cli.hydra_app.errors import print_error

    if isinstance(error, RunFailedError):
        return print_error(cause)
    if stop.signum is not None:  # jobs in other processes end with errors of their launcher
        raise StoppedError(stop.signum) from None
    from resnet_cli.sweeps.launch import active_launch

    if isinstance(error, JobFailedError) and active_launch() is not None:
        return 1  # printed already, and the sweep's table shows it
    return print_error(error)
