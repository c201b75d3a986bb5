"""What is said in place of lines of Hydra that name no key, or advise something else than what helps.

The texts are those of Hydra 1.3.8 and 1.4.0rc3; `tests/hydra_app/test_errors.py` fails when one of them changes.
"""

import re
import sys
from collections.abc import Callable, Mapping

from omegaconf import OmegaConf

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.suggestions import did_you_mean

APP_MODULE = "resnet_cli.commands.train"  # whose folder Hydra takes relative paths of configs from


def advised(line: str) -> str:
    """Return what is said in place of a line of Hydra; an empty string if the line itself is clear."""
    return next((advise(found) for pattern, advise in ADVICE.items() if (found := re.search(pattern, line))), "")


def describe_merge_failure(text: str) -> str:
    """Return what is wrong with a key of Hydra's own node, which it checks itself.

    Args:
        text: The lines of its error and of the one of OmegaConf that caused it.
    """
    _, reason, *others = text.splitlines()
    key = next((line.split()[-1] for line in others if line.strip().startswith("full_key: ")), "hydra")
    is_unknown = reason.startswith(f"Key '{key.rpartition('.')[2]}' not in")
    return f"{key}: unknown key{_nearest_key_of_hydra(key)}" if is_unknown else f"{key}: {reason}"


def _advise_sweeper(_: re.Match[str]) -> str:
    """Say what a range of values to choose from needs, of the overrides that have one."""
    typed = [word.lstrip("+") for word in sys.argv[1:] if re.search(r"=.*interval\(", word)]
    return f"{', '.join(typed) or 'interval(...)'}: an interval needs hydra/sweeper=optuna; or give values, as in a,b,c"


def _advise_group(found: re.Match[str]) -> str:
    """Say which groups can be chosen from, for the key of an override that is in no defaults list."""
    key = found[1]
    group, at, _ = key.partition("@")
    if at:
        return f"{key}: nothing of this group has this place; {group}=NAME chooses an option, +{key}=NAME adds one"
    if key == "hydra":
        return "hydra: set one of its keys, such as hydra.run.dir"
    if part := re.match(r"hydra\.(launcher|sweeper)\.", key):
        return f"{key}: the chosen option of hydra/{part[1]} has no such key; hydra/{part[1]}=NAME chooses another"
    if key in _keys_of_hydra():
        return f"{key}: has not all of these keys; +{key}.NAME=VALUE adds one"
    if key.startswith("hydra."):
        return f"{key}: unknown key{_nearest_key_of_hydra(key) or f'; +{key}=VALUE adds one'}"
    near = did_you_mean(key, set(_groups()) - {key})
    return f"{key}: is in no defaults list{near}; +{key}=NAME adds a group of your own"


def _advise_override_in_file(found: re.Match[str]) -> str:
    """Say how a file's defaults list replaces the option of a group."""
    file, key = found[1], found[2]
    folder = file.rpartition("/")[0]
    group, at, place = key.partition("@")
    if group.startswith(f"{folder}/"):
        name = group.removeprefix(f"{folder}/")
        return f"{file}: defaults: override {name}: other groups begin with a slash: override /{name}"
    if at and place.startswith(f"{folder}.") and folder in CONFIG_GROUPS:
        return f"{file}: defaults: override /{group}: only an experiment's file can choose options of other groups"
    if at and place.startswith(f"{folder}."):
        return f"{file}: override /{group}: needs the line `# @package _global_` at the start of the file"
    return f"{file}: defaults: override /{key}: there is no such choice to replace{did_you_mean(key, _groups())}"


def _groups() -> list[str]:
    return [str(path.relative_to(CONFIG_FOLDER)) for path in sorted(CONFIG_FOLDER.rglob("*")) if path.is_dir()]


def _nearest_key_of_hydra(key: str) -> str:
    """Return `; did you mean X?` for the nearest key of the same node, or an empty string."""
    node = key.rpartition(".")[0]
    return did_you_mean(key, [name for name in _keys_of_hydra() if name.rpartition(".")[0] == node])


def _keys_of_hydra() -> list[str]:
    """Return the keys of Hydra's own node."""
    from hydra.conf import HydraConf

    from resnet_cli.config.validation import all_keys

    node = OmegaConf.to_container(OmegaConf.structured(HydraConf), resolve=False)
    return all_keys({"hydra": node})


ADVICE: Mapping[str, Callable[[re.Match[str]], str]] = {
    r"^BasicSweeper does not support sweep type : INTERVAL": _advise_sweeper,
    r"^In '?([^':]+)'?: Could not override '([\w./@-]+)'": _advise_override_in_file,
    r"^In '?([^':]+)'?: Override '([\w/@.]+) : ": _advise_override_in_file,
    r"^Could not override '([\w./@]+)'": _advise_group,
    r"^Multiple values for ([\w/]+)\.": lambda found: (
        f"{found[1]}: two files choose an option; a file that replaces the choice of another has the line "
        f"`- override /{found[1]}: NAME` in its defaults list"
    ),
    r"^Could not append to config. An item is already at '(.+)'": lambda found: (
        f"+{found[1]}: the config has this key already; without +, {found[1]}=VALUE changes it"
    ),
    r"^Could not delete from config. '(.+)' does not exist": lambda found: _advise_deletion(found[1]),
    r"^Could not delete '([\w/@]+)'": lambda found: f"~{found[1]}: no option of this group is chosen",
    r"^Could not delete from config. The value of '(.+)' is (.*) and not (.*)\.$": lambda found: (
        f"~{found[1]}={found[3]}: the value is {found[2]}; ~{found[1]} deletes any"
    ),
    r"^Primary config module '(.+)' not found": lambda found: _advise_config_dir(
        found[1].removeprefix(f"{APP_MODULE}.").replace(".", "/")
    ),
    r"^Cannot find primary config '(.+?)'": lambda _: (
        "--config-path, --config-name: replace the configs of this program; --config-dir FOLDER adds your own to them"
    ),
}


def _advise_deletion(key: str) -> str:
    """Say that there is nothing to delete, for a key that Hydra does not find: it takes null for a missing key."""
    changes_run = any(word.lstrip("+").startswith("resume=") for word in sys.argv[1:])
    remedy = f"{key}=null changes the value of the run" if changes_run else "leave it out"
    return f"~{key}: the config has no such key, or its value is null already; {remedy}"


def _advise_config_dir(folder: str) -> str:
    """Say how to add a folder of configs, where the program's own were replaced by one that does not exist."""
    return f"--config-path {folder}: replaces the configs of this program; --config-dir {folder} adds your own to them"
