"""Composed configs and the problems that the check finds in them."""

import copy
from functools import cache

import hydra
from hydra import compose, initialize_config_dir

from resnet_cli.config import validation
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.compose import to_plain
from resnet_cli.hydra_app.plugins import add_launcher_options


@cache
def composed(*overrides):
    options = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}
    add_launcher_options()
    with initialize_config_dir(str(CONFIG_FOLDER), **options):
        compat.silence_schema_warning()  # pytest takes filters back after each test
        return to_plain(compose("train", ["name=x", *overrides]))


def settings_of(*overrides):
    return copy.deepcopy(composed(*overrides))


def problems_of(settings):
    try:
        validation.check(settings)
    except InputError as error:
        return list(error.problems)
    return []
