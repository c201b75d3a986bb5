"""What resnet-info does without a network: list, show and copy presets, check files, the schema, the environment."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from resnet_cli.commands.experiment_file import format_experiment, format_run_as_experiment
from resnet_cli.commands.terminal import print_output
from resnet_cli.commands.train.planned import LEVELS, planned
from resnet_cli.config.config_schema import config_schema
from resnet_cli.config.paths import config_folders
from resnet_cli.config.presets import HYDRA_GROUPS, Preset, find_preset, find_presets, select_group
from resnet_cli.config.yaml_errors import display_path
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home, write_atomically
from resnet_cli.hydra_app.compose import Composed, compose_settings, is_run
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.streams import columns_of


def add_preset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that do something other than describe a network."""
    group = parser.add_argument_group("presets, files and this machine").add_mutually_exclusive_group()
    group.add_argument("--list", nargs="?", const="", metavar="GROUP", help="the presets, one line each")
    group.add_argument("--show", metavar="PRESET", help="print the file of model=resnet20, or resnet20")
    group.add_argument(
        "--copy", nargs="?", const="", metavar="PRESET | RUN | plan=LEVEL",
        help="write a preset, a run's config or a plan into ./conf, to change it",
    )  # fmt: skip
    group.add_argument("--check", metavar="FILE.yaml", help="check the file of a group, or a whole config")
    group.add_argument("--schema", action="store_true", help="the JSON Schema of a whole config, for editors")
    group.add_argument("--env", action="store_true", help="versions, devices, caches and disk, for a report")
    parser.add_argument("--as", dest="new_name", metavar="NAME", help="the name of the --copy; default: my_PRESET")


def preset_command(options: argparse.Namespace) -> Callable[[argparse.Namespace], None] | None:
    """Return the function that the options select; None if they ask for a network.

    Raises:
        InputError: Options exclude each other.
    """
    commands: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list, "show": _show, "copy": _copy, "check": _check, "schema": _schema, "env": _env,
    }  # fmt: skip
    chosen = next((name for name in commands if getattr(options, name) not in (None, False)), None)
    if options.new_name is not None and chosen != "copy":
        raise InputError(f"--as {options.new_name}: names the file of --copy")
    if chosen is None:
        return None
    for other in ("compare", "analysis", "out"):
        if getattr(options, other) is not None:
            raise InputError(f"--{chosen}: does not describe a network; leave out --{options.analysis or other}")
    if options.items and chosen not in ("copy", "check"):
        raise InputError(f"--{chosen}: takes no settings; leave out {' '.join(options.items)}")
    return commands[chosen]


def compose_planned(items: Sequence[str], config_dir: str | None) -> Composed:
    """Return the checked config of `items`, with the plan that they ask for.

    Raises:
        InputError: A plan is requested together with a run, or the config is wrong; lists all problems.
    """
    run = next(filter(is_run, items), None)
    if run is not None and any(item.lstrip("+").startswith("plan=") for item in items):
        raise InputError(f"plan: {run} keeps the plan that it was started with; leave out plan")
    with planned(_arguments(items, config_dir)):
        return compose_settings(items, config_dir=config_dir)


def _arguments(items: Sequence[str], config_dir: str | None) -> list[str]:
    return [*([] if config_dir is None else ["--config-dir", config_dir]), *items]


def _presets(options: argparse.Namespace) -> list[Preset]:
    return find_presets(config_folders(_arguments([], options.config_dir)))


def _list(options: argparse.Namespace) -> None:
    presets = _presets(options)
    if options.list:
        presets = select_group(presets, options.list)
    if options.format == "json":
        facts = [{"group": p.group, "name": p.name, "summary": p.summary, "file": str(p.path)} for p in presets]
        print_output(f"{json.dumps(facts)}\n")
        return
    width = max(len(preset.override) for preset in presets)
    limit = columns_of(sys.stdout) or 0
    lines = []
    for preset in presets:
        own = "" if preset.is_built_in else f"  ({display_path(preset.path)})"
        lines.append(_truncate(f"{preset.override:{width}}  {preset.summary}{own}".rstrip(), limit))
    print_output("\n".join(lines) + "\n")


def _truncate(line: str, limit: int) -> str:
    """Truncate a line to `limit` characters; 0 means no limit, as in a pipe."""
    return line if not limit or len(line) <= limit else f"{line[: limit - 3]}..."


def _show(options: argparse.Namespace) -> None:
    text = find_preset(_presets(options), options.show).text
    print_output(text if text.endswith("\n") else f"{text}\n")


def _copy(options: argparse.Namespace) -> None:
    name, *rest = [*([options.copy] if options.copy else []), *options.items] or [""]
    if not name:
        raise InputError("--copy: give a preset, a run folder, or plan=LEVEL with its settings")
    level = next((item.partition("=")[2] for item in (name, *rest) if item.startswith("plan=")), None)
    run = _find_named_run(name)
    if level is not None:
        _copy_plan(options, level, [name, *rest])
        return
    if rest:
        raise InputError(f"--copy {name}: is copied unchanged; leave out {' '.join(rest)} and edit the copy")
    if run is not None:
        _write(options, "experiment", run.path.absolute().name, format_run_as_experiment(run, options.config_dir))
        return
    preset = find_preset(_presets(options), name)
    _write(options, preset.group, preset.name, preset.text)


def _find_named_run(name: str) -> RunDir | None:
    """Return the run that a path names; None for the name of a preset, even if a folder has it too."""
    path = expand_home(name, "--copy")
    is_run = RunDir(path).config.is_file() or (path.exists() and len(Path(name).parts) > 1)
    return find_run(name) if is_run else None


def _copy_plan(options: argparse.Namespace, level: str, items: list[str]) -> None:
    if level not in LEVELS:
        raise InputError(f"plan={level}: is not allowed; it takes {', '.join(LEVELS)}")
    target = _target(options, "experiment", level)  # checked first, since planning takes time
    with planned(_arguments(items, options.config_dir)) as plans:
        settings = compose_settings(items, config_dir=options.config_dir).settings
        text = plans.files_of(level)["plan.yaml"]
    _write_new(target, "experiment", format_experiment(text, items, settings, config_dir=options.config_dir))


def _write(options: argparse.Namespace, group: str, name: str, text: str) -> None:
    _write_new(_target(options, group, name), group, text)


def _target(options: argparse.Namespace, group: str, name: str) -> Path:
    """Return the file to write.

    Raises:
        InputError: The file exists, or its name is not valid for an option.
    """
    new_name = options.new_name
    if new_name is None:
        new_name = f"my_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", new_name):
        raise InputError(f"--as {new_name}: a name has letters, digits, - and _ only")
    path = Path(options.config_dir or "conf", group, f"{new_name}.yaml")
    if path.exists():
        raise InputError(f"{path}: exists and is not overwritten; --as NAME gives the copy another name")
    return path


def _write_new(path: Path, group: str, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(error.errno, f"{path.parent}: cannot be created: {error.strerror or error}") from None
    write_atomically(path, text)
    sweep = "-m " if group in HYDRA_GROUPS else ""
    print_output(f"{path} written; after changing it:\n  resnet-train {sweep}{group}={path.stem}\n")


def _check(options: argparse.Namespace) -> None:
    from resnet_cli.info.check_file import check_file

    kind = check_file(options.check, options.items, options.config_dir)
    print_output(f"{options.check}: no problems ({kind})\n")


def _schema(options: argparse.Namespace) -> None:
    print_output(json.dumps(config_schema(_presets(options)), indent=1) + "\n")


def _env(options: argparse.Namespace) -> None:
    from resnet_cli.info.environment import describe_environment, format_environment

    facts = describe_environment()
    print_output(json.dumps(facts) + "\n" if options.format == "json" else "\n".join(format_environment(facts)) + "\n")
